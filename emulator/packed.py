"""What the labels of an image say about how it was built.

An image without labels is one that Docker or another tool built.
"""

from __future__ import annotations

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
