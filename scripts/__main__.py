"""The command line: finds the verb's file and runs it."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

# Until the handlers stand, Ctrl-C just ends it: there is nothing to tidy up yet.
signal.signal(signal.SIGINT, signal.SIG_DFL)
HOME = Path(__file__).resolve().parent.parent
sys.path[0] = str(HOME)

from scripts.command import terminal  # noqa: E402  (the line above is what makes it importable)
from scripts.errors import ShipError, UsageError, did_you_mean  # noqa: E402

GROUPS = {
    "try it": ["demo", "trial", "rehearse", "up", "test", "check"],
    "set up": ["init", "bootstrap", "doctor"],
    "deliver": ["deliver", "build", "deploy", "smoke", "rollout"],
    "operate": ["status", "history", "plan", "logs", "promote", "rollback", "hold", "resume"],
}
VERBS = [verb for verbs in GROUPS.values() for verb in verbs]


def main(argv: list[str]) -> int:
    """Run one verb.

    Args:
        argv: the command line without the program's name.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad usage or configuration, 3 refused, 4 differences
        found, 130 interrupted.
    """
    _open_closed_streams()
    # As Ctrl-C: scratch folders go, and what is in force stays in force.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return _run(argv)
    except ShipError as error:
        if "--debug" in argv:
            raise
        terminal.show_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        look = "" if argv[0] in GROUPS["try it"] else "; see what is in force with: ./ship status"
        print(f"\nship: interrupted{look}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read standard output has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if "--debug" in argv:
            raise
        print(f"ship: this should not happen: {type(error).__name__}: {error}", file=sys.stderr)
        terminal.annotate("ship: this should not happen", f"{type(error).__name__}: {error}")
        print("  -> --debug shows where; please report it", file=sys.stderr)
        return 1


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview(), flush=True)
        return 0
    verb, *rest = argv
    if verb not in VERBS:
        raise UsageError(f"no verb '{verb}'", did_you_mean(verb, VERBS, "verbs"))
    module = importlib.import_module(f"scripts.{verb}")
    made = parser(verb, module)
    arguments, others = made.parse_known_args(rest)
    if others and not hasattr(arguments, "handed_on"):
        made.error(f"unrecognized arguments: {' '.join(others)}")
    if others:
        arguments.handed_on = others
    arguments.verb = verb
    try:
        code: int = module.run(arguments, root())
    except ShipError as error:
        from scripts.cloud.explain import point

        error.about = error.about or getattr(arguments, "about", None)
        point(error, arguments, root())
        raise
    return code


def _open_closed_streams() -> None:
    """Give whoever closed standard output or error a place to write to all the same."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for good)


def root() -> Path:
    """The project: the nearest folder upwards that holds pipelines/, else this program's own."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "pipelines").is_dir()), HOME)


def overview() -> str:
    """`ship --help`: every verb with its first line."""
    lines = ["usage: ./ship VERB [SERVICE] [--env ENV] [options]", ""]
    for group, verbs in GROUPS.items():
        lines.append(f"{group}:")
        for verb in verbs:
            documentation = importlib.import_module(f"scripts.{verb}").__doc__ or ""
            lines.append(f"  {verb:<10} {documentation.splitlines()[0]}")
        lines.append("")
    lines += [
        "./ship VERB --help tells more.",
        "--env is local unless given; demo, trial, up and test take none.",
        "exit codes: 0 done; 1 failed, and the service serves what it did before;",
        "  2 bad usage or configuration, nothing was sent; 3 refused, nothing changed;",
        "  4 differences found (plan);",
        "  130 interrupted, what is in force stays in force",
    ]
    return "\n".join(lines)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors a workflow's run page shows as well."""

    def error(self, message: str) -> NoReturn:
        terminal.annotate(self.prog, message)
        super().error(message)


def parser(verb: str, module: object) -> argparse.ArgumentParser:
    """The parser of one verb, from its module."""
    made = _Parser(
        prog=f"ship {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--debug", action="store_true", help="show a traceback when it fails")
    module.arguments(made)  # type: ignore[attr-defined]  # every verb's file has it
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
