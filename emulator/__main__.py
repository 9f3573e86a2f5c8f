"""Run the local Cloud Run: `python -m emulator [--port PORT] [--state FOLDER] [--runtime RUNTIME]`.

It prints the base URL of its APIs as the first line on standard output, once it answers. SIGTERM
and SIGINT stop it. The exit code is 2 if the port, the state folder or the checkout is in use, or
if no Docker engine answers although `--runtime docker` needs one.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from emulator.checkout import Checkout, UpAlready
from emulator.errors import ApiError
from emulator.faults.settings import Fault, from_text
from emulator.front_door import host_name
from emulator.instances.engine import NoEngine
from emulator.instances.unpack import Limits
from emulator.server import Emulator, PortInUse
from emulator.store import StateInUse

_TAKEN = 2
_OPEN = (
    "An app that listens on 0.0.0.0, as Cloud Run asks, is reachable from your network without the "
    "check of private services."
)
_NO_SANDBOX = (
    "Instances run without a sandbox: {} They see this machine's files, processes and Docker "
    "socket, and their image's files are at other paths than on Cloud Run."
)


def main() -> int:
    """Serve until a signal comes; returns the exit code."""
    arguments = _arguments()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("aiohttp.server").addFilter(_is_our_fault)
    try:
        checkout = Checkout(arguments.checkout) if arguments.checkout else None
        emulator = Emulator(
            arguments.state,
            idle=arguments.idle,
            metrics_delay=arguments.metrics_delay,
            runtime=arguments.runtime,
            sandboxed=arguments.sandbox == "auto",
            enforced=arguments.iam == "enforce",
            limits=Limits(arguments.max_image_bytes, arguments.max_image_files),
            hosts=arguments.allow_host,
            faults=arguments.fault,
            checkout=checkout,
        )
    except UpAlready as error:
        print(f"The local Cloud Run of {error} is up already.", file=sys.stderr)
        return _TAKEN
    except StateInUse:
        print(
            f"The state folder {arguments.state} is in use by another local Cloud Run. "
            "Stop it, or choose another folder with --state.",
            file=sys.stderr,
        )
        return _TAKEN
    return asyncio.run(_serve(emulator, checkout, arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m emulator", description="A local Cloud Run.")
    parser.add_argument(
        "--port",
        type=int,
        help="port of the APIs; 0 chooses a free one (default: the checkout's last one, if it is "
        "free)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(".shipway/cloud-run"),
        help="folder for the state (default: %(default)s)",
    )
    parser.add_argument(
        "--checkout",
        type=Path,
        help="folder of the project that it belongs to, whose commands find it",
    )
    parser.add_argument(
        "--idle",
        type=float,
        default=900.0,
        help="seconds without a request until an instance stops (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics-delay",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="seconds until Cloud Monitoring shows an answer; from 60 on, it counts whole minutes, "
        "as Google does, whose numbers come up to 240 s late (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime",
        choices=["auto", "process", "docker"],
        default="auto",
        help="auto: run images that were packed here as processes, others in Docker; process: run "
        "others as processes, too, unless they have an operating system; docker: run others in "
        "Docker, which has to answer at the start (default: %(default)s)",
    )
    parser.add_argument(
        "--sandbox",
        choices=["auto", "none"],
        default="auto",
        help="auto: processes run in namespaces of their own, where bubblewrap can make them; "
        "none: they see this machine's files and processes (default: %(default)s)",
    )
    parser.add_argument(
        "--iam",
        choices=["none", "enforce"],
        default="none",
        help="enforce: callers need a token and permissions; none: every caller may do everything "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--max-image-bytes",
        type=int,
        default=Limits().size,
        help="most bytes that the process runtime unpacks of an image (default: %(default)s)",
    )
    parser.add_argument(
        "--max-image-files",
        type=int,
        default=Limits().files,
        help="most files that the process runtime unpacks of an image (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        type=_host_name,
        metavar="NAME",
        help="a name of this machine that requests may be for, besides localhost and 127.0.0.1; "
        "can be repeated",
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        type=_fault,
        metavar="NAME[,KEY=VALUE]...",
        help="a fault that is active from the start: docs/local-cloud-run.md; can be repeated",
    )
    return parser.parse_args()


def _host_name(text: str) -> str:
    try:
        return host_name(text)
    except ValueError:
        message = f"'{text}' is not a host name, such as host.docker.internal"
        raise argparse.ArgumentTypeError(message) from None


def _is_our_fault(record: logging.LogRecord) -> bool:
    """Leave out of the log what is no HTTP, which gets status 400, and clients that went away."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


def _fault(text: str) -> Fault:
    try:
        return from_text(text)
    except ApiError as error:
        raise argparse.ArgumentTypeError(error.message) from None


async def _serve(
    emulator: Emulator, checkout: Checkout | None, arguments: argparse.Namespace
) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, emulator.stop.set)
    try:
        url = await _start(emulator, checkout, arguments.port)
    except PortInUse as error:
        print(error, file=sys.stderr)
        return _TAKEN
    except NoEngine as error:
        print(f"{error} Start Docker, or leave out --runtime docker.", file=sys.stderr)
        return _TAKEN
    ends: list[asyncio.Task[Any]] = [asyncio.create_task(emulator.stop.wait())]
    if checkout:
        settings = {name: value for name, value in vars(arguments).items() if name != "fault"}
        checkout.publish(url, {**settings, "state": str(emulator.folder)})
        ends.append(asyncio.create_task(checkout.gone()))
    print(url, flush=True)
    print(f"The state is in {emulator.folder}. Press Ctrl-C to stop.", file=sys.stderr)
    if emulator.no_sandbox:
        print(_NO_SANDBOX.format(emulator.no_sandbox), file=sys.stderr)
    print(_OPEN, file=sys.stderr)
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if checkout:
        checkout.withdraw()
    print("Stopping. Running instances have 10 s to end.", file=sys.stderr)
    await emulator.close()
    if checkout:
        checkout.close()
    return 0


async def _start(emulator: Emulator, checkout: Checkout | None, port: int | None) -> str:
    """Start at a port; unless one was chosen, at the checkout's last one or at a free one."""
    if port is None and checkout and checkout.last_port:
        try:
            return await emulator.start(checkout.last_port)
        except PortInUse:
            pass  # another program has it
    return await emulator.start(port or 0)


if __name__ == "__main__":
    sys.exit(main())
