"""Run the smoke checks against a revision at its own tagged URL.

One check always runs: the URL answers with the commit that was built.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.command.call import Call
from scripts.command.options import ServiceOptions, option
from scripts.command.record import Checked
from scripts.command.results import Result, Table
from scripts.errors import Failed, Refused, UsageError
from scripts.release import traffic
from scripts.release.manifest import commit_of
from scripts.release.state import State, has_failed
from scripts.service import checks
from scripts.service.checks import Outcome
from scripts.service.context import Context


class Options(ServiceOptions, frozen=True, kw_only=True):
    revision: Annotated[
        str | None,
        option("--revision", help="the revision to check (default: the candidate)"),
    ] = None


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


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    done = []
    for region in context.regions:
        state = region.state()
        revision = options.revision or candidate(state)
        done.append(smoke(context, region, state, revision))
    return call.show(report(context, done), options.format)


def report(context: Context, done: list[Smoked]) -> Result:
    """The result of the checks, one row each."""
    rows = [
        [
            one.region,
            outcome.name,
            "passed" if outcome.ok else "FAILED",
            f"{outcome.took * 1000:.0f} ms",
            outcome.problem,
        ]
        for one in done
        for outcome in one.outcomes
    ]
    return Result(
        data={
            "service": context.pipeline.service,
            "environment": context.pipeline.env,
            "passed": not any(one.failed for one in done),
            "regions": [msgspec.to_builtins(one) for one in done],
        },
        table=Table(
            columns=["REGION", "CHECK", "RESULT", "TOOK", "PROBLEM"],
            rows=rows,
            notes=[f"{one.revision} at {one.url}" for one in done],
        ),
        code=1 if any(one.failed for one in done) else 0,
    )


def candidate(state: State) -> str:
    """The revision of the release that is under way.

    Raises:
        Refused: there is none.
    """
    if state.candidate is None:
        raise Refused(
            f"no release of {state.name} is under way",
            f"./ship deliver {state.where} starts one; --revision names another revision",
        )
    return state.candidate


def smoke(context: Context, region: CloudRun, state: State, revision: str) -> Smoked:
    """Run the checks against one revision in one region, and tell.

    Raises:
        UsageError: the revision does not exist, or has no tag and so no URL of its own; or the
            service is private, and the credentials cannot have an ID token for it.
        Refused: the revision did not start.
    """
    with context.progress.step("smoke", revision) as step:
        done = check(context, region, state, revision)
        passed = len(done.outcomes) - len(done.failed)
        step.done(f"{passed} of {len(done.outcomes)} checks passed at {done.url}")
    return done


def check(context: Context, region: CloudRun, state: State, revision: str) -> Smoked:
    """Run the checks against one revision in one region; raises as `smoke` does."""
    found = region.revision(revision)
    if found is None:
        raise UsageError(
            f"there is no revision {revision}", f"./ship history {context.where} lists them"
        )
    if has_failed(found):
        raise Refused(f"{revision} did not start: there is nothing to check", "mend it and commit")
    tag = next((t for t, name in traffic.tags(state.targets).items() if name == revision), None)
    if tag is None:
        raise UsageError(
            f"{revision} has no tag, and so no URL of its own to check",
            f"gcloud run services update-traffic {region.name} --set-tags=NAME={revision}",
        )
    url = region.tag_url(tag, revision)
    token = None
    if context.pipeline.environment.access == "private":
        # For the service's own URL, although a tag's is called.
        token = context.google.id_token(str(state.service["status"]["url"]), url)
    outcomes = checks.run(url, context.pipeline.checks, commit_of(found), token)
    context.record.checks[region.region] = [
        Checked(name=one.name, ok=one.ok, took=one.took, problem=one.problem) for one in outcomes
    ]
    return Smoked(region=region.region, revision=revision, url=url, outcomes=outcomes)


def failure(context: Context, done: Smoked) -> Failed:
    """The error for checks that did not pass, with the answers as evidence."""
    answers = [
        line
        for outcome in done.failed
        for line in (f"{outcome.name}: {outcome.problem}", *outcome.evidence)
    ]
    return Failed(
        f"{done.revision} did not pass its smoke checks",
        f"Fix it and commit. To see what is live: ./ship status {context.where}",
        service_says=answers,
    )
