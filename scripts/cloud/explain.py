"""Add the explanation of a known error to it, and point to the doctor."""

from __future__ import annotations

from pathlib import Path

from scripts.cloud import known_errors
from scripts.cloud.google import ApiError, Conflict, Google, NotFound
from scripts.cloud.patience import Patience
from scripts.config import pipelines
from scripts.errors import ShipError

# The errors whose explanation names the account, which takes a request to find out.
_PATIENCE_SECONDS = 5.0  # an error is shown soon, with the name of the account or without
_ABOUT_AN_ACCOUNT = ("permission-denied", "token-exchange")


def point(error: ShipError, root: Path, service: str | None, env: str) -> None:
    """Add to an error what it means, how to fix it, and the command that finds out more.

    An unknown error that did not come from Google is not changed.

    Args:
        error: the error, which is changed.
        root: the folder that holds pipelines/.
        service: the service that the verb was about; None if it was about all of them.
        env: the environment's name.
    """
    pipeline = _pipeline(root, service, env)
    if pipeline is None:
        return
    context = {
        "where": pipeline.where,
        "env": pipeline.env,
        "project": pipeline.environment.project,
        "service": pipeline.service,
        "is_local": "yes" if pipeline.environment.credentials != "google" else "",
    }
    found = known_errors.explain_error(error, **context)
    if found is None:
        from_google = isinstance(error, ApiError) and not isinstance(error, NotFound | Conflict)
        if not from_google:
            return
    elif found.name in _ABOUT_AN_ACCOUNT and (account := _account(pipeline)):
        found = known_errors.explain_error(error, **context, account=account)
    if found:
        error.more.append(f"This means: {found.means}")
        if found.fix not in (error.hint or ""):
            error.more.append(f"-> {found.fix}")
    error.more.append(f"-> ./ship doctor {pipeline.where} checks everything that a delivery needs")


def _pipeline(root: Path, service: str | None, env: str) -> pipelines.Pipeline | None:
    """Return the files of the service, or those of one service that has the environment."""
    try:
        name = service or next(iter(pipelines.having(root, env)), None)
        return pipelines.load(root, name, env)
    except ShipError:
        return None


def _account(pipeline: pipelines.Pipeline) -> str | None:
    try:
        return Google(pipeline, dry_run=True, patience=Patience(_PATIENCE_SECONDS)).account()
    except ShipError:
        return None
