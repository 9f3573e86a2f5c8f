"""The result of a verb over several services: one table, one document, one run page."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from scripts.command import terminal
from scripts.command.call import Call
from scripts.command.github import has_run_page, run_url
from scripts.command.markdown import link, page, plain, table
from scripts.command.options import WritingOptions
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.command.words import split
from scripts.errors import Refused
from scripts.several.child import NOT_TRIED, Ended

# The outputs that are lists, and what stands between two entries.
_LISTS = {"services": ",", "delivered": ",", "digests": ",", "built": ",", "subjects": "\n"}
_WORST_FIRST = (1, 2, 3, 130)


def result(
    call: Call, options: WritingOptions, ended: Mapping[str, Ended], *, interrupted: bool
) -> Result:
    """Make the result.

    Args:
        call: the call.
        options: the command line, parsed.
        ended: service -> how it ended, in their order.
        interrupted: whether a signal ended the verb.
    """
    rows = [
        [name, one.word, f"{one.seconds:.1f} s" if one.seconds else "-", _what(one)]
        for name, one in ended.items()
    ]
    notes = [
        f"{name}: {hint}"
        for name, one in ended.items()
        if one.code and (hint := (one.document.get("error") or {}).get("hint"))
    ]
    good = sum(not one.code and not one.idle for one in ended.values())
    title = f"{call.record.verb} in {options.env}: {good} of {len(ended)} services done"
    if options.dry_run:
        notes.append("dry run: nothing was written; --format json shows what would change")
    return Result(
        data={
            "services": {name: one.document for name, one in ended.items()},
            "errors": [f"{name}: {_what(one)}" for name, one in ended.items() if one.code],
        },
        table=Table(
            columns=["SERVICE", "RESULT", "TOOK", "WHAT"], rows=rows, notes=[*notes, title]
        ),
        code=exit_code(_codes(ended), interrupted=interrupted),
        page=_page(title, rows, ended) if has_run_page() else "",
        outputs=_outputs(ended),
    )


def _outputs(ended: Mapping[str, Ended]) -> dict[str, str]:
    """Return the outputs for a job: lists of all services, and the URL of its deployment.

    GitHub shows one URL for a deployment. The page of the run has those of several services.
    """
    found = {
        key: between.join(value for one in ended.values() if (value := one.outputs.get(key)))
        for key, between in _LISTS.items()
        if any(key in one.outputs for one in ended.values())
    }
    urls = [url for one in ended.values() if (url := one.outputs.get("deployment_url"))]
    if urls:
        found["deployment_url"] = urls[0] if len(urls) == 1 else run_url()
    return found


def exit_code(codes: list[int], *, interrupted: bool = False) -> int:
    """Return the exit code for several: the worst, 1 before 2, 3 and 130.

    2 and 3 promise that nothing was changed: with a service that was done, they become 1.
    """
    worst = next((code for code in _WORST_FIRST if code in codes), 130 if interrupted else 0)
    return 1 if worst in (2, 3) and 0 in codes else worst


def _codes(ended: Mapping[str, Ended]) -> list[int]:
    """Return the exit codes that count; 3, as with one service, if none has anything to do."""
    return [one.code for one in ended.values() if not one.idle] or [Refused.exit_code]


def failure(call: Call, ended: Mapping[str, Ended]) -> str:
    """Describe in one line how the services ended that were not done."""
    groups: dict[str, list[str]] = {}
    failed = any(one.code for one in ended.values())
    for name, one in ended.items():
        if one.code or not failed:
            groups.setdefault(one.word, []).append(name)
    parts = [f"{word}: {', '.join(names)}" for word, names in groups.items()]
    return f"{call.record.verb}: {'; '.join(parts)}"


def last_line(text: str) -> None:
    """Print the last line of a verb that failed for some services."""
    terminal.write(sys.stderr, ("ship:", "31"), f" {text}")


def _what(one: Ended) -> str:
    """Describe in one line what was done for a service, or what went wrong."""
    document = one.document
    if error := document.get("error"):
        return str(error["message"]).removeprefix(f"{NOT_TRIED}: ")
    if errors := document.get("errors"):
        return "; ".join(errors)
    if regions := [region for region in document.get("regions", ()) if "after" in region]:
        return "; ".join(_moved(region, len(regions)) for region in regions)
    return str(document.get("digest") or document.get("revision") or document.get("image") or "")


def _moved(region: Mapping[str, Any], regions: int) -> str:
    before, after = split(region["before"]), split(region["after"])
    where = f"{region['region']}: " if regions > 1 else ""
    hold = f", on hold: {region['hold']}" if region.get("hold") else ""
    change = after if before == after or not region["before"] else f"{before} -> {after}"
    return f"{where}{change}{hold}"


def _page(title: str, rows: list[list[str]], ended: Mapping[str, Ended]) -> str:
    """Return the run page: a row for each service, and below it the pages of those that failed."""
    columns = ["Service", "Result", "Took", "What"]
    cells = [
        [link(name, ended[name].outputs.get("deployment_url", "")), *map(plain, row)]
        for name, *row in rows
    ]
    return page(
        [
            f"### {plain(title)}",
            table(columns, cells),
            *(one.page for one in ended.values() if one.code),
        ]
    )
