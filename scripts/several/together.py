"""Run a verb that only reads on several services, in threads of this process."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import msgspec

from scripts.cloud.explain import point
from scripts.command import failure
from scripts.command.call import Call
from scripts.command.options import ServiceOptions
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.config import pipelines
from scripts.errors import ShipError, UsageError
from scripts.service import on_demand
from scripts.several import reads, summary

_AT_ONCE = 8
_DIFFERS = 4


class _Quiet(Call):
    """A call that keeps its result instead of printing it."""

    result: Result

    def show(self, result: Result, format_: str) -> int:
        del format_  # that of the whole result counts
        self.result = result
        return result.code


def read(verb: ModuleType, options: ServiceOptions, call: Call, names: list[str]) -> int:
    """Run a verb on several services at the same time; print one result, return the exit code.

    Args:
        verb: its module.
        options: the command line, parsed; the names in it are not used.
        call: the call.
        names: the services.
    """
    if verb.__name__ != "scripts.doctor":  # which says itself that it is not up
        _bring_up(options, call, names)
    wide = max(map(len, names))
    calls = {name: _Quiet(call.record.verb, call.root, f"{name:<{wide}} | ") for name in names}
    found = reads.in_threads([_asking(verb, options, own, name) for name, own in calls.items()],
                             _AT_ONCE)  # fmt: skip
    errors = [one for one in found if isinstance(one, ShipError)]
    if len(errors) == len(names) and len({error.message for error in errors}) == 1:
        raise errors[0]
    result = _result(dict(zip(names, found, strict=True)), calls)
    code = call.show(result, options.format)
    if errors:
        failed = [name for name, one in zip(names, found, strict=True) if one in errors]
        summary.last_line(f"{call.record.verb} failed for {', '.join(failed)}")
    return code


def _bring_up(options: ServiceOptions, call: Call, names: list[str]) -> None:
    for name in names:
        try:
            pipeline = pipelines.load(call.root, name, options.env)
        except UsageError:
            continue  # reported with the others
        if pipeline.uses_up:
            on_demand.bring_up(pipeline, yes=False)
            return


def _asking(
    verb: ModuleType, options: ServiceOptions, call: _Quiet, name: str
) -> Callable[[], Result]:
    one = msgspec.structs.replace(options, services=(name,), every=False)

    def ask() -> Result:
        try:
            verb.run(one, call)
        except ShipError as error:
            point(error, call.root, name, options.env)
            raise
        return call.result

    return ask


def _result(found: dict[str, Result | ShipError], calls: dict[str, _Quiet]) -> Result:
    tables = {name: one.table for name, one in found.items() if isinstance(one, Result)}
    first = next(iter(tables.values()), Table(columns=[], rows=[]))
    rows = [[name, *row] for name, table in tables.items() for row in table.rows]
    if first.columns[:1] == ["TIME"]:  # log entries: oldest first, whichever service's
        rows.sort(key=lambda row: row[1])
    notes = []
    for name, one in found.items():
        if isinstance(one, Result):
            notes += [f"{name}: {note}" for note in one.table.notes if note]
        else:
            notes.append(f"{name}: FAILED: {one.message}")
            notes += [f"  | {line}" for line in (*one.evidence, *one.service_says)]
            notes += [f"  -> {one.hint}"] if one.hint else []
    codes = [one.code if isinstance(one, Result) else one.exit_code for one in found.values()]
    return Result(
        data={
            "services": {
                name: one.data
                if isinstance(one, Result)
                else failure.document(one, calls[name].record)
                for name, one in found.items()
            },
            "errors": [
                f"{name}: {e.message}" for name, e in found.items() if isinstance(e, ShipError)
            ],
        },
        table=Table(
            columns=["SERVICE", *first.columns] if tables else [],
            rows=rows,
            notes=notes,
            give_way=first.give_way,
        ),
        code=summary.exit_code([code for code in codes if code != _DIFFERS])
        or (_DIFFERS if _DIFFERS in codes else 0),
    )
