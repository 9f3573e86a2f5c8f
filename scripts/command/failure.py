"""The end of a verb that did not reach its goal: what it may say, and how it is shown.

An error says what went wrong. What was written, and what users get now, is found out here, once
for all verbs: from the record of writes, and by reading the traffic again.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from scripts.command import github, terminal
from scripts.command.record import Live, Record, Shares
from scripts.command.visible import hanging
from scripts.command.words import split
from scripts.errors import Failed, Interrupted, ShipError, Unknown
from scripts.ledger import may_have_written

_RED = "31"
_DIM = "2"


def complete(error: ShipError, record: Record) -> ShipError:
    """Return the error with an exit code that is true, and with what is known of the traffic.

    Exit code 2 or 3 means that nothing was written: with a write that was or may have been done, it
    becomes 1. A failure names the traffic as it is read now; if it cannot be read, or the verb is
    not about traffic, what was written.

    Args:
        error: what went wrong.
        record: what the verb saw and wrote.
    """
    wrote = may_have_written(record.writes)
    if not wrote and (record.look is None or error.exit_code in (2, 3)):
        return error
    now = _look(record)
    parts = [_traffic(record, now)] if now is not None else []
    if now is None or error.exit_code in (2, 3) or _named(record, "unknown"):
        parts += written(record)
    if now is None and wrote and record.look:
        parts.append(
            f"the live traffic could not be read; to find out: ./ship status {record.where}"
        )
    kind = Unknown if isinstance(error, Unknown) else Failed
    told = kind(
        "; ".join([error.message, *parts]),
        error.hint,
        evidence=error.evidence,
        service_says=error.service_says,
    )
    told.more = error.more
    told.__cause__ = error.__cause__ or error
    return told


def interrupted(record: Record) -> Interrupted:
    """Make the error for a command that was ended: what it wrote, without asking anyone."""
    wrote = may_have_written(record.writes)
    if record.look is None and not wrote:
        see = f"; to see what is live: ./ship status {record.where}" if record.where else ""
        return Interrupted(f"interrupted{see}")
    parts = written(record)
    if wrote and record.where:
        parts.append(f"to see what is live: ./ship status {record.where}")
    return Interrupted("; ".join(["interrupted", *parts]))


def _look(record: Record) -> dict[str, Live] | None:
    """Read the traffic; None if it cannot be read, for whatever reason."""
    try:
        return record.look() if record.look else None
    except Exception:
        return None  # the error that is being reported counts


def _traffic(record: Record, found: dict[str, Live]) -> str:
    """Describe the traffic in force beside the traffic that was first read."""
    now = {region: one.served for region, one in found.items()}
    live = _of_regions(now)
    before = {region: record.first.get(region, {}) for region in now}
    if not any(now.values()):
        return "nothing serves any more" if any(before.values()) else "nothing serves yet"
    wanted = {region: one.wanted for region, one in found.items() if one.wanted != one.served}
    if wanted:  # what is in force may change at any moment
        return f"live now: {live}; Cloud Run has not taken yet: {_of_regions(wanted)}"
    if now != before:
        return f"live now: {live}"
    return f"traffic was moved back: {live}" if record.moved else f"traffic is unchanged: {live}"


def _of_regions(shares: dict[str, Shares]) -> str:
    return "; ".join(
        f"{region}: {split(one)}" if len(shares) > 1 else split(one)
        for region, one in shares.items()
    )


def written(record: Record) -> list[str]:
    """Describe what was written, and what may have been."""
    done, unknown = _named(record, "done"), _named(record, "unknown")
    parts = [f"written: {', '.join(done)}"] if done else []
    parts += [f"unknown whether written: {', '.join(unknown)}"] if unknown else []
    return parts or ["nothing was written"]


def _named(record: Record, outcome: str) -> list[str]:
    counts = Counter(write.what for write in record.writes if write.outcome == outcome)
    return [f"{what} ({n} times)" if n > 1 else what for what, n in counts.items()]


def show(error: ShipError, record: Record) -> None:
    """Print an error on standard error: the message, the evidence, and the next command.

    Args:
        error: the error.
        record: what the verb saw before it.
    """
    terminal.write(sys.stderr, ("ship:", _RED), f" {hanging(error.message, 6)}")
    for text in (*error.evidence, *error.service_says):
        for line in text.split("\n"):
            terminal.write(sys.stderr, (f"  | {line}", _DIM))
    if error.hint:
        terminal.write(sys.stderr, f"  -> {hanging(error.hint, 5)}")
    for line in error.more:
        terminal.write(sys.stderr, f"  {hanging(line, 2)}")
    title = f"ship {record.verb} {record.where}".rstrip()
    terminal.annotate(title, f"{error.message}\n{error.hint}" if error.hint else error.message)
    if github.has_run_page():
        from scripts.command import run_page

        github.write_run_page(run_page.of_error(error, record))


def document(error: ShipError, record: Record) -> dict[str, Any]:
    """Return an error as the JSON document that `--format json` prints.

    For a verb that writes, it has what was written, too.
    """
    found: dict[str, Any] = {
        "error": {
            "kind": error.kind,
            "message": error.message,
            "hint": error.hint,
            "evidence": [*error.evidence, *error.service_says],
            "exit_code": error.exit_code,
        }
    }
    if record.look is not None:
        found["written"] = _named(record, "done")
        found["unknown"] = _named(record, "unknown")
    return found
