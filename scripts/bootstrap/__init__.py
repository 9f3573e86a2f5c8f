"""Set up a Google Cloud project so that the workflows can deliver to it.

Uses your own credentials. Reads what exists, shows what is missing, asks, and creates only that:
APIs, the repository for images, federation with this GitHub repository, service accounts, roles,
secrets without a value, and the service itself (running Google's sample until the first
delivery). Changes nothing else. If it is interrupted, run it again.

At GitHub, with gh: the environment, from which only main deploys, with the reviewers of
production; the rules of the branch main (.github/rulesets/main.json); the variables that the
workflows read. Stricter rules that exist already stay.

--explain prints the plan as gcloud commands that someone else can run. Without an account, it
prints all of them, with names in place of the numbers that only Google and GitHub know.
docs/security.md lists the resulting identities and roles.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from scripts.bootstrap import extras, report
from scripts.bootstrap.at_github import AtGitHub, check_reviewers
from scripts.bootstrap.unread import Unread
from scripts.cloud.google import Google
from scripts.cloud.patience import Patience
from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import (
    Connection,
    Format,
    OwnerId,
    RepositoryId,
    Trigger,
    Yes,
    option,
)
from scripts.command.progress import Progress
from scripts.config import pipelines
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, Refused, ShipError, Unknown, UsageError, did_you_mean
from scripts.setup import admission, cloud, permissions, steps, triggers
from scripts.setup.steps import Step
from scripts.setup.wanted import Thing


class Options(options.Options, frozen=True, kw_only=True):
    env: Annotated[str, option("--env", help="the environment to set up")]
    repository: options.Repository = None
    repository_id: RepositoryId = None
    owner_id: OwnerId = None
    trigger: Trigger = "github"
    connection: Connection = None
    binary_authorization: Annotated[
        Literal["enforce", "dry-run"] | None,
        option(
            "--binary-authorization",
            help="also set the project's policy of Binary Authorization: only images of these"
            " registries; dry-run only logs",
        ),
    ] = None
    reviewer: Annotated[
        tuple[str, ...],
        option(
            "--reviewer",
            metavar="NAME",
            help="a GitHub user, or ORGANIZATION/TEAM, who approves deliveries to the environment;"
            " repeat it for more",
        ),
    ] = ()
    dry_run: Annotated[bool, option("--dry-run", help="only read; print the plan")] = False
    explain: Annotated[
        bool, option("--explain", help="only read; print the plan as gcloud commands")
    ] = False
    prune: Annotated[
        bool, option("--prune", help="also remove roles that the plan does not contain")
    ] = False
    yes: Yes = False
    format: Format = "table"

    @property
    def only_reads(self) -> bool:
        """Whether nothing may be written."""
        return self.dry_run or self.explain


def run(options: Options, call: Call) -> int:
    root, env = call.root, options.env
    # The plan is about every service of the environment, so the record names none.
    call.record.env = env
    if (options.trigger == "cloud-build") != bool(options.connection):
        raise UsageError(
            "--trigger cloud-build and --connection need each other",
            "--connection projects/P/locations/R/connections/C/repositories/N: the repository's"
            " name in the connection of Cloud Build",
        )
    check_reviewers(options.reviewer, by_jobs=options.trigger == "github")
    declared = _declared(root, env)
    explains = options.explain and options.format == "table"
    unread = Unread()
    repository = unread.repository(root, options, explains=explains)
    google = Google(
        declared[0],
        dry_run=options.only_reads,
        writes=call.record.writes,
        patience=Patience(say=call.progress.line),
    )
    google.quota_project = declared[0].environment.project
    numbers = unread.numbers(google, _projects(declared), explains=explains)
    access = permissions.plan(repository, declared, pipelines.earlier(declared), numbers)
    more: list[Thing] = []
    if options.connection:
        access = permissions.for_cloud_build(access, repository, declared)
        more = triggers.wanted(access, declared, options.connection)
    if options.binary_authorization:
        more.append(admission.wanted(declared, options.binary_authorization))
    found = unread.found(lambda: cloud.look(google, access, declared, more), explains=explains)
    todo = steps.plan(access, declared, found, more)
    surplus = extras.surplus(access, found)
    notes = extras.advice(access, found, more)
    if options.prune:
        todo += surplus
    else:
        notes = [*extras.unplanned(surplus), *notes]
    there = AtGitHub(repository, declared, access)
    confirms = not options.only_reads and not options.yes
    there.plan(options.reviewer, asks=confirms and sys.stdin.isatty())
    if todo or there.todo:
        if confirms:
            _ask(
                [(step.does, f"{step.project}: {step.what}") for step in todo]
                + [(change.does, f"GitHub: {change.what}") for change in there.todo]
            )
        if not options.only_reads:
            _take(google, todo, env, call.progress)
            there.make(call.progress)
    if explains:
        report.explain(todo, there, unread)
        return 0
    result = report.result(todo, there, notes, only_reads=options.only_reads)
    return call.show(result, options.format)


def _declared(root: Path, env: str) -> list[Pipeline]:
    """Read every service that has the environment.

    Raises:
        UsageError: no service has it, or it is not in Google Cloud.
    """
    found = pipelines.load_all(root, env)
    if not found:
        known = (pipelines.environments(root, name) for name in pipelines.services(root))
        everything = sorted({one for environments in known for one in environments})
        raise UsageError(
            f"no environment '{env}': no service has a pipelines/SERVICE/{env}.yaml",
            did_you_mean(env, everything, "environments here"),
        )
    for pipeline in found:
        credentials = pipeline.environment.credentials
        if credentials != "google":
            raise UsageError(
                f"pipelines/{pipeline.service}/{env}.yaml has credentials: {credentials}, so there"
                " is nothing to set up",
                "name an environment in Google Cloud: --env staging",
            )
    return found


def _projects(declared: list[Pipeline]) -> list[str]:
    return [permissions.home(declared), *(p.environment.project for p in declared)]


def _ask(todo: list[tuple[str, str]]) -> None:
    """Show the plan and ask for confirmation.

    Args:
        todo: for each change, the verb and what it changes.

    Raises:
        Refused: the answer is not yes, or there is no terminal.
    """
    if not sys.stdin.isatty():
        raise Refused(
            f"{len(todo)} changes need a confirmation, and there is no terminal",
            "--dry-run shows them, --yes makes them",
        )
    for does, what in todo:
        print(f"  {does:<8} {what}", file=sys.stderr)
    them = "this change" if len(todo) == 1 else f"these {len(todo)} changes"
    print(f"Make {them}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed: nothing changed", "--yes confirms in advance")


def _take(google: Google, todo: list[Step], env: str, progress: Progress) -> None:
    """Take every step.

    Raises:
        Failed: Google refused a step. The steps before it stay done.
        Unknown: the answer to a step was lost, and nothing shows that it was done.
    """
    for done, step in enumerate(todo):
        try:
            with progress.step(step.does, f"{step.project}: {step.what}"):
                cloud.do(google, step)
        except ShipError as error:
            kind = Unknown if isinstance(error, Unknown) else Failed
            raise kind(
                f"{step.does} {step.what} in {step.project}: {error.message}",
                error.hint or f"fix it and continue: ./ship bootstrap --env {env}",
                evidence=[*error.evidence, f"{done} of {len(todo)} changes were made"],
            ) from None
