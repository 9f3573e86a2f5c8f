"""Run a verb on the services that a command line means: one here, several through others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

import msgspec

from scripts.command.call import Call
from scripts.command.options import ServiceOptions, WritingOptions
from scripts.config import pipelines
from scripts.errors import UsageError

# What is about one service: it shows it until Ctrl-C, or names a revision.
_OF_ONE = ("watch", "follow", "revision")


def run(verb: ModuleType, options: ServiceOptions, call: Call) -> int:
    """Run a verb on each service that is meant; return the exit code.

    Args:
        verb: its module.
        options: the command line, parsed.
        call: the call.
    """
    if chooses := getattr(verb, "several", None):
        code: int | None = chooses(options, call)
        if code is not None:
            return code
    options = msgspec.structs.replace(options, env=options.env or pipelines.DEFAULT_ENV)
    many = options.every and options.takes_every
    if not many and len(options.services) == 1:
        return int(verb.run(options, call))
    names = named(options, call.root)
    if not many and len(names) == 1:
        return int(verb.run(msgspec.structs.replace(options, services=tuple(names)), call))
    return over(verb, options, call, names)


def named(options: ServiceOptions, root: Path) -> list[str]:
    """Return the services that the command line names, in its order.

    Args:
        options: the command line, parsed.
        root: the folder that holds pipelines/.

    Raises:
        UsageError: a name is unknown or appears twice, no service is named, or names and `--all`
            contradict each other.
    """
    names = options.services
    if options.every and options.takes_every:
        if names:
            raise UsageError(
                f"--all means every service, and {', '.join(names)} {_is(names)} named as well",
                "leave out --all, or the names",
            )
        if found := pipelines.having(root, options.env):
            return found
        if not pipelines.services(root):
            pipelines.check_known(root, None)  # which says so
        raise UsageError(
            f"no service has the environment '{options.env}'",
            f"it needs a pipelines/SERVICE/{options.env}.yaml",
        )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise UsageError(f"{', '.join(twice)} {_is(twice)} named twice", "name each service once")
    if not names:
        return [pipelines.check_known(root, None, every=options.takes_every)]
    for name in names:
        pipelines.check_known(root, name)
    return [*names]


def over(verb: ModuleType, options: ServiceOptions, call: Call, names: list[str]) -> int:
    """Run a verb on several services; return the exit code.

    Args:
        verb: its module.
        options: the command line, parsed.
        call: the call.
        names: the services.
    """
    for flag in _OF_ONE:
        if getattr(options, flag, False):
            raise UsageError(f"--{flag} is about one service", f"name one: {', '.join(names)}")
    if isinstance(getattr(options, "to", None), str):  # a revision, not a share
        raise UsageError("--to names a revision of one service", f"name one: {', '.join(names)}")
    if isinstance(options, WritingOptions):
        from scripts.several.drive import drive

        return drive(options, call, names)
    from scripts.several.together import read

    return read(verb, options, call, names)


def _is(names: tuple[str, ...] | list[str]) -> str:
    return "is" if len(names) == 1 else "are"
