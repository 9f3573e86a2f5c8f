"""Deploy a commit's images to every region, as a revision without traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.command.progress import Step
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.config.image_reference import ImageReference
from scripts.config.sources import APP
from scripts.errors import Failed, Refused
from scripts.image.provenance import Signed
from scripts.machine.git import Commit
from scripts.release import deploys, manifest
from scripts.release.choices import step_aside
from scripts.release.manifest import Object
from scripts.release.state import State, condition, has_failed, warnings
from scripts.service import local_roles, local_secrets
from scripts.service.build import Images
from scripts.service.context import Context
from scripts.service.regions import Tried, try_in_every_region
from scripts.service.smoke import LOG_FOLLOWS, logs, require_images


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """A Ready revision in one region.

    Attributes:
        region: where.
        revision: its name.
        image: the image of the service's own folder, by digest.
        images: placeholder → its image by digest.
        tag: its tag.
        url: the tag's URL; "" in a dry run.
        new: whether this deploy made it.
        write: in a dry run, the service that would be written; None if nothing would change.
        planned: in a dry run, the service as it would be then.
    """

    region: str
    revision: str
    image: str
    images: dict[str, str]
    tag: str
    url: str
    new: bool
    write: Object | None = None
    planned: State | None = None


def deploy(context: Context, commit: Commit, images: Images) -> Tried[Deployed]:
    """Deploy to every region, and wait until each revision is Ready.

    A failure in one region leaves the later ones untouched.

    Args:
        context: the call, on the commit's files.
        commit: what the images were built from.
        images: placeholder → the image by digest.

    Raises:
        StepsAside: a newer commit serves or is being released.
        UsageError: a service that this one calls has not been delivered.
        Failed: no region has the revision. Where it did not start, its container's last log lines
            are the evidence.
    """
    context.callees.check()
    if brought := local_secrets.bring(context.google, context.pipeline):
        context.progress.line(f"{local_secrets.FILE}: {', '.join(brought)}")
    local_roles.let_call(context)
    tried = try_in_every_region(
        context, lambda region: _deploy(context, region, commit, images), stop_at_failure=True
    )
    local_roles.let_callers(context)
    return tried


def _deploy(context: Context, region: CloudRun, commit: Commit, images: Images) -> Deployed:
    tag = manifest.tag(commit.sha)
    name, exists = "", False
    service: Object = {}
    urls = context.callees.urls(region.region)

    def plan(state: State | None) -> Object | None:
        nonlocal name, exists, service
        if state:
            step_aside(state)
        name, exists = _name(context, region, commit, images, urls)
        desired = manifest.render(
            context.pipeline, commit=commit.sha, images=images, revision=name, urls=urls
        )
        if state and exists:
            # The revision exists: only its tag and its candidacy may be missing (I6).
            desired["spec"]["template"] = state.service["spec"]["template"]
        service = deploys.deploy(state, desired, name, tag, context.actor())
        return service if state is None or deploys.differs(state, service) else None

    with context.progress.step("deploy", f"{commit.short} to {region.region}") as step:
        written = region.write(plan)
        url = ""
        if context.dry_run:
            doing = "would be deployed" if written.planned else "is already deployed"
            step.done(f"{name} {doing}")
        else:
            step.say(f"waiting for {name} to become ready")
            _wait_until_ready(context, region, name, images, step)
            url = region.tag_url(tag, name)
            step.done(f"{name} is ready at {url}")
    return Deployed(
        region=region.region,
        revision=name,
        image=str(images[APP]),
        images={word: str(image) for word, image in images.items()},
        tag=tag,
        url=url,
        new=not exists,
        write=written.planned if context.dry_run else None,
        planned=deploys.deployed(written.before, service, name, context.where)
        if context.dry_run
        else None,
    )


def _name(
    context: Context, region: CloudRun, commit: Commit, images: Images, urls: Mapping[str, str]
) -> tuple[str, bool]:
    """Return the name of the commit's revision, and whether it exists.

    Where Cloud Run gave up on the earlier ones it gets a new name: a failed revision never starts.
    So it does where they call a service at a URL that is not its URL any more.

    Raises:
        Refused: a revision of that name runs another image.
    """
    taken: set[str] = set()
    while True:
        name = manifest.revision_name(region.name, commit.sha, taken)
        found = region.revision(name)
        if found is None or (not has_failed(found) and manifest.has_urls(found, urls)):
            break
        taken.add(name)
    for word, runs in manifest.built_images(context.pipeline, found) if found else ():
        if runs.digest != images[word].digest:
            raise Refused(
                f"revision {name} exists and runs {runs}, not {images[word].digest}",
                "a commit has one image of each folder: make a new commit",
            )
    return name, found is not None


def _wait_until_ready(
    context: Context, region: CloudRun, name: str, images: Images, step: Step
) -> None:
    revision = region.wait_until_ready(name, step.still)
    if not has_failed(revision):
        require_images(context.pipeline, revision, images)
        _require_resolved(context, revision, images[APP])
        for warning in warnings(revision):
            step.say(warning)
        return
    ready = condition(revision)
    lines = ready.get("message", "").strip().splitlines()
    raise Failed(
        f"revision {name} did not start: {ready.get('reason', 'no reason given')}",
        f"Fix it and commit. To see its log: {logs(context, name)}."
        f" To see what is live: ./ship status {context.where}",
        evidence=lines,
        service_says=[LOG_FOLLOWS, *region.last_log_lines(name)],
    )


def _require_resolved(context: Context, revision: Object, image: ImageReference) -> None:
    """Require that Cloud Run resolved the image's digest to the image itself.

    For an index, it reports the digest of the index's manifest for linux/amd64, as deliveries of
    others met: https://github.com/BasedHardware/omi/pull/10702. With sidecars, nothing says which
    container's digest it reports.

    Source: https://cloud.google.com/run/docs/reference/rest/v1/RevisionStatus (imageDigest)
    """
    resolved = (revision.get("status") or {}).get("imageDigest")
    if not resolved or len(revision["spec"].get("containers") or []) > 1:
        return
    digest = ImageReference.parse(resolved).digest
    if digest != image.digest and digest not in context.images.manifests(image):
        name = revision["metadata"]["name"]
        raise Failed(
            f"revision {name} runs {resolved}, which is not part of {image}",
            "make a new commit and deliver it",
        )


def report(
    context: Context,
    commit: Commit,
    tried: Tried[Deployed],
    signed: Signed | None,
    then: Sequence[str] = (),
) -> Result:
    """Make the result of a deploy: what each region has now, and what went wrong.

    Args:
        context: the call.
        commit: what was deployed.
        tried: what happened in each region.
        signed: who signed the image, if the environment asks.
        then: in a dry run, what the command would do after the deploy.
    """
    done = [*tried.done.values()]
    return Result(
        data={
            "service": context.pipeline.service,
            "environment": context.pipeline.env,
            "commit": commit.sha,
            "revision": done[0].revision,
            "url": done[0].url,
            "dry_run": context.dry_run,
            "provenance": msgspec.to_builtins(signed),
            "errors": [f"{region}: {error.message}" for region, error in tried.errors.items()],
            "regions": [_document(one) for one in done],
        },
        table=Table(
            columns=["REGION", "REVISION", "IMAGE", "TAG", "URL"],
            rows=[
                [
                    one.region,
                    one.revision,
                    ImageReference.parse(one.image).short_digest,
                    one.tag,
                    one.url,
                ]
                for one in done
            ],
            notes=[
                *_dry_run(context, done, then),
                *tried.lines,
                *([f"To continue: ./ship deploy {context.where}"] if tried.errors else []),
            ],
        ),
        code=1 if tried.errors else 0,
    )


def _document(one: Deployed) -> dict[str, Any]:
    return {key: value for key, value in msgspec.structs.asdict(one).items() if key != "planned"}


def _dry_run(context: Context, done: list[Deployed], then: Sequence[str]) -> list[str]:
    """Return what to print below the table about a dry run."""
    writes = [
        f"dry run: nothing was written; this would be written to {one.region}:\n"
        + manifest.to_bytes(one.write).decode().rstrip()
        for one in done
        if one.write
    ]
    if then:
        return [*(writes or ["dry run: nothing was written"]), *then]
    return writes or (["dry run: nothing would change"] if context.dry_run else [])
