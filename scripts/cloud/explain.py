"""Says of a verb's failure what it means, where that is known, and points to the doctor."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.cloud import known_errors
from scripts.cloud.google import ApiError, Conflict, Google, NotFound
from scripts.config import pipelines
from scripts.errors import ShipError

# Errors that are about somebody: who that is has to be asked.
_ABOUT_SOMEBODY = ("permission-denied", "token-exchange")


def point(error: ShipError, arguments: argparse.Namespace, root: Path) -> None:
    """Add to an error what it means and what mends it, and the command that finds out more.

    An error that is not known and did not come from Google is left as it is.
    """
    pipeline = _pipeline(arguments, root)
    if pipeline is None:
        return
    context = {
        "where": pipeline.where,
        "env": pipeline.env,
        "project": pipeline.environment.project,
        "service": pipeline.service,
    }
    found = known_errors.explain_error(error, **context)
    if found is None:
        from_google = isinstance(error, ApiError) and not isinstance(error, NotFound | Conflict)
        if not from_google:
            return
    elif found.name in _ABOUT_SOMEBODY and (account := _account(pipeline)):
        found = known_errors.explain_error(error, **context, account=account)
    if found:
        error.more.append(f"That is: {found.means}")
        if found.fix not in (error.hint or ""):
            error.more.append(f"-> {found.fix}")
    error.more.append(f"-> ./ship doctor {pipeline.where} checks everything that it needs")


def _pipeline(arguments: argparse.Namespace, root: Path) -> pipelines.Pipeline | None:
    """The files that the verb was about; those of one service where it is about all of them."""
    env = getattr(arguments, "env", None)
    if env is None:
        return None
    named = getattr(arguments, "service", None)
    try:
        return pipelines.load(root, named or next(iter(pipelines.having(root, env)), None), env)
    except ShipError:
        return None


def _account(pipeline: pipelines.Pipeline) -> str | None:
    try:
        return Google(pipeline, dry_run=True).account()
    except ShipError:
        return None
