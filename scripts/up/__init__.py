"""Run the local Cloud Run in the foreground, until Ctrl-C.

The first line on standard output is the base URL of its API. The commands of this checkout find it:
an environment with `endpoint: up` uses it. A checkout has one at a time, and keeps its port.

  ./ship up                          # in the foreground
  ./ship up --background             # its output goes to .shipway/up.log
  ./ship up --stop                   # end it, wherever it was started
  eval "$(./ship up --env-gcloud)"   # from here on, gcloud in this terminal uses it
  ./ship up --grant user:me@example.com=roles/run.admin   # a role in the project, for --iam enforce
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from scripts import HOME
from scripts.command import options, values
from scripts.command.call import Call
from scripts.command.options import option
from scripts.config import running
from scripts.config.pipelines import seconds
from scripts.config.running import Running
from scripts.errors import UsageError


class Options(options.Options, frozen=True, kw_only=True):
    background: Annotated[
        bool,
        option("--background", either="action", help="start it, and return when it answers"),
    ] = False
    stop: Annotated[bool, option("--stop", either="action", help="end it")] = False
    env_gcloud: Annotated[
        bool,
        option(
            "--env-gcloud",
            either="action",
            help="print the shell commands with which gcloud uses it",
        ),
    ] = False
    grant: Annotated[
        tuple[str, ...],
        option(
            "--grant",
            either="action",
            metavar="MEMBER=ROLE",
            help="give a role in the local environment's project; may be repeated",
        ),
    ] = ()
    port: Annotated[
        int | None,
        option("--port", help="the port; 0 picks a free one (default: the last one, if free)"),
    ] = None
    state: Annotated[
        Path | None,
        option(
            "--state",
            help="another folder for its state than .shipway/cloud-run; commands find such a one"
            " only with SHIPWAY_ENDPOINT",
        ),
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
    metrics_delay: Annotated[
        str,
        option(
            "--metrics-delay",
            parse=values.duration,
            metavar="TIME",
            help="how late Cloud Monitoring shows an answer; Google's numbers come up to 4m late"
            " (default: %(default)s)",
        ),
    ] = "0s"
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
    if options.state is not None:
        if options.background or options.stop or options.env_gcloud or options.grant:
            raise UsageError(
                "--state names another local Cloud Run, which runs in the foreground only",
                "leave out --state, or the other option",
            )
        return _become(options, call.root)
    if options.stop:
        from scripts.up import background

        return background.stop(call.root)
    if options.env_gcloud or options.grant:
        found = running.settled(call.root)
        if found is None:
            raise running.NotUp
        from scripts.up import gcloud, roles

        if options.grant:
            return roles.grant(found, call.root, options.grant)
        return gcloud.show(found, call.root)
    if found := running.settled(call.root):
        return _is_up(found, options)
    if not options.background:
        return _become(options, call.root)
    from scripts.up import background

    found = background.start(call.root, _command(options, call.root))
    print(found.url, flush=True)
    print(f"Its output goes to {running.LOG}. To end it: ./ship up --stop", file=sys.stderr)
    return 0


def _is_up(found: Running, options: Options) -> int:
    """Say where it is up; an error if it was started with other options."""
    differ = []
    for field in msgspec.structs.fields(Options):
        wanted = getattr(options, field.name)
        if field.name in ("background", "port") or wanted == field.default:
            continue
        if wanted != getattr(found, field.name, None):
            differ.append(f"--{field.name.replace('_', '-')}")
    if options.port and not found.url.endswith(f":{options.port}"):
        differ.append("--port")
    if differ:
        raise UsageError(
            f"the local Cloud Run is up at {found.url}, with another {', '.join(differ)}",
            "end it first: ./ship up --stop",
        )
    print(found.url, flush=True)
    print(
        f"The local Cloud Run is up already (process {found.pid}). To end it: ./ship up --stop",
        file=sys.stderr,
    )
    return 0


def _command(options: Options, root: Path) -> list[str]:
    """Return the command of the local Cloud Run, which is a program of its own."""
    state = (options.state or root / ".shipway" / "cloud-run").absolute()
    command = [sys.executable, "-m", "emulator", "--state", str(state)]
    if options.state is None:
        command += ["--checkout", str(root)]
    if options.port is not None:
        command += ["--port", str(options.port)]
    command += ["--runtime", options.runtime, "--sandbox", options.sandbox]
    command += ["--iam", options.iam]
    command += ["--metrics-delay", str(seconds(options.metrics_delay))]
    command += ["--max-image-bytes", str(options.max_image_bytes)]
    command += ["--max-image-files", str(options.max_image_files)]
    command += [f"--allow-host={name}" for name in options.allow_host]
    command += [f"--fault={fault}" for fault in options.fault]
    return command


def _become(options: Options, root: Path) -> int:
    command = _command(options, root)
    os.chdir(HOME)
    os.execv(command[0], command)
