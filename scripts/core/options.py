"""The options that verbs share, each written once."""

from __future__ import annotations

import argparse

from scripts.core.config import DEFAULT_ENV, seconds
from scripts.core.errors import UsageError


def common(parser: argparse.ArgumentParser) -> None:
    """SERVICE, --env, --format: what every verb about a service takes."""
    parser.add_argument(
        "service", nargs="?", help="its folder's name in pipelines/; needed if many"
    )
    parser.add_argument("--env", default=DEFAULT_ENV, help="environment (default: %(default)s)")
    parser.add_argument(
        "--format", choices=["table", "json"], default="table", help="of the result"
    )
    parser.set_defaults(dry_run=False, yes=True)


def writing(parser: argparse.ArgumentParser) -> None:
    """--dry-run, --yes, --reason: what every verb that changes something takes."""
    parser.add_argument(
        "--dry-run", action="store_true", help="only read; print what would be done"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before changing")
    parser.add_argument("--reason", help="why; kept in the service's history")
    parser.set_defaults(yes=False)


def commit(parser: argparse.ArgumentParser) -> None:
    """--commit: which commit."""
    parser.add_argument("--commit", default="HEAD", metavar="REF", help="default: %(default)s")


def builder(parser: argparse.ArgumentParser) -> None:
    """--builder: how the image is made."""
    parser.add_argument(
        "--builder",
        choices=["docker", "pack"],
        help="docker buildx, or packing without Docker (default: what the environment says)",
    )


def override(parser: argparse.ArgumentParser) -> None:
    """--override: go on although a hold is on."""
    parser.add_argument("--override", metavar="HOLD", help="override the hold of this name")


def bake(parser: argparse.ArgumentParser) -> None:
    """--bake: how long each step is watched."""
    parser.add_argument(
        "--bake", type=duration, metavar="TIME", help="90s, 5m … instead of the environment's"
    )


def percent(text: str) -> int:
    """A percentage of the command line: 1 to 100."""
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is no percentage: 1 to 100")
    return int(text)


def count(text: str) -> int:
    """A number of things on the command line: 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")
    return int(text)


def duration(text: str) -> str:
    """A duration of the command line: 90s, 5m …"""
    try:
        seconds(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from None
    return text
