"""Build a commit's image, unless the registry has it."""

from __future__ import annotations

import msgspec

from scripts.config.image_reference import ImageReference
from scripts.errors import Refused
from scripts.machine.git import Commit
from scripts.service import provenance
from scripts.service.context import Context


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """An image in the registry: its reference by digest, and whether it is new there."""

    image: ImageReference
    new: bool


def build(context: Context, commit: Commit, builder: str | None) -> Built:
    """Make sure that the commit's image is in the registry.

    Args:
        context: the call, on the commit's files.
        commit: what to build.
        builder: "docker" or "cloud-build"; None for the environment's.

    Raises:
        UsageError: the Dockerfile cannot be built with it, or the registry does not answer.
        Refused: the environment never builds, and the commit has no image.
        Failed: the build failed; its last lines are the evidence.
    """
    pipeline = context.pipeline
    with context.progress.step("build", f"{pipeline.service} {commit.short}") as step:
        found = context.images.find(commit)
        why = found and (
            context.images.unfit(commit, found)
            or provenance.may_be_reused(context, commit, found.reference)
        )
        if found and not why:
            step.done(f"{found.reference.short} was built before")
            return Built(image=found.reference, new=False)
        has = f"an image that does not count: {why}" if why else "no image"
        if pipeline.environment.after:
            raise Refused(
                f"commit {commit.short} has {has}, and {pipeline.env} never builds one:"
                f" it takes the image that serves in {pipeline.environment.after}",
                f"./ship deliver {pipeline.service} --env {pipeline.environment.after}",
            )
        if found:
            step.say(f"building again: {found.reference.short} does not count: {why}")
        builder = builder or pipeline.environment.builder
        image = context.images.build(commit, builder, step.say, instead_of=found)
        step.done(f"{image.short} {'would be pushed' if context.dry_run else 'pushed'}")
    return Built(image=image, new=True)
