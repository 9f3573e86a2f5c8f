"""Bring a Google Cloud project to where the workflows can deliver, and nothing more than needed.

With your own credentials it reads what is there, shows what is missing, asks, and writes only that:
APIs, the repository for images, federation with this GitHub repository, service accounts, roles,
secrets without a value, and the service itself (with Google's sample in it, until the first
delivery). What it did not make it leaves alone. Killed or refused halfway, type it again.

--explain prints the same as commands for gcloud, for somebody else to type.
docs/security.md says who may do what afterwards.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from scripts.cloud.google import Google
from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import Format, OwnerId, RepositoryId, Trigger, Yes, option
from scripts.command.progress import Progress
from scripts.command.results import Result, Table
from scripts.config import pipelines as config
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, Refused, ShipError, UsageError, did_you_mean
from scripts.setup import cloud, github, permissions, steps, triggers
from scripts.setup.permissions import Federation, Repository
from scripts.setup.steps import Step


class Options(options.Options, frozen=True, kw_only=True):
    env: Annotated[str, option("--env", help="the environment to set up")]
    repository: options.Repository = None
    repository_id: RepositoryId = None
    owner_id: OwnerId = None
    trigger: Trigger = "github"
    connection: Annotated[
        str | None,
        option(
            "--connection",
            metavar="NAME",
            help="with --trigger cloud-build: the connected repository",
        ),
    ] = None
    dry_run: Annotated[bool, option("--dry-run", help="only read; print the plan")] = False
    explain: Annotated[
        bool, option("--explain", help="only read; print the plan as gcloud commands")
    ] = False
    prune: Annotated[
        bool, option("--prune", help="also offer to remove roles that the plan does not contain")
    ] = False
    yes: Yes = False
    format: Format = "table"

    @property
    def only_reads(self) -> bool:
        """Whether nothing may be written."""
        return self.dry_run or self.explain


def run(options: Options, call: Call) -> int:
    root = call.root
    # No service: the plan is about every service of the environment.
    call.record.env = options.env
    if (options.trigger == "cloud-build") != bool(options.connection):
        raise UsageError(
            "--trigger cloud-build and --connection go together",
            "--connection projects/P/locations/R/connections/C/repositories/N: the repository as"
            " Cloud Build's connection names it",
        )
    pipelines = _pipelines(root, options.env)
    repository = github.repository(
        root, options.repository, options.owner_id, options.repository_id
    )
    google = Google(pipelines[0], dry_run=options.only_reads)
    google.quota_project = pipelines[0].environment.project
    access = _access(google, repository, pipelines)
    if options.trigger == "cloud-build":
        access = permissions.for_cloud_build(access, repository)
    more = []
    if options.connection:
        more = triggers.wanted(access, options.env, options.connection)
    found = cloud.look(google, access, pipelines, more)
    todo = steps.plan(access, pipelines, found, more)
    surplus = steps.surplus(access, found)
    if options.prune:
        todo += surplus
    notes = [] if options.prune else [_unplanned(step) for step in surplus]
    notes += steps.advice(access, pipelines, found)
    if options.only_reads:
        return _tell(options, call, repository, access, todo, [], notes)
    if todo:
        _ask(options, todo)
    done = _take(google, todo, options.env, call.progress)
    return _tell(options, call, repository, access, todo, done, notes)


def _pipelines(root: Path, env: str) -> list[Pipeline]:
    """Every service that has the environment.

    Raises:
        UsageError: none has, or it needs no Google Cloud.
    """
    having = config.having(root, env)
    if not having:
        known = (config.environments(root, name) for name in config.services(root))
        everything = sorted({one for environments in known for one in environments})
        raise UsageError(
            f"no environment '{env}': no service has a pipelines/SERVICE/{env}.yaml",
            did_you_mean(env, everything, "environments here"),
        )
    found = [config.load(root, name, env) for name in having]
    for pipeline in found:
        if pipeline.environment.credentials == "none":
            raise UsageError(
                f"pipelines/{pipeline.service}/{env}.yaml says credentials: none:"
                " there is nothing to set up",
                "name an environment in Google Cloud: --env staging",
            )
    return found


def _access(google: Google, repository: Repository, pipelines: list[Pipeline]) -> Federation:
    home = permissions.home(pipelines)
    numbers = cloud.numbers(google, [home, *(p.environment.project for p in pipelines)])
    return permissions.plan(repository, pipelines, config.earlier(pipelines), numbers)


def _ask(options: Options, todo: list[Step]) -> None:
    """Show the plan and ask once.

    Raises:
        Refused: the answer is not yes, or nobody is there to give one.
    """
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise Refused(
            f"{len(todo)} changes are to be made, and nobody is there to be asked",
            "--dry-run shows them, --yes makes them",
        )
    for step in todo:
        print(f"  {step.does:<8} {step.project}: {step.what}", file=sys.stderr)
    print(f"Make these {len(todo)} changes? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed: nothing was changed", "--yes answers beforehand")


def _take(google: Google, todo: list[Step], env: str, progress: Progress) -> list[Step]:
    """Take every step.

    Raises:
        Failed: one was refused; those before it are done, and stay.
    """
    done: list[Step] = []
    for step in todo:
        try:
            with progress.step(step.does, f"{step.project}: {step.what}"):
                cloud.do(google, step)
        except ShipError as error:
            raise Failed(
                f"{step.does} {step.what} in {step.project}: {error.message}",
                error.hint or f"mend it and go on: ./ship bootstrap --env {env}",
                evidence=[*error.evidence, f"{len(done)} of {len(todo)} changes are made"],
            ) from None
        done.append(step)
    return done


def _tell(
    options: Options,
    call: Call,
    repository: Repository,
    access: Federation,
    todo: list[Step],
    done: list[Step],
    notes: list[str],
) -> int:
    paste = _variables(options, repository, access) if access.by_jobs else []
    notes += [
        f"give it a value: gcloud secrets versions add {step.what.removeprefix('secret ')}"
        f" --project={step.project} --data-file=-"
        for step in done
        if step.what.startswith("secret ")
    ]
    if paste:
        notes += ["", "GitHub's variables, which are no secrets:", *map(shlex.join, paste)]
    if not options.only_reads and access.by_jobs:
        notes += ["", "what to switch on in GitHub's settings: docs/security.md"]
    data = {
        "environment": options.env,
        "dry_run": options.only_reads,
        "steps": [_as_data(step) for step in todo],
        "variables": {**access.repository_variables, **access.environment_variables}
        if access.by_jobs
        else {},
        "paste": [shlex.join(command) for command in paste],
    }
    rows = [[step.does, step.project, step.what] for step in todo]
    if not todo:
        notes = ["nothing is missing", *notes]
    elif options.only_reads:
        notes = ["dry run: nothing was written; this would be", *notes]
    if options.explain and options.format == "table":
        _explain(todo, paste)
        return 0
    table = Table(columns=["DO", "PROJECT", "WHAT"], rows=rows, notes=notes)
    return call.show(Result(data=data, table=table), options.format)


def _explain(todo: list[Step], paste: list[list[str]]) -> None:
    """Print the plan as a script, each step under what it does and why."""
    for step in todo:
        print(f"# {step.does} {step.what}" + (f": {step.why}" if step.why else ""))
        print("\n".join(step.gcloud))
    if paste:
        print("# the variables that the workflows read")
        print("\n".join(map(shlex.join, paste)))


def _variables(options: Options, repository: Repository, access: Federation) -> list[list[str]]:
    """Set the GitHub variables through gh; what it cannot set is returned, for pasting."""
    shared, own = access.repository_variables, access.environment_variables
    everything = github.commands(repository, options.env, shared, own)
    if not github.has_gh():
        return everything
    try:
        missing = github.missing(repository, options.env, shared, own)
        if options.only_reads:
            return missing
        for command in missing:
            github.run(command)
    except Failed as error:
        print(f"ship: {error.message}", file=sys.stderr)
        return everything
    return []


def _unplanned(step: Step) -> str:
    return f"not planned here: {step.what.replace(' from ', ', held by ')}; --prune takes it away"


def _as_data(step: Step) -> dict[str, Any]:
    return {
        "does": step.does,
        "project": step.project,
        "what": step.what,
        "why": step.why,
        "gcloud": list(step.gcloud),
    }
