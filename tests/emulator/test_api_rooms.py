"""The rooms of the emulator: the same files for the same jobs."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

FOLDERS = {path.parent.name: path.parent for path in (ROOT / "emulator").glob("*/__init__.py")}
# Rooms that are not APIs: they run instances and pass requests on to them.
OTHERS = {"instances", "metadata", "router"}


def test_every_api_has_urls_responses_and_models() -> None:
    for name in FOLDERS.keys() - OTHERS:
        files = {path.stem for path in FOLDERS[name].glob("*.py")}
        assert {"urls", "responses", "models"} <= files, name


def test_models_know_no_http() -> None:
    """Importing them, and everything that they import, does not load aiohttp."""
    rooms = sorted(FOLDERS.keys() - OTHERS)
    code = (
        "import importlib, sys\n"
        f"for room in {rooms}:\n"
        "    importlib.import_module(f'emulator.{room}.models')\n"
        "    assert 'aiohttp' not in sys.modules, room\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
