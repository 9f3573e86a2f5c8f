"""Run the smoke checks against a revision at its own tagged URL.

pipelines/SERVICE/smoke.yaml lists them. If it lists none, one runs: the URL answers.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from scripts.command.call import Call
from scripts.command.options import ServiceOptions, option
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.release.choices import require_candidate
from scripts.service.context import Context
from scripts.service.regions import naming
from scripts.service.smoke import Smoked, logs, smoke


class Options(ServiceOptions, frozen=True, kw_only=True):
    revision: Annotated[
        str | None,
        option("--revision", help="the revision to check (default: the candidate)"),
    ] = None


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    done = []
    for region in context.regions:
        with naming(context, region):
            state = region.state([options.revision] if options.revision else [])
            revision = options.revision or require_candidate(state)
            done.append(smoke(context, region, state, revision))
    return call.show(_result(context, done), options.format)


def _below(context: Context, one: Smoked) -> list[str]:
    """Return the lines below the table: what was checked, and why a check failed."""
    checked = f"{one.revision} at {one.url}"
    if not one.failed:
        return [checked]
    return [
        checked,
        *(f"  | {line}" for line in one.evidence),
        f"To see its log: {logs(context, one.revision)}",
    ]


def _result(context: Context, done: list[Smoked]) -> Result:
    """Make the result of the checks, one row for each."""
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
            notes=[line for one in done for line in _below(context, one)],
        ),
        code=1 if any(one.failed for one in done) else 0,
    )
