"""Check pipelines/, and style and types of Shipway's files, as CI does.

In a fork, style and types are checked only if Shipway's files differ from the version in
.shipway.toml. To run other sessions of noxfile.py, name them. They run in ship's own virtual
environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from scripts import HOME
from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import option
from scripts.config import pipelines, relations
from scripts.config.pipelines import Pipeline
from scripts.service import accepted
from scripts.template import record


class Options(options.Options, frozen=True, kw_only=True):
    sessions: Annotated[
        tuple[str, ...], option(help="sessions of noxfile.py (default: lint types)")
    ] = ()


def run(options: Options, call: Call) -> int:
    sessions = options.sessions
    if not sessions:
        _check_pipelines(call)
        recorded = record.read(HOME)
        if recorded and record.is_unchanged(HOME, recorded):
            call.progress.line(f"Shipway's files are those of version {recorded.version}")
            return 0
        sessions = ("lint", "types")
    command = [sys.executable, "-m", "nox", "--no-venv", "--sessions", *sessions]
    # Sessions find their programs in the same environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        command, cwd=HOME, env={**os.environ, "PATH": path}, check=False
    ).returncode


def _check_pipelines(call: Call) -> None:
    """Read the files of every environment of every service.

    Raises:
        UsageError: a file is not valid, or has a value that Cloud Run refuses.
    """
    related = relations.read(call.root)
    loaded: dict[str, dict[str, Pipeline]] = {}
    for service in pipelines.services(call.root):
        environments = pipelines.environments(call.root, service)
        for env in environments:
            pipeline = pipelines.load(call.root, service, env)
            accepted.check(pipeline)
            loaded.setdefault(env, {})[service] = pipeline
        call.progress.line(f"pipelines/{service}: {', '.join(environments)} are valid")
    for known in loaded.values():
        for pipeline in known.values():
            relations.calls_of(pipeline, related, known)
