"""Deliver a commit: build, deploy without traffic, smoke-check, shift the traffic.

Shipway delivers committed files only. An environment that comes `after` another takes the image
that serves there: the same digest, never rebuilt. With --digest, nothing is built anywhere.
If a newer commit serves or is the candidate, an older one steps aside: nothing changes.
"""

from __future__ import annotations

import time

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.command.call import Call
from scripts.command.options import Bake, Builder, Commit, Digest, Override, WritingOptions
from scripts.command.results import Result
from scripts.config import pipelines
from scripts.config.image_reference import ImageReference
from scripts.deliver.overtaken import NewerCommits, overtaken
from scripts.errors import Refused, UsageError
from scripts.image.provenance import Signed
from scripts.machine import git
from scripts.release.choices import StepsAside, refuse_held, step_aside
from scripts.release.manifest import image_of
from scripts.release.state import has_everything, was_rolled_back
from scripts.service import provenance
from scripts.service.build import build
from scripts.service.context import Context, at_commit
from scripts.service.deploy import Deployed, deploy
from scripts.service.deploy import report as report_deploy
from scripts.service.regions import Tried, addresses, read_every_region, report
from scripts.service.rollout import rollout


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
        newer = NewerCommits(context, commit)
        for region in context.regions:
            region.is_newer = newer.includes
        try:
            _check_may_go(context, newer)
            image, signed = _image(context, commit, options)
            context.record.image = image
            _check_came_through(context, image)
            tried = deploy(context, commit, image)
            if context.dry_run:
                return call.show(_dry_run(context, commit, tried, signed, options), options.format)
            tried.check()
            deployed = [*tried.done.values()]
            done = rollout(context, deployed[0].revision, options.bake)
        except StepsAside as aside:
            return call.show(overtaken(context, commit, aside), options.format)
    notes = [f"{commit.short} {commit.subject}", *addresses(done)]
    if not all(has_everything(move.after, deployed[0].revision) for move in done.moves):
        notes.append(
            f"the environment's steps end here. To continue: ./ship promote {context.where}"
        )
    result = report(context, done, notes)
    data = {
        "outcome": "delivered",
        "overtaken": False,
        "commit": commit.sha,
        "revision": deployed[0].revision,
        "image": str(image),
        "digest": image.digest,
        "provenance": msgspec.to_builtins(signed),
        "url": done.moves[0].after.url,
        "revision_url": deployed[0].url,
        "seconds": round(time.monotonic() - started, 2),
    }
    result = msgspec.structs.replace(result, data={**result.data, **data})
    return call.show(result, options.format)


def _dry_run(
    context: Context,
    commit: git.Commit,
    tried: Tried[Deployed],
    signed: Signed | None,
    options: Options,
) -> Result:
    """Make the result of a dry run: what would be deployed, and the traffic that would follow."""
    if tried.errors:
        return report_deploy(context, commit, tried, signed)
    planned = {one.region: one.planned for one in tried.done.values() if one.planned}
    revision = next(iter(tried.done.values())).revision
    done = rollout(context, revision, options.bake, planned=planned)
    steps = context.pipeline.environment.rollout.steps
    then = []
    for move in done.moves:
        share = move.before.shares.get(revision, 0)
        would = move.after.shares.get(revision, 0)
        if share != would:
            listed = ", ".join(f"{step} %" for step in steps if step > share) or f"{would} %"
            back = " It was rolled back before." if was_rolled_back(move.before, revision) else ""
            then.append(
                f"{move.region}: then {revision} would go from {share} % to {listed}.{back}"
            )
    result = report_deploy(context, commit, tried, signed, then)
    traffic = [
        {
            "region": move.region,
            "before": dict(move.before.shares),
            "after": dict(move.after.shares),
            "changed": move.before is not move.after,
        }
        for move in done.moves
    ]
    return msgspec.structs.replace(result, data={**result.data, "traffic": traffic})


def _image(
    context: Context, commit: git.Commit, options: Options
) -> tuple[ImageReference, Signed | None]:
    """Return the commit's image by digest, and who signed it if the environment asks.

    Build it first unless --digest names it.
    """
    if options.digest is None:
        built = build(context, commit, options.builder)
        if context.dry_run and built.new:
            return built.image, None  # not in the registry: a dry run pushes nothing
    elif options.builder:
        raise UsageError("--digest never builds, so it takes no --builder", "leave one of them out")
    image = context.images.check(commit, options.digest)
    return image, provenance.check(context, commit, image)


def _check_may_go(context: Context, newer: NewerCommits) -> None:
    """Stop early, before a build; each write checks again.

    Raises:
        StepsAside: a newer commit serves or is being released in some region.
        Refused: there is a hold (I7).
        UsageError: a service that this one calls has not been delivered.
    """
    read = context.callees.read_beside(
        lambda: read_every_region(context, lambda region: region.read())
    )
    for region, state in read.items():
        if state is None:
            context.record.saw(region, {})
    states = [state for state in read.values() if state]
    newer.report_unknown(states)
    for state in states:
        step_aside(state)
    for state in states:
        refuse_held(state, context.override)
    context.callees.check()


def _check_came_through(context: Context, image: ImageReference) -> None:
    """Check that the image has served in the environment that comes first.

    Raises:
        Refused: this digest has not served there.
    """
    pipeline = context.pipeline
    earlier = pipeline.environment.after
    if earlier is None:
        return
    before = pipelines.load(pipeline.root, pipeline.service, earlier, checkout=pipeline.checkout)
    google = Google(before, dry_run=True, patience=context.google.patience)
    for region in before.environment.regions:
        state = CloudRun(google, before, region).read()
        revisions = state.revisions if state else {}
        good = [name for name in state.known_good if name in revisions] if state else []
        if image.digest not in {image_of(revisions[name]).digest for name in good}:
            raise Refused(
                f"{image.short_digest} has not served in {earlier} ({region}),"
                f" and {pipeline.env} comes after it",
                f"./ship deliver {before.where}",
            )
