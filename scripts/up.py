"""Run the local Cloud Run in the foreground, until Ctrl-C.

The first line on standard output is the base URL of its API.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from scripts import HOME
from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import option


class Options(options.Options, frozen=True, kw_only=True):
    port: Annotated[
        int, option("--port", help="the port; 0 picks a free one (default: %(default)s)")
    ] = 8787
    state: Annotated[
        Path | None,
        option("--state", help="the folder for its state (default: .shipway/cloud-run)"),
    ] = None
    runtime: Annotated[
        Literal["auto", "process", "docker"],
        option(
            "--runtime",
            help="auto: images that were packed here run as processes, others in Docker; process:"
            " others, too, unless they have an operating system; docker: others in Docker, which"
            " has to answer at the start (default: %(default)s)",
        ),
    ] = "auto"
    sandbox: Annotated[
        Literal["auto", "none"],
        option(
            "--sandbox",
            help="auto: processes run in namespaces of their own, where bubblewrap can make them;"
            " none: they see this machine's files and processes (default: %(default)s)",
        ),
    ] = "auto"
    iam: Annotated[
        Literal["none", "enforce"],
        option(
            "--iam",
            help="enforce: callers need a token, and permission for each call"
            " (default: %(default)s)",
        ),
    ] = "none"
    max_image_bytes: Annotated[
        int,
        option(
            "--max-image-bytes",
            help="most bytes to unpack of an image (default: %(default)s)",
        ),
    ] = 4 * 1024**3
    max_image_files: Annotated[
        int,
        option(
            "--max-image-files",
            help="most files to unpack of an image (default: %(default)s)",
        ),
    ] = 200_000
    allow_host: Annotated[
        tuple[str, ...],
        option(
            "--allow-host",
            metavar="NAME",
            help="another name of this machine that requests may use, in addition to localhost"
            " and 127.0.0.1; may be repeated",
        ),
    ] = ()
    fault: Annotated[
        tuple[str, ...],
        option(
            "--fault",
            metavar="NAME[,KEY=VALUE]...",
            help="an error to return on purpose: see docs/local-cloud-run.md; may be repeated",
        ),
    ] = ()


def run(options: Options, call: Call) -> int:
    state = (options.state or call.root / ".shipway" / "cloud-run").absolute()
    command = ["-m", "emulator", "--port", str(options.port), "--state", str(state)]
    command += ["--runtime", options.runtime, "--sandbox", options.sandbox]
    command += ["--iam", options.iam]
    command += ["--max-image-bytes", str(options.max_image_bytes)]
    command += ["--max-image-files", str(options.max_image_files)]
    command += [f"--allow-host={name}" for name in options.allow_host]
    command += [f"--fault={fault}" for fault in options.fault]
    # The emulator is a separate program, reached only over HTTP, like Cloud Run.
    os.chdir(HOME)
    os.execv(sys.executable, [sys.executable, *command])
