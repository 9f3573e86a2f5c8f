"""Deploy a commit's image as a revision without traffic, under a tag with its own URL.

A service's very first revision has no predecessor: Cloud Run gives it traffic at once.
"""

from __future__ import annotations

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import ApiError, Conflict
from scripts.command.call import Call
from scripts.command.options import Commit, Digest, WritingOptions
from scripts.command.results import Result, Table
from scripts.command.words import short_digest
from scripts.errors import Failed, Refused
from scripts.image.images import Images
from scripts.machine import git
from scripts.release import changes as release
from scripts.release import manifest
from scripts.release.changes import Newer
from scripts.release.manifest import Object
from scripts.release.state import condition, has_failed
from scripts.service.context import Context, at_commit

_RACES = 8


class Options(WritingOptions, frozen=True, kw_only=True):
    commit: Commit = "HEAD"
    digest: Digest = None


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """A Ready revision: its region, name, image, tag, the tag's URL, and whether it is new."""

    region: str
    revision: str
    image: str
    tag: str
    url: str
    new: bool
    write: Object | None = None
    """In a dry run, the service that would be written."""


def run(options: Options, call: Call) -> int:
    with at_commit(options, call, options.commit) as (context, commit):
        context.confirm(f"Deploy {commit.short} to {context.where}, without traffic.")
        image = Images(context).checked(commit, options.digest)
        done = deploy(context, commit, image)
        if not context.dry_run:
            for region in context.regions:
                region.change(release.claim, done[0].revision, context.actor())
    return call.show(report(context, commit, done), options.format)


def report(context: Context, commit: git.Commit, done: list[Deployed]) -> Result:
    """The result of a deploy."""
    return Result(
        data={
            "service": context.pipeline.service,
            "environment": context.pipeline.env,
            "commit": commit.sha,
            "revision": done[0].revision,
            "url": done[0].url,
            "dry_run": context.dry_run,
            "regions": [msgspec.to_builtins(one) for one in done],
        },
        table=Table(
            columns=["REGION", "REVISION", "IMAGE", "TAG", "URL"],
            rows=[[d.region, d.revision, short_digest(d.image), d.tag, d.url] for d in done],
            notes=[
                f"dry run: nothing was written; this would be, to {d.region}:\n"
                + manifest.to_bytes(d.write).decode().rstrip()
                for d in done
                if d.write
            ]
            or (["dry run: nothing would be written"] if context.dry_run else []),
        ),
    )


def deploy(
    context: Context, commit: git.Commit, image: str, newer: Newer = lambda _: False
) -> list[Deployed]:
    """Deploy to every region, and wait until each revision is Ready.

    Args:
        context: the call, on the commit's files.
        commit: what the image was built from.
        image: reference by digest.
        newer: the commits that it steps aside for; none unless given.

    Raises:
        StepsAside: a newer commit serves, or is under way.
        Failed: a revision did not start; its container's last log lines are the evidence.
    """
    return [_deploy(context, region, commit, image, newer) for region in context.regions]


def _deploy(
    context: Context, region: CloudRun, commit: git.Commit, image: str, newer: Newer
) -> Deployed:
    tag = manifest.tag(commit.sha)
    with context.progress.step("deploy", f"{commit.short} to {region.region}") as step:
        for _ in range(_RACES):
            state = region.read()
            if state:
                release.step_aside(state, newer)
            name, exists = _name(region, commit, image)
            desired = manifest.render(
                context.pipeline, commit=commit.sha, image=image, revision=name
            )
            if state and exists:
                # The revision is there: only its tag and its candidacy may be missing (I6).
                desired["spec"]["template"] = state.service["spec"]["template"]
            service = release.deployed(state, desired, name, tag, context.actor())
            done = Deployed(
                region=region.region, revision=name, image=image, tag=tag, url="", new=not exists
            )
            changes = state is None or release.differs(state, service)
            if context.dry_run:
                step.done(f"{name} {'would be deployed' if changes else 'is deployed already'}")
                return msgspec.structs.replace(done, write=service if changes else None)
            if changes:
                try:
                    region.put(service, exists=state is not None)
                except Conflict:
                    continue
                except ApiError as error:
                    if error.status == "ALREADY_EXISTS" and state is None:
                        continue  # somebody else created the service meanwhile
                    raise
            step.say(f"waiting for {name} to become ready")
            _ready(context, region, name, first=state is None)
            url = region.tag_url(tag, name)
            step.done(f"{name} is ready at {url}")
            return msgspec.structs.replace(done, url=url)
    raise Refused(f"{region.name} is being changed by others all the time: nothing was changed")


def _name(region: CloudRun, commit: git.Commit, image: str) -> tuple[str, bool]:
    """The commit's revision, and whether it exists.

    Where Cloud Run gave up on the earlier ones it gets a new name: a failed revision never starts.

    Raises:
        Refused: a revision of that name runs another image.
    """
    failed: set[str] = set()
    while True:
        name = manifest.revision_name(region.name, commit.sha, failed)
        there = region.revision(name)
        if there is None or not has_failed(there):
            break
        failed.add(name)
    digest = image.rpartition("@")[2]
    if there and manifest.image_of(there).rpartition("@")[2] != digest:
        raise Refused(
            f"revision {name} exists and runs {manifest.image_of(there)}, not {digest}",
            "a commit has one image: make a new commit",
        )
    return name, there is not None


def _ready(context: Context, region: CloudRun, name: str, *, first: bool) -> None:
    revision = region.wait_until_ready(name)
    if not has_failed(revision):
        return
    ready = condition(revision)
    says = ready.get("message", "").strip().splitlines()
    serving = "nothing serves yet" if first else f"{region.name} serves what it did before"
    raise Failed(
        f"revision {name} did not start: {ready.get('reason', 'no reason given')}; {serving}",
        f"Fix it and commit. To see what is live: ./ship status {context.where}",
        evidence=says,
        service_says=["the container's last log lines:", *region.last_log_lines(name)],
    )
