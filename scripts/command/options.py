"""The options that verbs share, each written once."""

from __future__ import annotations

import argparse
import re

from scripts.config.pipelines import DEFAULT_ENV, seconds
from scripts.errors import UsageError

_LONGEST_REASON = 300


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
    parser.add_argument("--reason", type=reason, help="why; kept in the service's history")
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


def digest(parser: argparse.ArgumentParser) -> None:
    """--digest: the very image, built before."""
    parser.add_argument(
        "--digest",
        type=image_digest,
        metavar="sha256:…",
        help="the commit's image must be this one; nothing is built",
    )


def override(parser: argparse.ArgumentParser) -> None:
    """--override: go on although a hold is on."""
    parser.add_argument("--override", metavar="HOLD", help="override the hold of this name")


def repository(parser: argparse.ArgumentParser) -> None:
    """--repository, --repository-id, --owner-id: which repository at GitHub."""
    parser.add_argument(
        "--repository", metavar="OWNER/NAME", help="at GitHub (default: the remote origin)"
    )
    for name in ("repository", "owner"):
        parser.add_argument(
            f"--{name}-id", type=int, metavar="N", help=f"the {name}'s number (default: gh knows)"
        )


def bake(parser: argparse.ArgumentParser) -> None:
    """--bake: how long each step is watched."""
    parser.add_argument(
        "--bake", type=duration, metavar="TIME", help="90s, 5m … instead of the environment's"
    )


def percent(text: str) -> int | None:
    """A percentage of the command line: 1 to 100; nothing for a form's empty field."""
    text = text.strip().removesuffix("%").rstrip()
    if not text:
        return None
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is no percentage: 1 to 100")
    return int(text)


def count(text: str) -> int:
    """A number of things on the command line: 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")
    return int(text)


def image_digest(text: str) -> str:
    """An image's digest of the command line.

    Source: https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
    """
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no digest: sha256: and 64 of 0-9 and a-f, as `ship build` prints it"
        )
    return text


def hold_name(text: str) -> str:
    """A hold's name: what people type after --override, so nothing that a shell would read."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no name: lower-case letters, digits and hyphens, at most 63"
        )
    return text


def reason(text: str) -> str:
    """Why: one line that anybody's terminal may show, and that the history has room for."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) > _LONGEST_REASON:
        raise argparse.ArgumentTypeError(f"{len(line)} characters; at most {_LONGEST_REASON}")
    return line


def duration(text: str) -> str:
    """A duration of the command line: 90s, 5m …"""
    try:
        seconds(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from None
    return text
