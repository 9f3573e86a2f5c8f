"""Bring a Google Cloud project to where the workflows can deliver, and nothing more than needed.

With your own credentials it reads what is there, shows what is missing, asks, and writes only that:
APIs, the repository for images, federation with this GitHub repository, service accounts, roles,
secrets without a value, and the service itself (with Google's sample in it, until the first
delivery). What it did not make it leaves alone. Killed or refused halfway, type it again.

--explain prints the same as commands for gcloud, for somebody else to type.
docs/security.md says who may do what afterwards.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from scripts.cloud.google import Google
from scripts.command import options
from scripts.command.terminal import Progress, Result, Table, show
from scripts.config import pipelines as config
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, Refused, ShipError, UsageError, did_you_mean
from scripts.setup import cloud, github, permissions, steps, triggers
from scripts.setup.permissions import Federation, Repository
from scripts.setup.steps import Step


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", required=True, help="environment")
    options.repository(parser)
    parser.add_argument(
        "--trigger",
        choices=["github", "cloud-build"],
        default="github",
        help="what delivers (default: %(default)s, that is GitHub Actions)",
    )
    parser.add_argument(
        "--connection",
        metavar="NAME",
        help="with cloud-build: the connected repository",
    )
    parser.add_argument("--dry-run", action="store_true", help="only read; print the plan")
    parser.add_argument(
        "--explain", action="store_true", help="only read; print the plan as commands for gcloud"
    )
    parser.add_argument(
        "--prune", action="store_true", help="offer to take away what the identities have besides"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before changing")
    parser.add_argument(
        "--format", choices=["table", "json"], default="table", help="of the result"
    )


def run(arguments: argparse.Namespace, root: Path) -> int:
    if (arguments.trigger == "cloud-build") != bool(arguments.connection):
        raise UsageError(
            "--trigger cloud-build and --connection go together",
            "--connection projects/P/locations/R/connections/C/repositories/N: the repository as"
            " Cloud Build's connection names it",
        )
    pipelines = _pipelines(root, arguments.env)
    repository = github.repository(
        root, arguments.repository, arguments.owner_id, arguments.repository_id
    )
    only_reads = arguments.dry_run or arguments.explain
    google = Google(pipelines[0], dry_run=only_reads)
    google.quota_project = pipelines[0].environment.project
    access = _access(google, repository, pipelines)
    if arguments.trigger == "cloud-build":
        access = permissions.for_cloud_build(access, repository)
    more = []
    if arguments.connection:
        more = triggers.wanted(access, arguments.env, arguments.connection)
    found = cloud.look(google, access, pipelines, more)
    todo = steps.plan(access, pipelines, found, more)
    surplus = steps.surplus(access, found)
    if arguments.prune:
        todo += surplus
    notes = [] if arguments.prune else [_unplanned(step) for step in surplus]
    notes += steps.advice(access, pipelines, found)
    if only_reads:
        return _tell(arguments, repository, access, todo, [], notes)
    if todo:
        _ask(arguments, todo)
    done = _take(google, todo, arguments.env)
    return _tell(arguments, repository, access, todo, done, notes)


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


def _ask(arguments: argparse.Namespace, todo: list[Step]) -> None:
    """Show the plan and ask once.

    Raises:
        Refused: the answer is not yes, or nobody is there to give one.
    """
    if arguments.yes:
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


def _take(google: Google, todo: list[Step], env: str) -> list[Step]:
    """Take every step.

    Raises:
        Failed: one was refused; those before it are done, and stay.
    """
    done: list[Step] = []
    progress = Progress()
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
    arguments: argparse.Namespace,
    repository: Repository,
    access: Federation,
    todo: list[Step],
    done: list[Step],
    notes: list[str],
) -> int:
    only_reads = arguments.dry_run or arguments.explain
    paste = _variables(arguments, repository, access, only_reads) if access.by_jobs else []
    notes += [
        f"give it a value: gcloud secrets versions add {step.what.removeprefix('secret ')}"
        f" --project={step.project} --data-file=-"
        for step in done
        if step.what.startswith("secret ")
    ]
    if paste:
        notes += ["", "GitHub's variables, which are no secrets:", *map(shlex.join, paste)]
    if not only_reads and access.by_jobs:
        notes += ["", "what to switch on in GitHub's settings: docs/security.md"]
    data = {
        "environment": arguments.env,
        "dry_run": only_reads,
        "steps": [_as_data(step) for step in todo],
        "variables": {**access.repository_variables, **access.environment_variables}
        if access.by_jobs
        else {},
        "paste": [shlex.join(command) for command in paste],
    }
    rows = [[step.does, step.project, step.what] for step in todo]
    if not todo:
        notes = ["nothing is missing", *notes]
    elif only_reads:
        notes = ["dry run: nothing was written; this would be", *notes]
    if arguments.explain and arguments.format == "table":
        _explain(todo, paste)
        return 0
    table = Table(columns=["DO", "PROJECT", "WHAT"], rows=rows, notes=notes)
    return show(Result(data=data, table=table), arguments.format)


def _explain(todo: list[Step], paste: list[list[str]]) -> None:
    """Print the plan as a script, each step under what it does and why."""
    for step in todo:
        print(f"# {step.does} {step.what}" + (f": {step.why}" if step.why else ""))
        print("\n".join(step.gcloud))
    if paste:
        print("# the variables that the workflows read")
        print("\n".join(map(shlex.join, paste)))


def _variables(
    arguments: argparse.Namespace, repository: Repository, access: Federation, only_reads: bool
) -> list[list[str]]:
    """Set the GitHub variables through gh; what it cannot set is returned, for pasting."""
    shared, own = access.repository_variables, access.environment_variables
    everything = github.commands(repository, arguments.env, shared, own)
    if not github.has_gh():
        return everything
    try:
        missing = github.missing(repository, arguments.env, shared, own)
        if only_reads:
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
