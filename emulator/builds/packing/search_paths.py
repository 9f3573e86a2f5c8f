"""PATH and PYTHONPATH of a packed image."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

# What base images set, as `docker inspect` shows for python:3.12-slim and node:22-slim.
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_SITE = re.compile(r"(.+)/lib/python3\.\d+/site-packages")


def search_paths(
    files: Iterable[str], env: Mapping[str, str], command: list[str]
) -> dict[str, str]:
    """Return the variables with which a process here finds what was installed.

    A base image needs none: its own Python looks in its own folder.

    Args:
        files: the paths in the image.
        env: its variables.
        command: its entry point and command.
    """
    path = env.get("PATH", PATH)
    installed: dict[str, list[str]] = {}
    there = False
    for name in files:
        there = there or name in ("usr/local/bin", "usr/bin", "bin")
        if match := _SITE.fullmatch(name):
            installed.setdefault(match[1], []).append(f"/{name}")
    folders = [posixpath.dirname(word) for word in command[:1]] + path.split(":")
    prefixes = [posixpath.dirname(folder).strip("/") for folder in folders]
    prefixes += [prefix for prefix in installed if prefix.endswith("/.local")]  # `pip --user`
    sites = [site for prefix in dict.fromkeys(prefixes) for site in installed.get(prefix, [])]
    found = {"PATH": path} if sites or there else {}
    if sites:
        own = [env["PYTHONPATH"]] if env.get("PYTHONPATH") else []
        found["PYTHONPATH"] = ":".join([*own, *sites])
    return found
