"""What a workflow's run page tells a release manager: Markdown for $GITHUB_STEP_SUMMARY.

Subjects, reasons, answers and logs are other people's text. Whatever they hold, they are shown as
text: they make no table, link, mention or HTML.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from scripts.errors import Refused, ShipError
from scripts.machine import git

if TYPE_CHECKING:
    from scripts.service.context import Context, Move

_TITLES = {
    "deliver": "Delivered {what} to {env}",
    "promote": "Promoted {what} in {env}",
    "rollout": "Rolled {what} out in {env}",
    "rollback": "Rolled {service} back in {env}",
    "hold": "Put {service} on hold in {env}",
    "resume": "Released the hold of {service} in {env}",
}
_LONGEST_EVIDENCE = 200


def wanted() -> bool:
    """Whether there is a run page to write to."""
    return bool(os.environ.get("GITHUB_STEP_SUMMARY"))


def plain(text: str) -> str:
    """Anybody's text as one line of Markdown that shows it and nothing else.

    A character reference is text wherever it stands. GitHub looks for mentions and addresses in
    what is rendered, so an @ is parted from what follows, invisibly.
    Source: https://github.github.com/gfm/#entity-and-numeric-character-references
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    shown = "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in line)
    return shown.replace("&#64;", "&#64;&#8288;")


def code(text: str) -> str:
    """Anybody's text in one line, as code."""
    return f"<code>{plain(text)}</code>"


def link(text: str, url: str) -> str:
    """A link; only its text where the address is none of the web's."""
    if not re.match(r"https?://", url):
        return plain(text)
    return f"[{plain(text)}]({quote(url, safe=':/?=&%#-._~')})"


def block(lines: Sequence[str]) -> str:
    """Anybody's lines as they are, in a fence that none of them can close."""
    shown = [
        "".join(c if c.isprintable() else " " for c in part)
        for line in lines
        for part in (line.splitlines() or [""])
    ][:_LONGEST_EVIDENCE]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *shown, fence])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def of_table(columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """The page of a verb that has none of its own: its table and its notes."""
    parts = [table(columns, [[plain(cell) for cell in row] for row in rows])]
    return _page([*parts, block(notes) if notes else ""])


def of_moves(
    context: Context, moves: Sequence[Move], said: Sequence[str], title: str | None = None
) -> str:
    """The page of a change: what, where, from which revision to which, and how to go back.

    Args:
        context: the call, with what it saw on its way.
        moves: what happened to the traffic.
        said: what the verb tells besides.
        title: instead of the verb's own.
    """
    if not wanted():
        return ""
    revision = next((m.after.candidate for m in moves if m.after.candidate), None)
    where = context.pipeline
    aside = title is not None
    above = [f"{context.commit.short} {context.commit.subject}"] if context.commit else []
    if title is None:
        what = context.commit.short if context.commit else revision or where.service
        form = _TITLES.get(context.verb, f"{context.verb}: {{service}} in {{env}}")
        title = form.format(what=what, service=where.service, env=where.env)
    parts = [
        f"### {'Dry run: ' if context.dry_run else ''}{plain(title)}",
        # Of a commit that steps aside: the candidate is the other one's.
        _facts(context, None if aside else revision),
        _traffic(context, moves),
        _steps(context),
        _checks(context),
        *(plain(line) for line in said if line not in above),
        "" if aside else _way_back(context),
    ]
    return _page(parts)


def of_error(error: ShipError) -> str:
    """The page of a failure: what failed, the evidence, what serves now, what to do next."""
    context: Context | None = error.about
    kind = "Refused" if isinstance(error, Refused) else "Failed"
    if context is None:
        return _page([f"### {kind}", plain(error.message), _evidence(error), _next(error)])
    pipeline = context.pipeline
    what = f" {context.commit.short}" if context.commit else ""
    parts = [
        f"### {kind}: {plain(f'{context.verb}{what} in {pipeline.env}')}",
        plain(error.message),
        _evidence(error),
        _next(error),
        _serving(context),
        _facts(context, None),
        _steps(context),
        _checks(context),
    ]
    return _page(parts)


def _page(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n\n"


def _evidence(error: ShipError) -> str:
    return block(error.evidence) if error.evidence else ""


def _next(error: ShipError) -> str:
    said = [f"**Next:** {code(error.hint)}"] if error.hint else []
    return "\n\n".join([*said, *(plain(line) for line in error.more)])


def _facts(context: Context, revision: str | None) -> str:
    pipeline, commit = context.pipeline, context.commit
    environment = pipeline.environment
    rows = []
    if commit:
        url = _commit_url(context, commit.sha)
        rows.append(["Commit", f"{link(commit.short, url)} {code(commit.subject)}"])
    rows += [
        ["Service", plain(pipeline.service)],
        ["Environment", plain(pipeline.env)],
        ["Project", plain(environment.project)],
        ["Region", plain(", ".join(environment.regions))],
    ]
    if revision:
        rows.append(["Revision", plain(revision)])
    if context.image:
        rows.append(["Image", code(context.image.rpartition("@")[2])])
    reason = getattr(context.arguments, "reason", None)
    rows += [["Reason", code(reason)]] if reason else []
    rows += [
        ["By", code(git.actor())],
        ["Took", f"{time.monotonic() - context.started:.1f} s"],
    ]
    return table(["", ""], [[f"**{name}**", value] for name, value in rows])


def _traffic(context: Context, moves: Sequence[Move]) -> str:
    rows = []
    for move in moves:
        before, after = move.before.shares, move.after.shares
        own = {t["revisionName"]: t.get("url") for t in _status(move) if t.get("tag")}
        for name in sorted({*before, *after}, key=lambda n: (-after.get(n, 0), n)):
            seen = [
                link("its own URL", own.get(name) or ""),
                link("in Google Cloud", console_url(context, move.region)),
            ]
            rows.append(
                [
                    plain(move.region),
                    plain(name),
                    f"{before.get(name, 0)} %",
                    f"{after.get(name, 0)} %",
                    ", ".join(one for one in seen if one.startswith("[")),
                ]
            )
    if not rows:
        return ""
    return table(["Region", "Revision", "Traffic before", "Traffic after", "Look at it"], rows)


def _status(move: Move) -> list[dict[str, str]]:
    found: list[dict[str, str]] = (move.after.service.get("status") or {}).get("traffic") or []
    return found


def _serving(context: Context) -> str:
    """What serves in each region, as it was last read."""
    rows = [
        [plain(region.region), plain(name), f"{percent} %"]
        for region in context.regions
        if region.seen
        for name, percent in region.seen.shares.items()
    ]
    return f"**Serves now**\n\n{table(['Region', 'Revision', 'Traffic'], rows)}" if rows else ""


def _steps(context: Context) -> str:
    rows = [
        [
            f"{step.percent} %",
            f"{step.bake:g} s" if step.ended else "stopped while it was watched",
            plain(step.shares),
        ]
        for step in context.steps
    ]
    return table(["Rollout step", "Watched for", "Served"], rows) if rows else ""


def _checks(context: Context) -> str:
    rows = [
        [
            plain(region),
            plain(outcome.name),
            "passed" if outcome.ok else f"**failed** {plain(outcome.problem)}",
            f"{outcome.took * 1000:.0f} ms",
        ]
        for region, outcomes in context.checked.items()
        for outcome in outcomes
    ]
    return table(["Region", "Smoke check", "Result", "Took"], rows) if rows else ""


def _way_back(context: Context) -> str:
    """The exact command to roll back; none where nothing was given traffic."""
    if context.dry_run or context.verb not in ("deliver", "promote", "rollout"):
        return ""
    command = f"./ship rollback {context.pipeline.service} --env {context.pipeline.env}"
    repository = _repository()
    button = ""
    if repository:
        workflow = f"{repository}/actions/workflows/rollback.yml"
        button = f", or {link('Run workflow', workflow)}"
    return f"**To roll back:** {code(command)}{button}"


def console_url(context: Context, region: str) -> str:
    """The service's revisions in Google's console; "" where another address stands for Google's."""
    pipeline = context.pipeline
    if pipeline.endpoint:
        return ""
    return (
        f"https://console.cloud.google.com/run/detail/{region}/{pipeline.service}/revisions"
        f"?project={pipeline.environment.project}"
    )


def _repository() -> str:
    """The repository's web address, as the workflow run knows it; "" outside of one."""
    server = os.environ.get("GITHUB_SERVER_URL") or "https://github.com"
    name = os.environ.get("GITHUB_REPOSITORY", "")
    return f"{server.rstrip('/')}/{name}" if name else ""


def _commit_url(context: Context, sha: str) -> str:
    repository = _repository()
    if not repository:
        origin = git.origin(context.root)
        repository = origin if origin.startswith("https://github.com/") else ""
    return f"{repository}/commit/{sha}" if repository else ""


def annotation(title: str, message: str) -> str:
    """A workflow command that shows an error on the run's page.

    Source: https://docs.github.com/actions/reference/workflow-commands-for-github-actions; how to
    escape is in actions/toolkit, packages/core/src/command.ts.
    """
    data = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::error title={name.replace(':', '%3A').replace(',', '%2C')}::{data}"


def inert(text: str) -> str:
    """Anybody's text for a workflow's log, in which the runner finds no command of its own.

    Source: actions/runner, src/Runner.Common/ActionCommand.cs: `::` at a line's start and `##[`
    anywhere in it begin one.
    """
    return re.sub(r"(?m)(^|\r)(\s*):(?=:)", r"\1\2: ", text).replace("##[", "## [")
