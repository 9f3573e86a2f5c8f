"""Build a commit's images, unless the registry has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from scripts.config.image_reference import ImageReference
from scripts.config.sources import APP
from scripts.errors import Refused, UsageError
from scripts.machine.git import Commit
from scripts.service import accepted, provenance
from scripts.service.context import Context

if TYPE_CHECKING:
    from scripts.image.commit_images import CommitImages

Images = Mapping[str, ImageReference]
"""The images of a commit by digest: placeholder in the manifest → image, `app` first."""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A commit's images in the registry.

    Attributes:
        images: each of them by digest, by its placeholder; by tag in a dry run, if it is new.
        new: the placeholders of those that are new there.
    """

    images: dict[str, ImageReference]
    new: list[str]

    @property
    def image(self) -> ImageReference:
        """The image of the service's own folder."""
        return self.images[APP]


def build(context: Context, commit: Commit, builder: str | None) -> Built:
    """Make sure that the commit's images are in the registry.

    Args:
        context: the call, on the commit's files.
        commit: what to build.
        builder: "docker" or "cloud-build"; None for the environment's.

    Raises:
        UsageError: a Dockerfile is missing or cannot be built with it, Cloud Run would refuse the
            manifest, or the registry does not answer.
        Refused: the environment never builds, and the commit lacks an image.
        Failed: a build failed; its last lines are the evidence.
    """
    accepted.check(context.pipeline)
    each = context.images.each()
    for kept in each.values():
        kept.require_dockerfile(commit)
    images: dict[str, ImageReference] = {}
    new = []
    for word, kept in each.items():
        images[word], is_new = _build(context, kept, commit, builder)
        if is_new:
            new.append(word)
    return Built(images=images, new=new)


def _build(
    context: Context, images: CommitImages, commit: Commit, builder: str | None
) -> tuple[ImageReference, bool]:
    """Make sure that one image is in the registry; return it, and whether it is new there."""
    pipeline = context.pipeline
    with context.progress.step("build", f"{images.name} {commit.short}") as step:
        found = images.find(commit)
        why = found and (
            images.unfit(commit, found)
            or provenance.may_be_reused(context, commit, found.reference)
        )
        if found and not why:
            step.done(f"{found.reference.short} was built before")
            return found.reference, False
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
        image = images.build(commit, builder, step.say, instead_of=found)
        step.done(f"{image.short} {'would be pushed' if context.dry_run else 'pushed'}")
    return image, True


def check(context: Context, commit: Commit, given: Mapping[str, str] | None) -> Images:
    """Check the commit's images before a deploy (I2), as `CommitImages.check` does.

    Args:
        context: the call, on the commit's files.
        commit: the commit that they must be built from.
        given: the digests of `--digest`: SERVICE or SERVICE/WORD → digest, "" for the only one;
            None where the caller names none.

    Raises:
        UsageError: the registry lacks one, or --digest does not name exactly these images.
        Refused: one is not the commit's.
    """
    each = context.images.each()
    names = {kept.name: word for word, kept in each.items()}
    wanted = dict(given or {})
    if len(names) == 1 and "" in wanted:
        wanted[context.pipeline.service] = wanted.pop("")
    if given and wanted.keys() != names.keys():
        odd = min((wanted.keys() ^ names.keys()) - {""})
        says = "does not name" if odd in names else "names"
        raise UsageError(
            f"--digest {says} {odd}: the images of {context.pipeline.service} are"
            f" {', '.join(names)}",
            f"--digest {','.join(f'{name}=sha256:…' for name in names)}",
        )
    return {word: each[word].check(commit, wanted.get(name)) for name, word in names.items()}


def listed(context: Context, images: Images) -> str:
    """Return images as `--digest` takes them: app=sha256:…,app/proxy=sha256:…"""
    each = context.images.each()
    return ",".join(f"{each[word].name}={image.digest}" for word, image in images.items())
