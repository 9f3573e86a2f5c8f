"""Smoke-check one revision in one region, at its own URL, and prove whose answers those are (I4).

Cloud Run itself says which revision a tag's URL leads to, and which image the revision runs. So no
service has to know its own commit.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.command.record import Checked
from scripts.config.formats import BUILT_IN
from scripts.config.image_reference import ImageReference
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, UsageError
from scripts.release.changes import NotReady
from scripts.release.manifest import Object, built_images, commit_of
from scripts.release.state import State, has_failed
from scripts.release.traffic import tags
from scripts.service import checks
from scripts.service.checks import Outcome, Tell
from scripts.service.context import Context


class Smoked(msgspec.Struct, frozen=True, kw_only=True):
    """A revision's checks in one region.

    Attributes:
        region: where.
        revision: its name.
        tag: the tag whose URL was checked.
        url: that URL.
        outcomes: how each check went.
        log: the container's last log lines, if a check failed.
    """

    region: str
    revision: str
    tag: str
    url: str
    outcomes: list[Outcome]
    log: list[str] = []

    @property
    def failed(self) -> list[Outcome]:
        """The checks that did not pass."""
        return [outcome for outcome in self.outcomes if not outcome.ok]

    @property
    def evidence(self) -> list[str]:
        """What the service answered to the checks that failed, and its log."""
        if not self.failed:
            return []
        answers = [
            line
            for outcome in self.failed
            for line in (f"{outcome.name}: {outcome.problem}", *outcome.evidence)
        ]
        return [*answers, LOG_FOLLOWS, *self.log]


LOG_FOLLOWS = "the container's last log lines:"


def smoke(context: Context, region: CloudRun, state: State, revision: str) -> Smoked:
    """Run the checks as `check` does, and show the progress."""
    with context.progress.step("smoke", revision) as step:
        done = check(context, region, state, revision, step.still)
        passed = len(done.outcomes) - len(done.failed)
        step.done(
            f"{passed} of {len(done.outcomes)} checks passed at {done.url}", ok=not done.failed
        )
    return done


def check(
    context: Context,
    region: CloudRun,
    state: State,
    revision: str,
    tell: Tell = lambda _: None,
) -> Smoked:
    """Run the checks against one revision in one region.

    Args:
        context: the call.
        region: where.
        state: the service, read with this revision.
        revision: its name.
        tell: takes the progress.

    Raises:
        UsageError: the revision does not exist, or has no tag and so no URL of its own; or the
            service is private, and the credentials cannot have an ID token for it.
        NotReady: the revision did not start.
        Failed: the revision runs another image than the one that was deployed.
    """
    found = state.revisions.get(revision)
    if found is None:
        raise UsageError(
            f"there is no revision {revision}", f"./ship history {context.where} lists them"
        )
    if has_failed(found):
        raise NotReady(
            f"{revision} did not start: there is nothing to check",
            f"Fix it and commit. To see its log: {logs(context, revision)}",
        )
    tag = state.tag_of(revision)
    if tag is None:
        raise UsageError(
            f"{revision} has no tag, and so no URL of its own to check",
            f"gcloud run services update-traffic {region.name} --set-tags=NAME={revision}",
        )
    if context.record.images:
        require_images(context.pipeline, found, context.record.images)
    url = state.url_of(revision) or region.tag_url(tag, revision)
    token = None
    if context.pipeline.environment.access == "private":
        # The audience is the service's own URL, although the request goes to a tag's.
        token = context.google.id_token(state.url, url)
    outcomes = checks.run(url, context.pipeline.checks, commit_of(found), token, tell)
    passed = all(outcome.ok for outcome in outcomes)
    log = [] if passed else region.last_log_lines(revision)
    context.record.checks[region.region] = [
        Checked(name=one.name, ok=one.ok, took=one.took, problem=one.problem) for one in outcomes
    ]
    return Smoked(
        region=region.region,
        revision=revision,
        tag=tag,
        url=url,
        outcomes=outcomes,
        log=[checks.without(token, line) for line in log],
    )


def require_images(
    pipeline: Pipeline, revision: Object, images: Mapping[str, ImageReference]
) -> None:
    """Require that a revision runs the commit's images, each in its container, as Cloud Run has it.

    A name says little: someone may have deleted the revision and made another one of that name.
    """
    for word, runs in built_images(pipeline, revision):
        if runs.digest != images[word].digest:
            name = revision["metadata"]["name"]
            raise Failed(
                f"{name} runs {runs}, not {images[word].digest}, which was deployed",
                "someone else has replaced the revision: make a new commit and deliver it",
            )


def refuse_moved(state: State, done: Smoked | None) -> None:
    """Refuse traffic for a revision whose tag was moved since its checks began (I4).

    Another revision may have answered them. A plan calls this: the write that follows is guarded by
    the service as it was read.
    """
    if done and tags(state.targets).get(done.tag) != done.revision:
        raise Failed(
            f"the tag {done.tag} no longer leads to {done.revision}: someone else moved it during"
            " the checks, so another revision may have answered",
            f"./ship status {state.where}",
        )


def logs(context: Context, revision: str) -> str:
    """Return the command that shows a revision's log."""
    return f"./ship logs {context.where} --revision {revision}"


def failure(context: Context, done: Smoked) -> Failed:
    """Make the error for checks that did not pass, with the answers and the log as evidence."""
    where = f" in {done.region}" if len(context.regions) > 1 else ""
    fix = "Fix it and commit."
    if context.pipeline.checks == [BUILT_IN]:
        file = f"pipelines/{context.pipeline.service}/smoke.yaml"
        fix = f"Fix it, or name a path that it answers in {file}; and commit."
    return Failed(
        f"{done.revision} did not pass its smoke checks{where}",
        f"{fix} To see its log: {logs(context, done.revision)}."
        f" To see what is live: ./ship status {context.where}",
        service_says=done.evidence,
    )
