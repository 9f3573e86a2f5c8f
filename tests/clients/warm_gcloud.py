"""Starts gcloud in a Python that has already loaded gcloud's modules.

Loading them takes most of the time of a command. As in `tests/warm.py`, one process for each worker
loads them once and forks for each command; `gcloud` itself, its files and its Python stay as they
are installed. Without the Python that comes with gcloud, each command starts as it always does.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import runpy
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":  # in the server, whose folder is this one
    sys.path[0] = str(Path(__file__).resolve().parents[2])
from tests import warm

# What the commands of the tests load most; another version may not have all of them.
_MODULES = (
    "google.auth.transport.requests",
    "googlecloudsdk.gcloud_main",
    "googlecloudsdk.api_lib.cloudbuild.cloudbuild_util",
    "googlecloudsdk.api_lib.container.api_adapter",
    "googlecloudsdk.api_lib.iam.util",
    "googlecloudsdk.command_lib.iam.iam_util",
    "googlecloudsdk.command_lib.run.serverless_operations",
    "googlecloudsdk.command_lib.run.sourcedeploys.deployer",
    "googlecloudsdk.command_lib.util.concepts.presentation_specs",
    "googlecloudsdk.core.credentials.transports",
)


@functools.cache
def environment() -> dict[str, str]:
    """Return the variables with which `gcloud` runs in a fork."""
    program = shutil.which("gcloud")
    assert program is not None
    root = Path(program).resolve().parents[1]
    python = root / "platform/bundledpythonunix/bin/python3"
    if not python.exists():
        return {}
    folder = Path(tempfile.mkdtemp(prefix="warm-gcloud-"))
    atexit.register(shutil.rmtree, folder)
    env = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSDK_")}
    env["PYTHONIOENCODING"] = "UTF-8"  # as the shell script `gcloud` sets it
    warm.start_server(folder, [str(python), "-S", __file__, str(root / "lib")], env)
    asking = folder / "python"
    asking.write_text(f'#!/bin/sh\nexec {warm.client(folder)} "$@"\n')
    asking.chmod(0o755)
    return {"CLOUDSDK_PYTHON": str(asking), "CLOUDSDK_PYTHON_SITEPACKAGES": "1"}


def _serve(folder: str, channel: str, listener: str) -> None:
    sys.path[:0] = [f"{folder}/third_party", folder]  # as gcloud.py does
    for name in _MODULES:
        with suppress(ImportError):
            importlib.import_module(name)
    program, arguments = warm.forks(int(channel), int(listener))
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    try:
        _serve(*sys.argv[1:])
    except SystemExit as ended:
        warm.end(ended)
