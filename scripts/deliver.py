"""Deliver a commit: build, deploy without traffic, smoke-check, shift the traffic.

What is delivered is what is committed. An environment that comes `after` another takes the image
that serves there: the same digest, never rebuilt. With --digest nothing is built anywhere.
A commit that comes late steps aside: where a newer one serves, or is under way, nothing is changed.
"""

from __future__ import annotations

import time

import msgspec

from scripts.build import build
from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.command.call import Call
from scripts.command.options import Bake, Builder, Commit, Digest, Override, WritingOptions
from scripts.config import pipelines
from scripts.deploy import deploy
from scripts.deploy import report as deploy_report
from scripts.errors import Refused, UsageError
from scripts.image.images import Images
from scripts.machine import git
from scripts.release import changes
from scripts.release.manifest import image_of
from scripts.release.state import finished
from scripts.rollout import rollout
from scripts.service.context import Context, at_commit, moved
from scripts.service.descendants import Descendants, overtaken


class Options(WritingOptions, frozen=True, kw_only=True):
    commit: Commit = "HEAD"
    digest: Digest = None
    builder: Builder = None
    bake: Bake = None
    override: Override = None


def run(options: Options, call: Call) -> int:
    started = time.monotonic()
    with at_commit(options, call, options.commit, override=options.override) as (context, commit):
        context.confirm(f"Deliver {commit.short} ({commit.subject}) to {context.where}.")
        newer = Descendants(context, commit)
        try:
            _may_go(context, newer)
            image = context.record.image = _image(context, commit, options)
            _came_through(context, image)
            deployed = deploy(context, commit, image, newer)
            if context.dry_run:
                return call.show(deploy_report(context, commit, deployed), options.format)
            moves = rollout(context, deployed[0].revision, options.bake, newer)
        except changes.StepsAside as aside:
            return call.show(overtaken(context, commit, aside), options.format)
    said = [f"{commit.short} {commit.subject}"]
    if not all(finished(move.after, deployed[0].revision) for move in moves):
        said.append(f"the environment's steps end here: ./ship promote {context.where} goes on")
    result = moved(context, moves, said)
    data = {
        "outcome": "delivered",
        "overtaken": False,
        "commit": commit.sha,
        "revision": deployed[0].revision,
        "image": image,
        "digest": image.rpartition("@")[2],
        "url": str((moves[0].after.service.get("status") or {}).get("url", "")),
        "revision_url": deployed[0].url,
        "seconds": round(time.monotonic() - started, 2),
    }
    result = msgspec.structs.replace(result, data={**result.data, **data})
    return call.show(result, options.format)


def _image(context: Context, commit: git.Commit, options: Options) -> str:
    """The reference by digest of the commit's image, which is built unless --digest names it."""
    if options.digest is None:
        built = build(context, commit, options.builder)
        if context.dry_run and built.new:
            return built.image
    elif options.builder:
        raise UsageError("--digest never builds, so it takes no --builder", "leave one of them out")
    return Images(context).checked(commit, options.digest)


def _may_go(context: Context, newer: Descendants) -> None:
    """Ask before it costs a build; each write asks again.

    Raises:
        StepsAside: a newer commit serves in some region, or is under way there.
        Refused: there is a hold (I7).
    """
    states = [state for region in context.regions if (state := region.read())]
    for state in states:
        newer.tell_unknown(state)
        changes.step_aside(state, newer)
    for state in states:
        changes.refuse_held(state, context.override)


def _came_through(context: Context, image: str) -> None:
    """Refuse what has not served in the environment that comes first.

    Raises:
        Refused: this digest has not served there.
    """
    pipeline = context.pipeline
    earlier = pipeline.environment.after
    if earlier is None:
        return
    before = pipelines.load(pipeline.root, pipeline.service, earlier)
    google = Google(before, dry_run=True)
    digest = image.rpartition("@")[2]
    for name in before.environment.regions:
        region = CloudRun(google, before, name)
        state = region.read()
        good = set(state.known_good) if state else set()
        served = {
            image_of(r).rpartition("@")[2]
            for r in region.revisions()
            if r["metadata"]["name"] in good
        }
        if digest not in served:
            raise Refused(
                f"{digest[:19]} has not served in {earlier} ({name}),"
                f" and {pipeline.env} comes after it",
                f"./ship deliver {before.where}",
            )
