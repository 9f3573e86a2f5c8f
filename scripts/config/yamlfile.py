"""Read YAML files into typed objects, with errors that name the file, line and key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
import yaml

from scripts.config import yamlload
from scripts.errors import UsageError, did_you_mean

T = TypeVar("T")

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_MESSAGE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<at>(?:key in )?\$[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.+)`")


class YamlFile:
    """One YAML document and the line of each key.

    Args:
        path: the file.
        name: how errors name it (default: the path itself).
        loader_type: the loader that decides how plain scalars are read.

    Raises:
        UsageError: the file is missing, unreadable, not YAML, beyond the limits, or has a key
            twice.
    """

    def __init__(
        self,
        path: Path,
        name: str | None = None,
        loader_type: type[yamlload.Loader] = yamlload.Loader,
    ) -> None:
        self.name = name or str(path)
        self.text = ""
        try:
            self.text = yamlload.text_of(_read(path))
            loader = loader_type(self.text)
            try:
                self.root = loader.get_single_node()
                self.data: Any = (
                    loader.construct_document(self.root) if self.root is not None else None
                )
            finally:
                loader.dispose()
        except FileNotFoundError:
            raise UsageError(f"{self.name}: no such file") from None
        except OSError as error:
            raise UsageError(f"{self.name}: cannot be read: {error}") from None
        except yaml.YAMLError as error:
            raise refusal(self.name, self.text, error) from None

    def line(self, path: list[str | int], *, of_key: str | None = None) -> int:
        """Return the line (from 1) of the value at `path`, or of the key `of_key` inside it."""
        node = self.root
        line = 1
        for step in [*path, *([of_key] if of_key is not None else [])]:
            if isinstance(node, yaml.MappingNode):
                found = next((kv for kv in node.value if kv[0].value == str(step)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                if step >= len(node.value):
                    break
                node = node.value[step]
                line = node.start_mark.line + 1
        return line

    def error(self, path: list[str | int], what: str, hint: str | None = None) -> UsageError:
        """Make an error about the value at `path` that names the file, line and key."""
        return UsageError(f"{self.name}:{self.line(path)}: {dotted(path)}: {what}", hint)

    def decode(self, type_: type[T], data: Any = None, at: list[str | int] | None = None) -> T:
        """Convert the document to a type.

        Args:
            type_: the type.
            data: a part of the document; None for all of it.
            at: the path of that part.

        Raises:
            UsageError: a key is unknown, missing or of the wrong type.
        """
        value = self.data if data is None else data
        try:
            return msgspec.convert(value, type_, strict=True)
        except msgspec.ValidationError as error:
            raise self._explain(str(error), type_, list(at or []), value) from None

    def _explain(self, message: str, type_: Any, prefix: list[str | int], value: Any) -> UsageError:
        match = _MESSAGE.match(message)
        what = match["what"] if match else message
        path, found_type = _walk(match["at"] if match else None, type_, value)
        unknown = _UNKNOWN.match(what)
        if unknown:
            key = unknown[1]
            meant = did_you_mean(key, fields(_plain_type(found_type)))
            where = [*prefix, *path]
            line = self.line(where, of_key=key)
            return UsageError(f"{self.name}:{line}: {dotted([*where, key])}: unknown key; {meant}")
        return self.error([*prefix, *path], _plain(what, found_type))


def refusal(name: str, text: str, error: yaml.YAMLError) -> UsageError:
    """Make the error for YAML that cannot be loaded; it names the file and the line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if "cannot start any token" in problem and "\t" in text:
        problem = "a tab; YAML allows only spaces"
    if not isinstance(error, yamlload.Unsafe):
        problem = f"not valid YAML: {problem}"
    return UsageError(f"{name}{f':{mark.line + 1}' if mark else ''}: {problem}")


def dotted(path: list[str | int]) -> str:
    """Return a path in dotted form: `rollout.steps[0]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.lstrip(".") or "the file"


def description(type_: Any) -> str | None:
    """Return the description of an `Annotated[...]` type, optional or not."""
    for candidate in (type_, *get_args(type_)):
        for meta in getattr(candidate, "__metadata__", ()):
            if meta.description:
                return str(meta.description)
    return None


def fields(type_: Any) -> list[str]:
    """Return the keys that a type has in YAML."""
    for candidate in (type_, *get_args(type_)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return [field.encode_name for field in msgspec.structs.fields(candidate)]
    return []


def _read(path: Path) -> bytes:
    """Read no more of a file than shows that it is too large."""
    if path.exists() and not path.is_file():
        raise OSError("not a file")
    with path.open("rb") as file:
        return file.read(yamlload.MOST_BYTES + 1)


def _walk(at: str | None, type_: Any, value: Any) -> tuple[list[str | int], Any]:
    """Follow msgspec's `$.a[0].b` through value and types. `[...]` stands for a mapping's key."""
    path: list[str | int] = []
    for name, index in _STEP.findall(at or ""):
        type_ = _plain_type(type_)
        if index == "...":
            # msgspec does not name the key: it is the first whose value does not fit.
            inner = (_part(type_, dict) or (Any,))[-1]
            key = next((k for k, v in value.items() if not _fits(v, inner)), None)
            if key is None:
                break
            path.append(key)
            type_, value = inner, value[key]
        elif index:
            path.append(int(index))
            type_ = (_part(type_, list) or (Any,))[0]
            value = value[int(index)] if isinstance(value, list) else None
        else:
            path.append(name)
            if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
                field = {f.encode_name: f for f in msgspec.structs.fields(type_)}.get(name)
                type_ = field.type if field else Any
            value = value.get(name) if isinstance(value, dict) else None
    return path, type_


def _part(type_: Any, container: type) -> tuple[Any, ...]:
    """Return what a list or mapping holds, also where the type is a union of both."""
    kinds = [one for one in get_args(type_) if get_origin(one) is container]
    return get_args(kinds[0] if kinds and get_origin(type_) is not container else type_)


def _fits(value: Any, type_: Any) -> bool:
    try:
        msgspec.convert(value, type_, strict=True)
    except msgspec.ValidationError:
        return False
    return True


def _plain_type(type_: Any) -> Any:
    """Return a type without `Annotated[...]` and `... | None`."""
    while True:
        arguments = get_args(type_)
        if hasattr(type_, "__metadata__"):
            type_ = arguments[0]
        elif type(None) in arguments:
            type_ = next(a for a in arguments if a is not type(None))
        else:
            return type_


def _choices(type_: Any) -> list[Any]:
    """Return the values of a `Literal`, alone or in a union."""
    plain = _plain_type(type_)
    if get_origin(plain) is Literal:
        return [*get_args(plain)]
    return [
        value for one in get_args(plain) if get_origin(one) is Literal for value in get_args(one)
    ]


def _plain(what: str, type_: Any) -> str:
    """Translate a message of msgspec into the terms of YAML, with the type's description."""
    missing = re.match(r"Object missing required field `(.+)`", what)
    if missing:
        return f"missing key '{missing[1]}'"
    value = re.match(r"Invalid enum value '?(.*?)'?$", what)
    if value:
        known = [str(choice) for choice in _choices(type_)]
        return f"unknown value '{value[1]}'; {did_you_mean(value[1], known)}"
    if "matching regex" in what:
        return f"not valid: expected {description(type_) or what}"
    if choices := _choices(type_):
        what = what.replace("`int | str`", f"a whole number or {', '.join(choices)}")
    what = re.sub(r"`([\w| ]+) \| null`", r"`\1`", what).replace("int | str", "str")
    what = what.replace("`object | array`", "a list or a mapping")
    for python, plain in (("array", "a list"), ("object", "a mapping"), ("str", "text")):
        what = what.replace(f"`{python}`", plain)
    for python, plain in (
        ("int", "a whole number"),
        ("bool", "true or false"),
        ("null", "nothing"),
    ):
        what = what.replace(f"`{python}`", plain)
    if re.search("Expected text, got (a whole|true|`float)", what):
        what += " (put it in quotes)"
    return what[0].lower() + what[1:]
