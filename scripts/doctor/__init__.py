"""Check everything that a delivery needs.

Checks files, the manifest's values, the Dockerfile and the code, git, Docker, network, clock,
credentials, APIs, registry, image, service, secrets, permissions, accounts, provider and roles; at
GitHub the environment, the rules of main and the variables. Each line is ok, or names a problem and
the command or line that fixes it. A "warning" stops no delivery. "skipped" is not a problem: your
credentials may not read that, or gh is not installed. Files and code need no account.

The doctor only reads. To test whether Cloud Run would accept a write, it sends one that Cloud Run
only validates (dryRun). The exit code is 0 if nothing is wrong, else 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from scripts.command.call import Call
from scripts.command.options import (
    Connection,
    OwnerId,
    Repository,
    RepositoryId,
    ServiceOptions,
    Trigger,
)
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.config import pipelines, relations
from scripts.doctor import access, at_github, cloud, dockerfile, machine, manifest, watched
from scripts.doctor.case import Case, Named
from scripts.doctor.costs import findings as costs
from scripts.doctor.finding import Finding, skipped, wrong
from scripts.errors import ShipError, UsageError
from scripts.service.context import Context
from scripts.setup.permissions import Federation


class Options(ServiceOptions, frozen=True, kw_only=True):
    repository: Repository = None
    repository_id: RepositoryId = None
    owner_id: OwnerId = None
    trigger: Trigger = "github"
    connection: Connection = None


def run(options: Options, call: Call) -> int:
    findings: list[Finding] = []
    with call.progress.step("doctor", "checking") as step:
        for finding in examine(options, call):
            findings.append(finding)
        bad = sum(finding.state == "wrong" for finding in findings)
        step.done(_summary(findings, bad))
    return call.show(report(options.env, findings), options.format)


def _summary(findings: list[Finding], bad: int) -> str:
    found = f"{bad} of {len(findings)} checks found a problem" if bad else "nothing is wrong"
    warnings = sum(finding.state == "warning" for finding in findings)
    return f"{found}; {warnings} warning{'s' * (warnings > 1)}" if warnings else found


def examine(options: Options, call: Call) -> Iterator[Finding]:
    """Run every check even after a failure, so that one report shows them all.

    An API that is not enabled is reported once: the checks behind it are skipped.
    """
    try:
        pipeline = pipelines.load(call.root, options.service, options.env)
        relations.calls_of(pipeline)
    except UsageError as error:
        if not _exists(options, call.root):
            raise
        yield wrong("files", error.message, error.hint or "fix the file and run this again")
        return
    named = Named(options.repository, options.owner_id, options.repository_id)
    case = Case(
        call.root,
        pipeline,
        named,
        by_cloud_build=options.trigger == "cloud-build",
        connection=options.connection,
    )
    failed: set[str] = set()
    for finding in _checks(case, Context(options, call, pipeline, only_reads=True, starts=False)):
        if finding.known == "api-disabled" and finding.check != "apis" and "apis" in failed:
            yield skipped(finding.check, f"cannot be checked: {finding.found}")
            continue
        if finding.state == "wrong":
            failed.add(finding.check)
        yield finding


def _exists(options: Options, root: Path) -> bool:
    """Return whether the service and the environment have files, valid or not."""
    named = [options.service] if options.service else pipelines.services(root)
    return len(named) == 1 and options.env in pipelines.environments(root, named[0])


def _checks(case: Case, context: Context) -> Iterator[Finding]:
    yield from machine.files(case)
    yield from manifest.findings(case)
    yield from watched.affinity(case)
    yield from dockerfile.findings(case)
    yield from machine.docker(case)
    yield from costs(case)
    reached = True
    for finding in (*machine.network(case), *machine.credentials(case)):
        yield finding
        reached = reached and (finding.check == "clock" or finding.state == "ok")
    if not reached:
        if not case.takes_credentials:
            yield from cloud.unread_secrets(case)
        return
    yield from dockerfile.packing(case)
    if not case.takes_credentials:
        yield from cloud.image(case, context)
        yield from cloud.services(case)
        yield from cloud.callees(case, context)
        yield from cloud.secrets(case)
        return
    yield from cloud.projects(case)
    plan, why = _plan(case)
    if plan:
        yield from cloud.apis(case, plan)
    yield from cloud.registry(case)
    yield from cloud.image(case, context)
    yield from access.provenance(case)
    yield from cloud.services(case)
    yield from cloud.callees(case, context)
    yield from cloud.secrets(case)
    yield from watched.receivers(case)
    yield from access.allowed(case, plan)
    if plan:
        yield from access.accounts(case, plan)
    if plan is None or case.unnumbered:
        yield from access.unplanned(case, why)
    else:
        yield from access.provider(case, plan)
        yield from access.roles(case, plan)
        yield from access.bindings(case, plan)
        yield from access.triggers(case, plan)
    yield from at_github.checks(case, plan)


def _plan(case: Case) -> tuple[Federation | None, str]:
    """Return the plan of access; or None, and the reason why it is unknown."""
    try:
        return case.plan(), ""
    except ShipError as error:
        return None, error.message


def report(env: str, findings: list[Finding]) -> Result:
    """Return the result: a line for each finding, and exit code 1 if one is wrong."""
    bad = [finding for finding in findings if finding.state == "wrong"]
    fixes = list(dict.fromkeys(finding.fix for finding in bad))
    return Result(
        data={
            "environment": env,
            "ok": not bad,
            "findings": [msgspec.to_builtins(finding) for finding in findings],
        },
        table=Table(
            columns=["CHECK", "STATE", "FOUND"],
            rows=[
                [one.check, one.state, f"{one.found} -> {one.fix}" if one.fix else one.found]
                for one in findings
            ],
            notes=["", "To fix it, in this order:", *fixes] if fixes else [],
        ),
        code=1 if bad else 0,
    )
