"""Deliver a commit: build, deploy without traffic, smoke-check, shift the traffic.

Shipway delivers committed files only. An environment that comes `after` another takes the image
that serves there: the same digest, never rebuilt. With --digest, nothing is built anywhere.
If a newer commit serves or is the candidate, an older one steps aside: nothing changes.
Over several services, callees come before their callers, and a service is not tried if one that it
calls failed. --changed delivers those whose files differ from what is live, or with --since those
that commits after REF touch.
"""

from __future__ import annotations

import time
from typing import Annotated

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.command.call import Call
from scripts.command.options import (
    Bake,
    Builder,
    Commit,
    Digests,
    Override,
    Since,
    WritingOptions,
    option,
)
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.config import pipelines
from scripts.config.sources import APP
from scripts.deliver.overtaken import NewerCommits, overtaken
from scripts.errors import Refused, UsageError
from scripts.image.provenance import Signed
from scripts.machine import git
from scripts.release.choices import StepsAside, refuse_held, step_aside
from scripts.release.manifest import digests
from scripts.release.state import has_everything, was_rolled_back
from scripts.service import provenance
from scripts.service.build import Images, build, check
from scripts.service.context import Context, at_commit
from scripts.service.deploy import Deployed, deploy
from scripts.service.deploy import report as report_deploy
from scripts.service.regions import Tried, addresses, read_every_region, report
from scripts.service.rollout import rollout


class Options(WritingOptions, frozen=True, kw_only=True):
    commit: Commit = "HEAD"
    digest: Digests = None
    builder: Builder = None
    bake: Bake = None
    override: Override = None
    changed: Annotated[
        bool,
        option("--changed", help="the services whose files differ from what is live"),
    ] = False
    since: Since = None


def several(options: Options, call: Call) -> int | None:
    """With --changed, deliver the services that differ; otherwise None."""
    if not options.changed:
        if options.since is not None:
            raise UsageError("--since belongs to --changed", "./ship deliver --changed --since REF")
        return None
    if options.services or options.every:
        raise UsageError("--changed itself finds the services", "leave out their names and --all")
    # Imported here, because a delivery of one service starts sooner without them.
    from scripts.several.drive import drive
    from scripts.several.touched import touched

    commit = git.commit(call.root, options.commit)
    found = touched(
        call,
        commit,
        since=options.since,
        env=options.env,
        timeout=options.timeout,
        yes=options.yes,
    )
    for name, why in found.why.items():
        call.progress.line(f"{name}: {why}")
    if found.names:
        chosen = msgspec.structs.replace(options, commit=commit.sha, changed=False, since=None)
        return drive(chosen, call, found.names, found.commits)
    nothing = f"no service differs from what is live in {options.env}: nothing to deliver"
    if options.since is not None:
        nothing = f"no service was touched since {options.since}: nothing to deliver"
    result = Result(
        data={"services": {}, "errors": []},
        table=Table(columns=[], rows=[], notes=[nothing]),
        outputs={"delivered": ""},
    )
    return call.show(result, options.format)


def run(options: Options, call: Call) -> int:
    started = time.monotonic()
    with at_commit(options, call, options.commit, override=options.override) as (context, commit):
        context.confirm(f"Deliver {commit.short} ({commit.subject}) to {context.where}.")
        newer = NewerCommits(context, commit)
        for region in context.regions:
            region.is_newer = newer.includes
        try:
            _check_may_go(context, newer)
            images, signed = _images(context, commit, options)
            context.record.images = dict(images)
            _check_came_through(context, images)
            tried = deploy(context, commit, images)
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
        "image": str(images[APP]),
        "digest": images[APP].digest,
        "provenance": msgspec.to_builtins(signed),
        "url": done.moves[0].after.url,
        "revision_url": deployed[0].url,
        "seconds": round(time.monotonic() - started, 2),
    }
    result = msgspec.structs.replace(
        result,
        data={**result.data, **data},
        outputs={
            **result.outputs,
            "delivered": "" if result.code else context.pipeline.service,
        },
    )
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


def _images(context: Context, commit: git.Commit, options: Options) -> tuple[Images, Signed | None]:
    """Return the commit's images by digest, and who signed them if the environment asks.

    Build them first unless --digest names them.
    """
    if options.digest is None:
        built = build(context, commit, options.builder)
        if context.dry_run and built.new:
            return built.images, None  # not in the registry: a dry run pushes nothing
    elif options.builder:
        raise UsageError("--digest never builds, so it takes no --builder", "leave one of them out")
    images = check(context, commit, options.digest)
    return images, provenance.check(context, commit, images)


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


def _check_came_through(context: Context, images: Images) -> None:
    """Check that the images have served together in the environment that comes first.

    Raises:
        Refused: these digests have not served there.
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
        wanted = {image.digest for image in images.values()}
        if not any(wanted <= digests(revisions[name]) for name in good):
            which = ", ".join(image.short_digest for image in images.values())
            have = "has" if len(images) == 1 else "have"
            raise Refused(
                f"{which} {have} not served in {earlier} ({region}),"
                f" and {pipeline.env} comes after it",
                f"./ship deliver {before.where}",
            )
