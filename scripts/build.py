"""Build a commit's image and push it, tagged with the full commit SHA.

A commit that is in the registry already is not built again: its digest is what counts.
"""

from __future__ import annotations

import msgspec

from scripts.command.call import Call
from scripts.command.options import Builder, Commit, WritingOptions
from scripts.command.results import Result, Table
from scripts.command.words import short_digest
from scripts.errors import Refused, UsageError
from scripts.image.images import Images
from scripts.machine import git
from scripts.service.context import Context, at_commit


class Options(WritingOptions, frozen=True, kw_only=True):
    commit: Commit = "HEAD"
    builder: Builder = None


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is in the registry: its reference by digest, and whether it is new there."""

    image: str
    new: bool


def run(options: Options, call: Call) -> int:
    with at_commit(options, call, options.commit) as (context, commit):
        built = build(context, commit, options.builder)
        attested = [] if context.dry_run else Images(context).attestations(built.image)
    result = Result(
        data={
            "service": context.pipeline.service,
            "commit": commit.sha,
            "image": built.image,
            "repository": built.image.partition("@")[0],
            "digest": built.image.rpartition("@")[2],
            "built": built.new,
            "attestations": attested,
            "dry_run": context.dry_run,
        },
        table=Table(
            columns=["COMMIT", "IMAGE", "BUILT"],
            rows=[[commit.short, short(built.image), "now" if built.new else "before"]],
            notes=[
                built.image,
                *([f"attested: {', '.join(attested)}"] if attested else []),
                *(["dry run: nothing was pushed"] if context.dry_run else []),
            ],
        ),
    )
    return call.show(result, options.format)


def short(image: str) -> str:
    """An image reference as people compare it: "app@sha256:0123456789ab"."""
    name = image.partition("@")[0].rpartition("/")[2]
    return f"{name}@{short_digest(image)}"


def build(context: Context, commit: git.Commit, builder: str | None) -> Built:
    """Make sure that the commit's image is in the registry.

    Args:
        context: the call, on the commit's files.
        commit: what to build.
        builder: "docker" or "pack"; None for the environment's.

    Raises:
        UsageError: the Dockerfile cannot be built so, or the registry does not answer.
        Failed: the build failed; its last lines are the evidence.
    """
    pipeline = context.pipeline
    images = Images(context)
    with context.progress.step("build", f"{pipeline.service} {commit.short}") as step:
        there = images.find(commit)
        if there:
            step.done(f"{short(there.reference)} was built before")
            return Built(image=there.reference, new=False)
        if pipeline.environment.after:
            raise Refused(
                f"commit {commit.short} has no image, and {pipeline.env} never builds one:"
                f" it takes what serves in {pipeline.environment.after}",
                f"./ship deliver {pipeline.service} --env {pipeline.environment.after}",
            )
        builder = builder or pipeline.environment.builder
        if builder == "pack" and pipeline.environment.builder != "pack":
            raise UsageError(
                f"--builder pack: {pipeline.env} takes images built by docker only: a packed image"
                " holds no operating system"
            )
        image = images.build(commit, builder, step.say)
        step.done(f"{short(image)} {'would be pushed' if context.dry_run else 'pushed'}")
    return Built(image=image, new=True)
