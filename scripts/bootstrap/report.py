"""Report what bootstrap did or would do, and set the GitHub variables."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from scripts.command.results import Result, Table
from scripts.errors import Failed
from scripts.setup import github
from scripts.setup.identity_provider import Repository
from scripts.setup.permissions import Federation
from scripts.setup.steps import Step


class Variables:
    """The GitHub variables of one environment; none if Cloud Build delivers.

    Args:
        repository: at GitHub.
        env: the GitHub Environment.
        access: who may do what.
    """

    def __init__(self, repository: Repository, env: str, access: Federation) -> None:
        self.repository = repository
        self.env = env
        self.shared = access.repository_variables if access.by_jobs else {}
        self.own = access.environment_variables if access.by_jobs else {}

    def set(self, *, only_reads: bool) -> list[list[str]]:
        """Set the missing variables with `gh`.

        Args:
            only_reads: only find out what is missing.

        Returns:
            The commands that are left for the user: all of them if `gh` cannot help.
        """
        everything = github.commands(self.repository, self.env, self.shared, self.own)
        if not everything or not github.has_gh():
            return everything
        try:
            missing = github.missing(self.repository, self.env, self.shared, self.own)
            if only_reads:
                return missing
            for command in missing:
                github.run(command)
        except Failed as error:
            print(f"ship: {error.message}", file=sys.stderr)
            return everything
        return []


def result(
    todo: list[Step],
    variables: Variables,
    paste: list[list[str]],
    notes: list[str],
    *,
    only_reads: bool,
) -> Result:
    """Return the result: the steps that were taken, or would be.

    Args:
        todo: the steps that were taken, or would be.
        variables: the GitHub variables.
        paste: the commands that the user has to run.
        notes: what else the user should know.
        only_reads: whether nothing was written.
    """
    commands = [shlex.join(command) for command in paste]
    data: dict[str, Any] = {
        "environment": variables.env,
        "dry_run": only_reads,
        "steps": [
            {
                "does": step.does,
                "project": step.project,
                "what": step.what,
                "why": step.why,
                "gcloud": list(step.gcloud),
            }
            for step in todo
        ],
        "variables": {**variables.shared, **variables.own},
        "paste": commands,
    }
    if not todo:
        notes = ["nothing is missing", *notes]
    elif only_reads:
        notes = ["dry run: nothing was written. Without --dry-run these changes are made.", *notes]
    else:
        notes = [*notes, *_values(todo)]
    if commands:
        notes += ["", "Set these GitHub variables (they are not secrets):", *commands]
    if variables.shared and not only_reads:
        notes += ["", "docs/security.md lists the GitHub settings to turn on"]
    rows = [[step.does, step.project, step.what] for step in todo]
    table = Table(columns=["DO", "PROJECT", "WHAT"], rows=rows, notes=notes)
    return Result(data=data, table=table)


def _values(done: list[Step]) -> list[str]:
    """Return the commands that give new secrets their first value."""
    made = [step.thing for step in done if step.does == "create" and step.thing]
    return [
        f"give it a value: gcloud secrets versions add {thing.name}"
        f" --project={thing.project} --data-file=-"
        for thing in made
        if thing.kind == "secret"
    ]


def explain(todo: list[Step], paste: list[list[str]]) -> None:
    """Print the plan as a script, each step under a comment with its purpose."""
    for step in todo:
        print(f"# {step.does} {step.what}" + (f": {step.why}" if step.why else ""))
        print("\n".join(step.gcloud))
    if paste:
        print("# the variables that the workflows read")
        print("\n".join(map(shlex.join, paste)))
