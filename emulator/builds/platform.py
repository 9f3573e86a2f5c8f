"""This machine's platform, in the terms of OCI images."""

from __future__ import annotations

import platform
import sys

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def host_platform() -> str:
    """Return this machine's platform: `linux/amd64`, `darwin/arm64`, …"""
    architecture = platform.machine().lower()
    return f"{sys.platform}/{_ARCHITECTURES.get(architecture, architecture)}"
