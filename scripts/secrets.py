"""Give a secret a value at the local Cloud Run.

The value comes from standard input (without the newline at its end), or is typed at a prompt that
does not show it. It is never part of the command:

  ./ship secrets set API_KEY < key.txt

Instead, `secrets.local.env` may hold NAME=value lines. Git ignores the file, and each delivery to
the local Cloud Run reads it.
"""

from __future__ import annotations

import getpass
import sys
from typing import Annotated, Literal

from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import WritingOptions, Yes, option
from scripts.config import pipelines
from scripts.config.pipelines import DEFAULT_ENV
from scripts.errors import UsageError
from scripts.service import local_secrets
from scripts.service.context import Context


class Options(options.Options, frozen=True, kw_only=True):
    action: Annotated[Literal["set"], option(help="set: add a version with a new value")]
    name: Annotated[str, option(help="the secret's name, as in service.yaml")]
    env: Annotated[
        str, option("--env", help="an environment on this machine (default: %(default)s)")
    ] = DEFAULT_ENV
    yes: Yes = False


def run(options: Options, call: Call) -> int:
    name = local_secrets.check_name(options.name)
    service = next(iter(pipelines.having(call.root, options.env)), None)
    pipeline = pipelines.load(call.root, service, options.env)
    if pipeline.at_google:
        local_secrets.check_is_here(pipeline)
    of_service = WritingOptions(services=(pipeline.service,), env=options.env, yes=options.yes)
    context = Context(of_service, call, pipeline)
    local_secrets.check_is_here(pipeline)
    value = _value(name)
    changed = local_secrets.put(context.google, pipeline, name, value)
    where = f"{pipeline.environment.project} at {pipeline.endpoint}"
    print(
        f"{name} has a new value in {where}; the next delivery uses it"
        if changed
        else f"{name} already has this value in {where}",
        file=sys.stderr,
    )
    return 0


def _value(name: str) -> bytes:
    if sys.stdin.isatty():
        value = getpass.getpass(f"Value of {name} (not shown): ").encode()
    else:
        # Bytes: a value need not be text, and its ends of lines stay as they are.
        value = sys.stdin.buffer.read().removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        raise UsageError(f"{name}: no value", f"./ship secrets set {name} < FILE")
    return value
