"""Smoke-check one revision in one region, at its own URL."""

from __future__ import annotations

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.command.record import Checked
from scripts.errors import Failed, UsageError
from scripts.release.changes import NotReady
from scripts.release.manifest import commit_of
from scripts.release.state import State, has_failed
from scripts.service import checks
from scripts.service.checks import Outcome
from scripts.service.context import Context


class Smoked(msgspec.Struct, frozen=True, kw_only=True):
    """A revision's checks in one region."""

    region: str
    revision: str
    url: str
    outcomes: list[Outcome]

    @property
    def failed(self) -> list[Outcome]:
        """The checks that did not pass."""
        return [outcome for outcome in self.outcomes if not outcome.ok]


def smoke(context: Context, region: CloudRun, state: State, revision: str) -> Smoked:
    """Run the checks as `check` does, and show the progress."""
    with context.progress.step("smoke", revision) as step:
        done = check(context, region, state, revision)
        passed = len(done.outcomes) - len(done.failed)
        step.done(f"{passed} of {len(done.outcomes)} checks passed at {done.url}")
    return done


def check(context: Context, region: CloudRun, state: State, revision: str) -> Smoked:
    """Run the checks against one revision in one region.

    Args:
        context: the call.
        region: where.
        state: the service, read with this revision.
        revision: its name.

    Raises:
        UsageError: the revision does not exist, or has no tag and so no URL of its own; or the
            service is private, and the credentials cannot have an ID token for it.
        NotReady: the revision did not start.
    """
    found = state.revisions.get(revision)
    if found is None:
        raise UsageError(
            f"there is no revision {revision}", f"./ship history {context.where} lists them"
        )
    if has_failed(found):
        raise NotReady(f"{revision} did not start: there is nothing to check", "fix it and commit")
    tag = state.tag_of(revision)
    if tag is None:
        raise UsageError(
            f"{revision} has no tag, and so no URL of its own to check",
            f"gcloud run services update-traffic {region.name} --set-tags=NAME={revision}",
        )
    url = state.url_of(revision) or region.tag_url(tag, revision)
    token = None
    if context.pipeline.environment.access == "private":
        # The audience is the service's own URL, although the request goes to a tag's.
        token = context.google.id_token(state.url, url)
    outcomes = checks.run(url, context.pipeline.checks, commit_of(found), token)
    context.record.checks[region.region] = [
        Checked(name=one.name, ok=one.ok, took=one.took, problem=one.problem) for one in outcomes
    ]
    return Smoked(region=region.region, revision=revision, url=url, outcomes=outcomes)


def failure(context: Context, done: Smoked) -> Failed:
    """Make the error for checks that did not pass, with the answers as evidence."""
    answers = [
        line
        for outcome in done.failed
        for line in (f"{outcome.name}: {outcome.problem}", *outcome.evidence)
    ]
    where = f" in {done.region}" if len(context.regions) > 1 else ""
    return Failed(
        f"{done.revision} did not pass its smoke checks{where}",
        f"Fix it and commit. To see what is live: ./ship status {context.where}",
        service_says=answers,
    )
