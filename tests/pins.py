"""Move pinned images to their current digests (`nox -s pin`), or report them (`--check`).

A pin is IMAGE:TAG@sha256:DIGEST, in any file of git outside docs/ and tests/. If the tag is a
full version (v1.2.3, 29.1.3-cli), the pin moves to the newest version of the same form. Otherwise
the tag stays, and its digest moves.

Sources: https://github.com/opencontainers/distribution-spec/blob/main/spec.md (manifests, tags),
https://distribution.github.io/distribution/spec/auth/token/ (anonymous tokens).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin

import requests

from scripts.cloud.google import unreachable
from scripts.config.image_reference import ImageReference
from tests.conftest import ROOT

# Docker Hub's name in references is not the name of its registry.
_HUB = "registry-1.docker.io"
PIN = re.compile(r"[a-z0-9][a-z0-9._:/-]*?:\w[\w.-]{0,127}@sha256:[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"(v?)(\d+)\.(\d+)\.(\d+)((?:-[a-z]+)?)")
_LOOPBACK = re.compile(r"(?:localhost|127\.0\.0\.1)(?::\d+)?")
# An index before a manifest of one platform: a pin is of all platforms.
_TYPES = (
    "application/vnd.oci.image.index.v1+json,"
    " application/vnd.docker.distribution.manifest.list.v2+json,"
    " application/vnd.oci.image.manifest.v1+json,"
    " application/vnd.docker.distribution.manifest.v2+json"
)
_MOST_PAGES = 50  # of tags
_TIMEOUT = 30  # seconds


class NotFound(Exception):
    """A registry that does not answer, or has no such image; the message says which."""


class Found(NamedTuple):
    """A pin, and where it moves to."""

    pin: str
    current: str


def newest(tag: str, tags: Iterable[str]) -> str:
    """Return the newest version of the same form; `tag` itself if it is not a full version."""
    mine = _VERSION.fullmatch(tag)
    if not mine:
        return tag
    found = [mine, *filter(None, map(_VERSION.fullmatch, tags))]
    same = [m for m in found if (m[1], m[5]) == (mine[1], mine[5])]
    return max(same, key=lambda m: (int(m[2]), int(m[3]), int(m[4])))[0]


def current(pin: str, session: requests.Session) -> str:
    """Return the pin with its current tag and digest.

    Raises:
        NotFound: the registry does not answer, or has no such image.
    """
    image = ImageReference.parse(pin)
    url = repository_url(image)
    tag = image.tag
    if _VERSION.fullmatch(tag):
        tag = newest(tag, _tags(url, session))
    answer = _ask(session, "HEAD", urljoin(url, f"manifests/{tag}"))
    digest = answer.headers.get("Docker-Content-Digest", "")
    if not _DIGEST.fullmatch(digest):
        raise NotFound(f"{answer.url} names no digest")
    return f"{image.by_tag(tag)}@{digest}"


def repository_url(image: ImageReference) -> str:
    """Return the URL of an image's repository at its registry."""
    host, path = image.host, image.path
    if host in ("", "docker.io"):
        host, path = _HUB, path if "/" in path else f"library/{path}"
    return f"{'http' if _LOOPBACK.fullmatch(host) else 'https'}://{host}/v2/{path}/"


def _tags(url: str, session: requests.Session) -> list[str]:
    """Return all tags of a repository."""
    tags: list[str] = []
    page: str | None = urljoin(url, "tags/list?n=1000")
    for _ in range(_MOST_PAGES):
        answer = _ask(session, "GET", page)
        try:
            tags += answer.json()["tags"] or []
        except (ValueError, KeyError, TypeError):
            raise NotFound(f"{page}: not a list of tags") from None
        following = answer.links.get("next", {}).get("url")
        if not following:
            return tags
        page = urljoin(page, following)
    raise NotFound(f"{url} has too many tags")


def _ask(session: requests.Session, method: str, url: str) -> requests.Response:
    """Send a request, with an anonymous token if the registry asks for one."""
    headers = {"Accept": _TYPES}
    try:
        answer = session.request(method, url, headers=headers, timeout=_TIMEOUT)
        if answer.status_code == 401:
            challenge = requests.utils.parse_dict_header(
                answer.headers.get("WWW-Authenticate", "").removeprefix("Bearer ")
            )
            asked = {key: challenge[key] for key in ("service", "scope") if key in challenge}
            given = session.get(challenge.get("realm", ""), params=asked, timeout=_TIMEOUT)
            given.raise_for_status()
            headers["Authorization"] = f"Bearer {given.json()['token']}"
            answer = session.request(method, url, headers=headers, timeout=_TIMEOUT)
        answer.raise_for_status()
    except requests.ConnectionError as error:
        raise NotFound(unreachable(url, error).message) from None
    except (requests.RequestException, KeyError, TypeError) as error:
        raise NotFound(f"{url}: {type(error).__name__}: {error}") from None
    return answer


def move(
    files: Iterable[Path], look_up: Callable[[str], str], *, write: bool
) -> tuple[list[Found], list[str]]:
    """Move every pin in the files.

    Args:
        files: The files.
        look_up: A pin -> the current one; raises NotFound.
        write: Whether to write the files.

    Returns:
        The pins that are behind, and the errors. A pin with an error stays as it is.
    """
    texts = {}
    for file in files:
        try:
            texts[file] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # not text, or a link to nowhere
    behind, errors = [], []
    for pin in sorted({pin for text in texts.values() for pin in PIN.findall(text)}):
        try:
            now = look_up(pin)
        except NotFound as error:
            errors.append(f"{pin.partition('@')[0]}: {error}")
            continue
        if now != pin:
            behind.append(Found(pin, now))
    for file, text in texts.items():
        moved = text
        for pin, now in behind:
            moved = moved.replace(pin, now)
        if write and moved != text:
            file.write_text(moved, encoding="utf-8")
    return behind, errors


def pinned_files(root: Path) -> list[Path]:
    """Return the files of git that may pin an image."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", ".", ":!docs", ":!tests"],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [root / name for name in listed.split("\0") if name]


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Run the tool; return 1 if a registry did not answer or, with --check, if a pin is behind."""
    check = arguments == ["--check"]
    if arguments and not check:
        print(f"pin: unknown option {arguments[0]}\n  -> nox -s pin [-- --check]", file=sys.stderr)
        return 2
    with requests.Session() as session:
        behind, errors = move(
            pinned_files(root), lambda pin: current(pin, session), write=not check
        )
    for pin, now in behind:
        print(f"{'behind' if check else 'moved'}: {pin}\n  -> {now}")
    for error in errors:
        print(f"pin: not looked up: {error}", file=sys.stderr)
    if not behind and not errors:
        print("every pinned image is current")
    return 1 if errors or (check and behind) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
