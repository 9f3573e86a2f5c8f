"""The command line: finds the verb's file and runs it."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path[0] = str(HOME)

from scripts.core import report  # noqa: E402  (the line above is what makes it importable)
from scripts.core.errors import ShipError, UsageError, did_you_mean  # noqa: E402

GROUPS = {
    "try it": ["demo", "up", "test"],
    "deliver": ["deliver", "build", "deploy", "smoke", "rollout"],
    "operate": ["status", "history", "logs", "promote", "rollback", "hold", "resume"],
}
VERBS = [verb for verbs in GROUPS.values() for verb in verbs]


def main(argv: list[str]) -> int:
    """Run one verb.

    Args:
        argv: the command line without the program's name.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad usage or configuration, 3 refused, 130 interrupted.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if argv[0] not in VERBS:
        return _unknown(argv[0])
    module = importlib.import_module(f"scripts.{argv[0]}")
    arguments = parser(argv[0], module).parse_args(argv[1:])
    try:
        code: int = module.run(arguments, root())
    except ShipError as error:
        if getattr(arguments, "debug", False):
            raise
        report.show_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nship: interrupted; see what is in force with: ./ship status", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read standard output has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if getattr(arguments, "debug", False):
            raise
        print(f"ship: this should not happen: {type(error).__name__}: {error}", file=sys.stderr)
        print("  -> --debug shows where; please report it", file=sys.stderr)
        return 1
    return code


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
        "./ship VERB --help tells more. --env is local unless given.",
        "exit codes: 0 done; 1 failed, and the service serves what it did before;",
        "  2 bad usage or configuration, nothing was sent; 3 refused, nothing changed",
    ]
    return "\n".join(lines)


def parser(verb: str, module: object) -> argparse.ArgumentParser:
    """The parser of one verb, from its module."""
    made = argparse.ArgumentParser(
        prog=f"ship {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--debug", action="store_true", help="show a traceback when it fails")
    module.arguments(made)  # type: ignore[attr-defined]  # every verb's file has it
    return made


def _unknown(verb: str) -> int:
    report.show_error(UsageError(f"no verb '{verb}'", did_you_mean(verb, VERBS, "verbs")))
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
