"""The command line: finds the verb's file and runs it."""

from __future__ import annotations

import ast
import gc
import importlib
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

# Until the handlers are set, Ctrl-C just ends the program: nothing needs cleanup yet.
signal.signal(signal.SIGINT, signal.SIG_DFL)
if __name__ == "__main__":
    # While modules are imported, garbage collection finds nothing, and takes a seventh of the time.
    gc.disable()
    # With compiled files, a start takes two thirds of the time. Images and editors set this
    # variable for other programs; git ignores the files. The local Cloud Run inherits the
    # environment.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
HOME = Path(__file__).resolve().parent.parent
sys.path[0] = str(HOME)

from scripts.command import alive, terminal, verbs  # noqa: E402  (the line above makes it importable)
from scripts.errors import ShipError, UsageError, bug, did_you_mean  # noqa: E402
from scripts.template import version  # noqa: E402

if TYPE_CHECKING:
    from scripts.command.call import Call


def main(argv: list[str]) -> int:
    """Run one verb.

    Args:
        argv: the command line without the program's name.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad usage or configuration, 3 refused, 4 differences
        found, 130 interrupted.
    """
    _open_closed_streams()
    terminal.guard()
    if argv[:1] == ["help"]:
        argv = [*argv[1:2], "--help"]
    if not argv or argv[0] in ("-h", "--help"):
        return _print(overview())
    if argv[0] == "--version":
        return _print(version.current())
    # Each import where it is needed: the help needs none of them.
    from scripts.command.call import Call

    verb, *rest = argv
    call = Call(verb, root())
    try:
        # SIGTERM acts like Ctrl-C: it deletes scratch folders, and the current traffic stays.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        alive.watch()
        code = _run_to_an_end(call, rest)
        for end in call.at_end:
            end()
        return code
    except KeyboardInterrupt:
        # A second Ctrl-C must not cut the last line off.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return _interrupted(call, rest)


def _run_to_an_end(call: Call, rest: list[str]) -> int:
    """Run the verb; show an error, whatever it is."""
    try:
        return _run(call, rest)
    except ShipError as error:
        return _fail(error, call, rest)
    except BrokenPipeError as error:
        if call.record.look is not None:
            return _fail(bug(error), call, rest)  # the goal may not be reached
        return _discard_output()
    except Exception as error:
        return _fail(bug(error), call, rest)


def _run(call: Call, rest: list[str]) -> int:
    verb = call.record.verb
    if verbs.find(verb) is None:
        names = [verb.name for verb in verbs.VERBS]
        raise UsageError(f"no verb '{verb}'", did_you_mean(verb, names, "verbs"))
    module = importlib.import_module(f"scripts.{verb}")
    from scripts.command import options

    gc.freeze()
    gc.enable()
    given = options.parse(verb, module.Options, module.__doc__, rest)
    try:
        if isinstance(given, options.ServiceOptions):
            from scripts.several import chosen

            code: int = chosen.run(module, given, call)
        else:
            code = module.run(given, call)
    except ShipError as error:
        from scripts.cloud.explain import point

        record = call.record
        if record.env is not None:
            point(error, call.root, record.service, record.env)
        raise
    return code


def _fail(error: ShipError, call: Call, rest: list[str]) -> int:
    """Show an error; return the exit code."""
    from scripts.command import failure
    from scripts.command.github import json_text

    if "--debug" in rest:
        import traceback

        traceback.print_exception(error)
    error = failure.complete(error, call.record)
    failure.show(error, call.record)
    if _wants_json(rest) and not call.has_shown:
        _print(json_text(failure.document(error, call.record), indent=2))
    return error.exit_code


def _interrupted(call: Call, rest: list[str]) -> int:
    """Say what an interrupted verb has written; return the exit code."""
    from scripts.command import failure
    from scripts.command.github import json_text

    error = failure.interrupted(call.record)
    print(f"\nship: {error.message}", file=sys.stderr)
    if _wants_json(rest) and not call.has_shown:
        _print(json_text(failure.document(error, call.record), indent=2))
    return error.exit_code


def _wants_json(rest: list[str]) -> bool:
    """Return whether a program reads the output. Does not parse the options, which may be wrong."""
    return "--format=json" in rest or ("--format", "json") in pairwise(rest)


def _print(text: str) -> int:
    """Print on standard output, whether or not it is still read; return the exit code 0."""
    try:
        print(text, flush=True)
    except OSError:
        return _discard_output()
    return 0


def _discard_output() -> int:
    """Forget standard output, whose reader has gone; return the exit code 0."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _open_closed_streams() -> None:
    """Replace a closed standard output or error by one that discards everything."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for good)


def root() -> Path:
    """Return the project: the nearest folder upwards with pipelines/, else this program's own."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "pipelines").is_dir()), HOME)


def overview() -> str:
    """Return the text of `ship --help`: every verb with its first line."""
    lines = ["usage: ./ship VERB [SERVICE ...] [--env ENV] [options]"]
    group = ""
    for verb in verbs.VERBS:
        if verb.group != group:
            group = verb.group
            lines += ["", f"{group}:"]
        lines.append(f"  {verb.name:<10} {_first_line(verb.name)}")
    lines += [
        "",
        "./ship help VERB lists a verb's options; ./ship --version prints the version.",
        "--env is local by default, but production for init, and bootstrap always needs it; demo,",
        "  trial, rehearse, up, test, check and upgrade do not have it.",
        "Exit codes: 0 done; 1 failed, and the last line says what is live; 2 bad usage or",
        "  configuration, nothing was written; 3 refused, nothing changed; 4 differences found",
        "  (plan, upgrade --check); 130 interrupted, the current traffic stays in force",
    ]
    return "\n".join(lines)


def _first_line(verb: str) -> str:
    """Return the first line of a verb's docstring, without an import, which would be slow."""
    file = HOME / "scripts" / f"{verb}.py"
    if not file.is_file():
        file = HOME / "scripts" / verb / "__init__.py"
    # Not cleaned up: that would import inspect, which takes longer than all the rest.
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documentation = ast.get_docstring(tree, clean=False) or ""
    return documentation.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
