"""Check, before a deploy, that this repository's own pipeline built the image from the commit."""

from __future__ import annotations

import os
from collections.abc import Mapping

from scripts import HOME
from scripts.config import pipelines
from scripts.config.image_reference import ImageReference
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, Refused, UsageError
from scripts.image import provenance
from scripts.image.provenance import SIGNER, Signed, Source
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.service.context import Context

_SHOWN = 3  # bundles that did not verify


def check(context: Context, commit: Commit, images: Mapping[str, ImageReference]) -> Signed | None:
    """Check the provenance of a commit's images, where the environment asks for it. Only reads.

    Args:
        context: the call, on the commit's files.
        commit: what they must be built from.
        images: placeholder → the image by digest, `app` first.

    Returns:
        Who signed the service's own image; None where the environment does not ask.

    Raises:
        Refused: no provenance of one of them verifies.
        UsageError, Failed: it cannot be checked, which counts as no.
    """
    if not context.pipeline.verifies_provenance:
        return None
    signed = []
    for image in images.values():
        with context.progress.step("provenance", image.short) as step:
            signed.append(_verified(context, context.pipeline, commit, image))
            step.done(signed[-1].line)
    context.record.provenance = "; ".join(dict.fromkeys(one.line for one in signed))
    return signed[0]


def may_be_reused(context: Context, commit: Commit, image: ImageReference) -> str:
    """Return why the job that signs must build an image again; "" if it need not.

    A run that died between its push and its signature leaves an image that no environment which
    asks for provenance would ever take. Elsewhere nothing is signed, so building again is no use.
    """
    pipeline = context.pipeline
    names = pipelines.environments(pipeline.root, pipeline.service)
    others = [
        pipelines.load(pipeline.root, pipeline.service, name, checkout=pipeline.checkout)
        for name in names
    ]
    asking = [
        one
        for one in others
        if one.verifies_provenance and one.environment.registry == pipeline.environment.registry
    ]
    if not asking or os.environ.get("GITHUB_ACTIONS") != "true":
        return ""
    try:
        _verified(context, asking[0], commit, image)
    except Refused as refused:
        return "; ".join([refused.message, *refused.evidence])
    return ""


def _verified(
    context: Context, pipeline: Pipeline, commit: Commit, image: ImageReference
) -> Signed:
    """Return who signed an image, as an environment requires it."""
    source = _source(context)
    trust = pipeline.environment.trust
    verifier = provenance.trusted(
        pipeline.root / trust if trust else None, HOME / ".shipway" / "cache"
    )
    problems = []
    for bundle in context.images.bundles(image):
        try:
            return provenance.verify(bundle, verifier, image, commit.sha, source)
        except Failed as failed:
            problems.append(failed.message)
    file = f"pipelines/{pipeline.service}/{pipeline.env}.yaml"
    raise Refused(
        f"{image.short} has no provenance that proves that {source.name} built it"
        f" from commit {commit.short}",
        f"run the Deliver workflow again for this commit: it builds and signs in {SIGNER}."
        f" A repository that cannot sign (private at GitHub, Cloud Build): verify: none in {file}",
        evidence=problems[:_SHOWN] or ["no signed provenance is attached to the image"],
    )


def _source(context: Context) -> Source:
    """Return the repository: in a job as GitHub states it, with its numbers; else the origin.

    Source: https://docs.github.com/en/actions/reference/workflows-and-actions/variables.
    """
    name = os.environ.get("GITHUB_REPOSITORY") or git.github_name(context.root)
    if name is None:
        raise UsageError(
            "verify: provenance: the remote origin is not at GitHub, so nothing says"
            " which repository must have built the image",
            "git remote add origin https://github.com/OWNER/NAME.git",
        )
    return Source(
        name=name,
        repository_id=os.environ.get("GITHUB_REPOSITORY_ID", ""),
        owner_id=os.environ.get("GITHUB_REPOSITORY_OWNER_ID", ""),
    )
