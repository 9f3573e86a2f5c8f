"""List a service's revisions, newest first, with the last change of each.

--changes lists the changes instead: what, when, why and by whom.
"""

from __future__ import annotations

from typing import Annotated, Any

from scripts.command import values
from scripts.command.call import Call
from scripts.command.options import ServiceOptions, option
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.command.words import ago
from scripts.config.image_reference import ImageReference
from scripts.release.manifest import commit_of, image_of
from scripts.release.memory import Event, to_builtins
from scripts.release.state import describe, previous
from scripts.service.context import Context
from scripts.service.regions import read_every_region


class Options(ServiceOptions, frozen=True, kw_only=True):
    changes: Annotated[bool, option("--changes", help="list the changes instead, newest first")] = (
        False
    )
    limit: Annotated[
        int,
        option(
            "--limit",
            parse=values.count,
            metavar="N",
            help="rows for each region (default: %(default)s)",
        ),
    ] = 20


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    listed = changes if options.changes else revisions
    return call.show(listed(context, options.limit), options.format)


def revisions(context: Context, limit: int) -> Result:
    """List every revision, newest first."""
    data: list[dict[str, Any]] = []
    read = read_every_region(context, lambda region: region.state(every_revision=True))
    for region, state in read.items():
        back = previous(state)
        for name, revision in [*state.revisions.items()][:limit]:
            last = next((e for e in reversed(state.log) if e.revision == name), None)
            data.append(
                {
                    "region": region,
                    "revision": name,
                    "commit": commit_of(revision),
                    "image": str(image_of(revision)),
                    "created": revision["metadata"]["creationTimestamp"],
                    "percent": state.shares.get(name, 0),
                    "state": describe(state, name, revision, back),
                    "last": to_builtins(last),
                }
            )
    return Result(
        data={**_what(context), "revisions": data},
        table=Table(
            columns=["REGION", "REVISION", "COMMIT", "IMAGE", "MADE", "TRAFFIC", "STATE", "LAST"],
            rows=[
                [
                    one["region"],
                    one["revision"],
                    one["commit"][:7] or "?",
                    ImageReference.parse(one["image"]).short_digest,
                    ago(one["created"]),
                    f"{one['percent']} %",
                    one["state"],
                    _last(one["last"]),
                ]
                for one in data
            ],
            give_way=["IMAGE", "REGION", "MADE"],
        ),
    )


def _last(event: dict[str, Any] | None) -> str:
    if event is None:
        return ""
    share = f" {event['percent']} %" if event.get("percent") is not None else ""
    return f"{event['verb']}{share} by {event['by']}, {ago(event['at'])}"


def changes(context: Context, limit: int) -> Result:
    """List the changes that are stored on the service, newest first."""
    found: list[tuple[str, Event]] = []
    for region, state in read_every_region(context, lambda region: region.state()).items():
        found += [(region, event) for event in reversed(state.log)][:limit]
    return Result(
        data={
            **_what(context),
            "changes": [{"region": region, **to_builtins(e)} for region, e in found],
        },
        table=Table(
            columns=["REGION", "WHEN", "WHAT", "REVISION", "TRAFFIC", "BY", "WHY"],
            rows=[
                [
                    region,
                    event.at,
                    event.verb,
                    event.revision,
                    "" if event.percent is None else f"{event.percent} %",
                    event.by,
                    event.why,
                ]
                for region, event in found
            ],
            give_way=["REGION"],
        ),
    )


def _what(context: Context) -> dict[str, str]:
    return {"service": context.pipeline.service, "environment": context.pipeline.env}
