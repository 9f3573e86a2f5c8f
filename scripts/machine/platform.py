"""What this machine is, in the words of images."""

from __future__ import annotations

import platform
import sys

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def host_platform() -> str:
    """This machine, as OCI images say it: `linux/amd64`, `darwin/arm64`, …"""
    architecture = platform.machine().lower()
    return f"{sys.platform}/{_ARCHITECTURES.get(architecture, architecture)}"
