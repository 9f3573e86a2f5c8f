"""The syntax of repository names, tags and digests (OCI distribution specification, "Pull").

Everything that becomes a path on disk is checked here first.
"""

from __future__ import annotations

import re

from emulator.registry.errors import OciError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_NAME = 255  # host and name together; clients refuse longer ones


def checked_name(name: str) -> str:
    """Return `name`, or raise NAME_INVALID."""
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise OciError("NAME_INVALID", "invalid repository name", {"name": name})
    return name


def checked_tag(tag: str) -> str:
    """Return `tag`, or raise TAG_INVALID."""
    if not _TAG.fullmatch(tag):
        raise OciError("TAG_INVALID", "invalid tag", {"tag": tag})
    return tag


def checked_digest(digest: str) -> str:
    """Return `digest` (`sha256:` and 64 hex digits), or raise DIGEST_INVALID."""
    if not _DIGEST.fullmatch(digest):
        raise OciError("DIGEST_INVALID", "not a sha256 digest", {"digest": digest})
    return digest


def is_digest(reference: str) -> bool:
    """Return whether a manifest's reference is a digest (of any algorithm) and not a tag."""
    return ":" in reference


def split_reference(reference: str) -> tuple[str, str]:
    """Split `HOST/NAME(:TAG)(@DIGEST)` into (NAME, DIGEST or TAG); without either, `latest`.

    Raises:
        OciError: A part is missing or malformed.
    """
    _host, _, path = reference.partition("/")
    path, _, digest = path.partition("@")
    name, _, tag = path.partition(":")
    checked_name(name)
    if digest:
        return name, checked_digest(digest)
    return name, checked_tag(tag or "latest")
