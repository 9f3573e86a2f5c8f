"""Act in every region of a service, and report what happened in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.command import run_page
from scripts.command.record import Moved
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.command.words import by_share, split
from scripts.errors import Failed, Refused, ShipError, Unknown, UsageError, bug
from scripts.release.choices import StepsAside
from scripts.release.state import State
from scripts.service.context import Context

T = TypeVar("T")

Stables = Mapping[str, str | None]
"""Region -> the revision that served there before a release; None if none did."""


def without_stable(stables: Stables) -> str:
    """Say in which regions a release cannot be rolled back; "" if it can in all."""
    alone = ", ".join(region for region, stable in stables.items() if stable is None)
    return f"in {alone} there is no other revision to roll back to" if alone else ""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One region's service before and after."""

    region: str
    before: State
    after: State


class Tried(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What happened in every region.

    Attributes:
        done: region → the result, where it was done.
        errors: region → what went wrong there.
        skipped: the regions that were not tried, because an earlier one failed.
    """

    done: dict[str, T]
    errors: dict[str, ShipError] = {}
    skipped: list[str] = []

    @property
    def lines(self) -> list[str]:
        """Lines to print about the regions where it was not done."""
        lines = []
        for region, error in self.errors.items():
            lines.append(f"FAILED in {region}: {error.message}")
            lines += [f"  | {line}" for line in (*error.evidence, *error.service_says)]
            lines += [f"  -> {error.hint}"] if error.hint else []
        return lines + [f"not tried in {region}: nothing changed there" for region in self.skipped]

    def check(self) -> None:
        """Raise an error unless it was done in every region; it names each region."""
        if not self.errors:
            return
        region, first = next(iter(self.errors.items()))
        rest = [
            *(f"{name}: {e.message}" for name, e in self.errors.items() if name != region),
            *(f"done in {name}" for name in self.done),
            *(f"not tried in {name}" for name in self.skipped),
        ]
        raise _joined(
            Refused if isinstance(first, Refused) else _kind([*self.errors.values()]),
            f"{region}: {first.message} ({'; '.join(rest)})",
            [first],
        )


class Acted(Tried[Move], frozen=True, kw_only=True):
    """What a change did in every region."""

    @property
    def moves(self) -> list[Move]:
        """The regions where it was done."""
        return [*self.done.values()]


def in_every_region(
    context: Context,
    act: Callable[[CloudRun], tuple[State, State]],
    *,
    stop_at_failure: bool = False,
) -> Acted:
    """Make the same change in every region, as `try_in_every_region` does.

    Args:
        context: the call.
        act: what to do in one region; returns the service before and after.
        stop_at_failure: as for `try_in_every_region`.
    """

    def move(region: CloudRun) -> Move:
        before, after = act(region)
        return Move(region=region.region, before=before, after=after)

    tried = try_in_every_region(context, move, stop_at_failure=stop_at_failure)
    return Acted(done=tried.done, errors=tried.errors, skipped=tried.skipped)


def try_in_every_region(
    context: Context, act: Callable[[CloudRun], T], *, stop_at_failure: bool = False
) -> Tried[T]:
    """Do the same in every region, in their order.

    Args:
        context: the call.
        act: what to do in one region.
        stop_at_failure: whether a failure in one region leaves the later ones untouched, as a
            change that gives a release more traffic does.

    Raises:
        StepsAside: a newer commit serves or is being released.
        ShipError: it could be done in no region; the message has what went wrong in each.
    """
    done: dict[str, T] = {}
    errors: dict[str, ShipError] = {}
    skipped: list[str] = []
    for region in context.regions:
        if errors and stop_at_failure:
            skipped.append(region.region)
            continue
        try:
            done[region.region] = act(region)
        except ShipError as error:
            errors[region.region] = error
        except StepsAside:
            raise
        except Exception as error:
            # What is wrong with one region, or with Shipway, keeps no other from a rollback.
            errors[region.region] = bug(error)
    if not done:
        raise _nowhere(errors, skipped)
    return Tried(done=done, errors=errors, skipped=skipped)


def read_every_region(context: Context, read: Callable[[CloudRun], T]) -> dict[str, T]:
    """Read something in every region; return region -> what was read.

    Raises:
        ShipError: one region cannot be read; where there are several, the message names it.
    """
    found: dict[str, T] = {}
    for region in context.regions:
        with naming(context, region):
            found[region.region] = read(region)
    return found


@contextmanager
def naming(context: Context, region: CloudRun) -> Iterator[None]:
    """Name the region in the error of what is done in it, where there are several regions."""
    try:
        yield
    except ShipError as error:
        if len(context.regions) > 1 and region.region not in error.message:
            error.message = f"{region.region}: {error.message}"
        raise


def _nowhere(errors: Mapping[str, ShipError], skipped: list[str]) -> ShipError:
    """Return one error for a failure in every region that was tried."""
    if len(errors) + len(skipped) == 1:
        return next(iter(errors.values()))
    parts = [f"{region}: {error.message}" for region, error in errors.items()]
    parts += [f"not tried in {region}" for region in skipped]
    found = [*errors.values()]
    kinds = [kind for kind in (Refused, UsageError) if all(isinstance(e, kind) for e in found)]
    return _joined(kinds[0] if kinds else _kind(found), "; ".join(parts), found)


def _kind(errors: list[ShipError]) -> type[Failed]:
    """Return the kind of a failure: unknown, if one region may have been changed."""
    return Unknown if any(isinstance(error, Unknown) for error in errors) else Failed


def _joined(kind: type[ShipError], message: str, errors: list[ShipError]) -> ShipError:
    """Return one error with the first one's hint and the evidence of all."""
    joined = kind(
        message,
        errors[0].hint,
        evidence=[line for error in errors for line in error.evidence],
        service_says=[line for error in errors for line in error.service_says],
    )
    joined.__cause__ = errors[0].__cause__
    return joined


def serving(states: Mapping[str, State]) -> str:
    """Describe what each region serves in one line; without its name where there is only one."""
    if len(states) == 1:
        return split(next(iter(states.values())).shares)
    return "; ".join(f"{region}: {split(s.shares)}" for region, s in states.items())


def addresses(acted: Acted) -> list[str]:
    """Return a line with the service's own URL for each region."""
    several = len(acted.moves) > 1
    return [
        f"it serves at {move.after.url}{f' ({move.region})' if several else ''}"
        for move in acted.moves
        if move.after.url
    ]


def report(context: Context, acted: Acted, notes: list[str], title: str | None = None) -> Result:
    """Make the result of a traffic change: before and after in each region, and what went wrong.

    Args:
        context: the call.
        acted: what happened.
        notes: lines for below the table.
        title: of the run page, instead of the verb's own.
    """
    first = context.record.first
    moves = context.record.moves = [
        _moved(move, existed=first.get(move.region) != {}) for move in acted.moves
    ]
    rows = [
        [move.region, name, f"{move.before.get(name, 0)} %", f"{move.after.get(name, 0)} %"]
        for move in moves
        for name in by_share(move.after, *move.before)
    ]
    notes = [*notes, *acted.lines]
    if context.dry_run:
        changes = any(move.changed for move in moves)
        would = "nothing was written; this is what would change"
        notes.append(f"dry run: {would if changes else 'nothing would change'}")
    return Result(
        data={
            "service": context.pipeline.service,
            "environment": context.pipeline.env,
            "dry_run": context.dry_run,
            "errors": [f"{region}: {error.message}" for region, error in acted.errors.items()],
            "watch": context.record.watched and context.record.watched.data,
            "regions": [
                {
                    "region": move.region,
                    "before": move.before,
                    "after": move.after,
                    "changed": move.changed,
                    "hold": move.hold,
                    "url": move.url,
                }
                for move in moves
            ],
        },
        table=Table(columns=["REGION", "REVISION", "BEFORE", "AFTER"], rows=rows, notes=notes),
        code=1 if acted.errors else 0,
        page=run_page.of_change(context.record, notes, title),
        outputs={"deployment_url": _deployment_url(moves[0]) if moves else ""},
    )


def _deployment_url(moved: Moved) -> str:
    """Return the URL of a GitHub deployment: of the revision that is released, or that serves.

    Source: https://docs.github.com/en/actions/how-tos/deploy/configure-and-manage-deployments
    (the `url` of a job's `environment` is the deployment status's `environment_url`).
    """
    shares = moved.after
    revision = moved.candidate if shares.get(moved.candidate or "") else None
    revision = revision or max(shares, key=lambda name: shares[name], default="")
    return moved.urls.get(revision) or moved.url or ""


def _moved(move: Move, *, existed: bool) -> Moved:
    return Moved(
        region=move.region,
        before=dict(move.before.shares) if existed else {},
        after=dict(move.after.shares),
        changed=move.before is not move.after,
        candidate=move.after.candidate,
        url=move.after.url or None,
        urls={
            target["revisionName"]: target.get("url") or ""
            for target in move.after.status.get("traffic") or []
            if target.get("tag")
        },
        hold=move.after.hold.name if move.after.hold else None,
    )
