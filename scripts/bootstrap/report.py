"""Report what bootstrap did or would do."""

from __future__ import annotations

from typing import Any

from scripts.bootstrap.at_github import AtGitHub
from scripts.bootstrap.unread import Unread
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.setup.steps import Step


def result(
    todo: list[Step],
    at_github: AtGitHub,
    notes: list[str],
    *,
    only_reads: bool,
) -> Result:
    """Return the result: the steps that were taken, or would be.

    Args:
        todo: the steps that were taken, or would be.
        at_github: the changes at GitHub.
        notes: what else the user should know.
        only_reads: whether nothing was written.
    """
    changes = at_github.todo
    data: dict[str, Any] = {
        "environment": at_github.env,
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
        "github": [{"does": one.does, "what": one.what, "command": one.command} for one in changes],
        "problems": at_github.problems,
        "variables": {**at_github.shared, **at_github.own},
        "paste": at_github.paste,
    }
    if not todo and not changes and not at_github.notes:
        notes = ["nothing is missing", *notes]
    elif only_reads and (todo or changes):
        notes = ["dry run: nothing was written. Without --dry-run these changes are made.", *notes]
    else:
        notes = [*notes, *_values(todo)]
    notes += at_github.notes
    if at_github.problems:
        notes += ["", "GitHub refused:", *at_github.problems]
    if at_github.paste:
        notes += ["", "Set these GitHub variables (they are not secrets):", *at_github.paste]
    if at_github.shared and not only_reads:
        notes += ["", "docs/security.md lists the GitHub settings to turn on"]
    rows = [[step.does, step.project, step.what] for step in todo]
    rows += [[change.does, "GitHub", change.what] for change in changes]
    table = Table(columns=["DO", "PROJECT", "WHAT"], rows=rows, notes=notes)
    return Result(data=data, table=table, code=1 if at_github.problems else 0)


def _values(done: list[Step]) -> list[str]:
    """Return the commands that give new secrets their first value."""
    made = [step.thing for step in done if step.does == "create" and step.thing]
    return [
        f"give it a value: gcloud secrets versions add {thing.name}"
        f" --project={thing.project} --data-file=-"
        for thing in made
        if thing.kind == "secret"
    ]


def explain(todo: list[Step], at_github: AtGitHub, unread: Unread) -> None:
    """Print the plan as a script, each step under a comment with its purpose."""
    lines = unread.notes()
    for step in todo:
        lines.append(f"# {step.does} {step.what}" + (f": {step.why}" if step.why else ""))
        lines += step.gcloud
    for change in at_github.todo:
        lines += [f"# {change.does} {change.what} at GitHub", change.command]
    if at_github.paste:
        lines += ["# the variables that the workflows read", *at_github.paste]
    print("\n".join(map(unread.named, lines)))
