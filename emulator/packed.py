"""What the labels of an image say about how it was built.

An image without labels is one that Docker or another tool built.
"""

from __future__ import annotations

import functools
import platform
import subprocess
from typing import Any

BUILDER = "dev.shipway.builder"
# The builder whose images have no operating system: they run as processes of this machine.
PACK = "pack"
DOCKER = "docker"
# The version of Python or Node that the Dockerfile names, such as 3.9.
PYTHON = "dev.shipway.python"
NODE = "dev.shipway.node"


def labels(config: dict[str, Any]) -> dict[str, str]:
    """Return the labels of an OCI image configuration."""
    return (config.get("config") or {}).get("Labels") or {}


def is_packed(config: dict[str, Any]) -> bool:
    """Return whether an image holds no operating system, by its OCI image configuration."""
    return labels(config).get(BUILDER) == PACK


def other_interpreter(config: dict[str, Any]) -> str:
    """Return how the interpreter that runs an image differs from the Dockerfile's; else ""."""
    named = labels(config)
    python, node = named.get(PYTHON, ""), named.get(NODE, "")
    if python and not f"{platform.python_version()}.".startswith(f"{python}."):
        return (
            f"The Dockerfile names Python {python}. Here, the image runs with this machine's:"
            f" {platform.python_version()}."
        )
    if node and node_version().partition(".")[0] != node.partition(".")[0]:
        own = node_version() or "which is not installed"
        return f"The Dockerfile names Node {node}. Here, the image runs with this machine's: {own}."
    return ""


@functools.cache
def node_version() -> str:
    """Return the version of this machine's Node; "" if it has none."""
    try:
        said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.strip().removeprefix("v")
