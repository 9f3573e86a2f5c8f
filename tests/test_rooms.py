"""The rooms of scripts/ and emulator/, and their imports, read from the source.

Imports inside functions and under TYPE_CHECKING count too: they couple two files as well.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.command import verbs
from tests.conftest import ROOT

# Decisions are pure computation: no files, network, processes, clock or randomness.
PURE = {
    "__future__", "collections", "copy", "dataclasses", "decimal", "enum", "functools", "itertools",
    "json", "math", "msgspec", "operator", "re", "typing",
}  # fmt: skip

Graph = dict[str, set[str]]


def files(top: str) -> dict[str, Path]:
    """Return module -> file of everything below a top-level folder."""
    found = {}
    for path in (ROOT / top).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


FILES = {**files("scripts"), **files("emulator")}


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield what code imports, each name in full: "scripts.errors.ShipError", "os"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import: {ast.unparse(node)}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def names(path: Path) -> tuple[str, ...]:
    """Return what a file imports."""
    return tuple(imported(ast.parse(path.read_text())))


def module_of(name: str) -> str | None:
    """Return the module of ours that a name is or belongs to."""
    while name not in FILES:
        name = name.rpartition(".")[0]
        if not name:
            return None
    return name


@functools.cache  # where a test asks: parsing every file takes seconds, and every worker collects
def imports() -> Graph:
    """Return module -> the modules of ours that it imports."""
    return {
        module: {found for name in names(path) if (found := module_of(name))} - {module}
        for module, path in FILES.items()
    }


def room(module: str) -> str:
    """Return the room of a module: the folder or file right below scripts/ or emulator/."""
    return ".".join(module.split(".")[:2])


def rooms(graph: Graph) -> Graph:
    found: Graph = {}
    for one, to in graph.items():
        found.setdefault(room(one), set()).update(room(two) for two in to)
    return {one: to - {one} for one, to in found.items()}


def circle(graph: Graph) -> list[str]:
    """Return one circle, its first member repeated at the end; [] if there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := visit(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_file_imports_itself_through_others() -> None:
    assert circle(imports()) == []


def test_no_room_imports_itself_through_others() -> None:
    assert circle(rooms(imports())) == []


@pytest.mark.parametrize(("top", "other"), [("scripts", "emulator"), ("emulator", "scripts")])
def test_scripts_and_emulator_never_import_each_other(top: str, other: str) -> None:
    for module, path in files(top).items():
        tops = {name.partition(".")[0] for name in names(path)}
        assert not tops & {other, "app", "tests"}, module


def test_decisions_are_pure() -> None:
    """release/ imports config/, the errors, and nothing that reads or writes."""
    for module, path in FILES.items():
        if room(module) != "scripts.release":
            continue
        for name in names(path):
            ours = module_of(name)
            if ours:
                allowed = ("scripts.release", "scripts.config", "scripts.errors")
                assert room(ours) in allowed, f"{module} imports {name}"
            else:
                assert name.partition(".")[0] in PURE, f"{module} imports {name}"


def test_no_verb_imports_another() -> None:
    rooms_of_verbs = {f"scripts.{verb.name}" for verb in verbs.VERBS}
    found = {
        (room(one), room(two))
        for one, to in imports().items()
        for two in to
        if room(one) != room(two) and room(two) in rooms_of_verbs
    }
    assert found == set()


def test_each_file_of_scripts_is_a_verb_in_the_table() -> None:
    """A verb is one line in the table, and one file or folder."""
    others = {"scripts", "scripts.__main__", "scripts.errors", "scripts.ledger"}
    shared = {
        f"scripts.{name}" for name in (
            "cloud", "command", "config", "image", "machine", "release", "service", "setup",
            "several", "template",
        )
    }  # fmt: skip
    found = {room(module) for module in FILES if module.startswith("scripts")} - others - shared
    assert found == {f"scripts.{verb.name}" for verb in verbs.VERBS}


def test_the_command_line_knows_no_cloud() -> None:
    allowed = {f"scripts.{name}" for name in ("command", "config", "errors", "ledger", "machine")}
    for module, to in imports().items():
        if room(module) == "scripts.command":
            assert {room(one) for one in to} <= allowed, module


def test_text_reaches_a_terminal_through_one_filter() -> None:
    """rich would take strings for markup, and these names of Python reach the bare streams."""
    harmless = {"rich.cells.cell_len", "rich.console.Group", "rich.spinner.Spinner"}
    for module, path in FILES.items():
        if not module.startswith("scripts.") or module == "scripts.command.terminal":
            continue
        tree = ast.parse(path.read_text())
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            # What is read does not reach a terminal.
            and not (node.attr == "buffer" and ast.unparse(node.value) == "sys.stdin")
        }
        if module in ("scripts.service.checks", "scripts.cloud.session"):
            used.discard("raw")  # of an HTTP response
        assert not used & {"__stdout__", "__stderr__", "buffer", "raw"}, module
        for_types = {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for name in imported(node)
        }
        rich = {name for name in imported(tree) if name.split(".")[0] == "rich"}
        assert rich <= harmless | for_types, module
