"""Read and check pipelines/services.yaml: which service calls which, and what they share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import msgspec

from scripts.config import limits
from scripts.config.formats import Services, Variable
from scripts.config.pipelines import Pipeline, environments, load, services
from scripts.config.yamlfile import YamlFile, description
from scripts.errors import UsageError, did_you_mean

FILE = "pipelines/services.yaml"
_NONE: Mapping[str, Pipeline] = MappingProxyType({})


class Relations(msgspec.Struct, frozen=True, kw_only=True):
    """How the services of a repository relate to each other.

    Attributes:
        calls: service → the service that it calls → the variable that gets the callee's URL.
        shared: folder → the services that a change in it delivers.
    """

    calls: Mapping[str, Mapping[str, str]] = {}
    shared: Mapping[str, Sequence[str]] = {}

    def contexts(self, name: str) -> dict[str, str]:
        """Return the shared folders that a service's Dockerfile can copy from: name → folder."""
        return {_context(folder): folder for folder, names in self.shared.items() if name in names}

    def callees(self, name: str) -> list[str]:
        """Return the services that a service calls itself, sorted."""
        return sorted(self.calls.get(name, ()))

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Return services with callees before their callers, otherwise by name.

        A callee that is not among them is left out, but what it calls still comes first.
        """
        wanted = set(names)
        order: dict[str, None] = {}

        def visit(name: str) -> None:
            if name not in order:
                for callee in self.callees(name):
                    visit(callee)
                order[name] = None

        for name in sorted(wanted):
            visit(name)
        return [name for name in order if name in wanted]


def read(root: Path) -> Relations:
    """Read and check pipelines/services.yaml; without the file, nothing is related.

    Args:
        root: the folder that holds pipelines/.

    Raises:
        UsageError: the file is wrong; names the line and the key.
    """
    if not (root / FILE).exists():
        return Relations()
    file = YamlFile(root / FILE, FILE)
    if file.data is None:
        return Relations()
    written = file.decode(Services)
    known = services(root)
    calls = {
        service: _callees(file, known, service, callees)
        for service, callees in written.calls.items()
    }
    _check_cycles(file, calls)
    shared: dict[str, Sequence[str]] = {}
    for folder, names in written.shared.items():
        path: list[str | int] = ["shared", folder]
        for index, name in enumerate(names):
            _check_known(file, [*path, index], name, known)
        plain = _folder(file, path, root, folder)
        _check_context(file, path, plain, names, shared)
        shared[plain] = names
    return Relations(calls=calls, shared=shared)


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """A service that another one calls in an environment.

    Attributes:
        pipeline: the callee's files in that environment.
        variable: the caller's variable that gets its URL.
    """

    pipeline: Pipeline
    variable: str

    def region(self, callers: str) -> str:
        """Return where a caller's region calls it: there, or in the callee's first region."""
        regions = self.pipeline.environment.regions
        return callers if callers in regions else regions[0]


def calls_of(
    pipeline: Pipeline, related: Relations | None = None, known: Mapping[str, Pipeline] = _NONE
) -> list[Called]:
    """Return the services that one calls in its environment, by name.

    Args:
        pipeline: the caller's files.
        related: what services.yaml says, if it has been read.
        known: the files of services in the same environment that have been read, by name.

    Raises:
        UsageError: the file is wrong, a callee lacks the environment, or the service's own files
            set the variable as well.
    """
    root, env = pipeline.root, pipeline.env
    calls = (related or read(root)).calls.get(pipeline.service)
    if not calls:
        return []
    own = _own_variables(pipeline)
    found = []
    for callee, variable in sorted(calls.items()):
        files = known.get(callee)
        if files is None and env not in (has := environments(root, callee)):
            raise _error(
                pipeline,
                callee,
                f"{pipeline.service} calls {callee}, which has no environment '{env}':"
                f" pipelines/{callee}/{env}.yaml does not exist",
                did_you_mean(env, has, f"environments of {callee}"),
            )
        if variable in own:
            raise _error(
                pipeline,
                callee,
                f"{variable} is set by {own[variable]} as well",
                f"remove it there, or give this one another name: {callee}: OTHER_NAME",
            )
        files = files or load(root, callee, env, checkout=pipeline.checkout)
        found.append(Called(pipeline=files, variable=variable))
    return found


def _error(pipeline: Pipeline, callee: str, what: str, hint: str) -> UsageError:
    """Make the error about one call; the file is valid by itself."""
    file = YamlFile(pipeline.root / FILE, FILE)
    return file.error(_path(file, pipeline.service, callee), what, hint)


def callers_of(pipeline: Pipeline) -> list[Pipeline]:
    """Return the services that call one in its environment, by name.

    Raises:
        UsageError: a file is wrong.
    """
    root, env = pipeline.root, pipeline.env
    callers = [name for name, calls in read(root).calls.items() if pipeline.service in calls]
    return [
        load(root, name, env, checkout=pipeline.checkout)
        for name in sorted(callers)
        if env in environments(root, name)
    ]


def _callees(
    file: YamlFile, known: list[str], service: str, callees: list[str] | dict[str, str]
) -> dict[str, str]:
    """Check what one service calls; return callee → variable."""
    _check_known(file, ["calls", service], service, known)
    named = isinstance(callees, dict)
    found: dict[str, str] = {}
    for index, callee in enumerate(callees):
        path: list[str | int] = ["calls", service, callee if named else index]
        _check_known(file, path, callee, known)
        if callee == service:
            raise file.error(path, f"{service} calls itself", "remove it")
        if callee in found:
            raise file.error(path, f"'{callee}' appears twice", "remove one")
        variable = callees[callee] if isinstance(callees, dict) else _variable(callee)
        _check_variable(file, path, variable)
        if variable in found.values():
            other = next(one for one, name in found.items() if name == variable)
            raise file.error(path, f"{variable} is already the URL of {other}")
        found[callee] = variable
    return found


def _variable(callee: str) -> str:
    return f"{callee.upper().replace('-', '_')}_URL"


def _check_variable(file: YamlFile, path: list[str | int], variable: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise file.error(path, f"'{variable}' is not {description(Variable)}")
    if limits.is_reserved(variable):
        raise file.error(path, f"Cloud Run sets {variable} itself", "give another name")


def _check_known(file: YamlFile, path: list[str | int], name: str, known: list[str]) -> None:
    if name not in known:
        raise file.error(
            path,
            f"no service '{name}': pipelines/{name}/service.yaml does not exist",
            did_you_mean(name, known, "services here"),
        )


def _path(file: YamlFile, service: str, callee: str) -> list[str | int]:
    """Return where the file says that a service calls another."""
    written = file.data["calls"][service]
    step = written.index(callee) if isinstance(written, list) else callee
    return ["calls", service, step]


def _check_cycles(file: YamlFile, calls: Mapping[str, Mapping[str, str]]) -> None:
    clear: set[str] = set()

    def follow(way: list[str]) -> None:
        for callee in calls.get(way[-1], ()):
            if callee in way:
                cycle = [*way[way.index(callee) :], callee]
                raise file.error(
                    _path(file, way[-1], callee),
                    f"the services call each other in a circle: {' -> '.join(cycle)}",
                    "a callee is delivered before its caller: remove one of these calls",
                )
            if callee not in clear:
                follow([*way, callee])
        clear.add(way[-1])

    for service in calls:
        follow([service])


def _folder(file: YamlFile, path: list[str | int], root: Path, folder: str) -> str:
    """Check a shared folder; return it in its shortest form, without a slash at the end."""
    hint = "name a folder of this repository, relative to its root"
    plain = PurePosixPath(folder)
    if plain.is_absolute() or ".." in plain.parts or not plain.parts:
        raise file.error(path, f"'{folder}' is not a folder inside the repository", hint)
    resolved = (root / plain).resolve()
    if not resolved.is_relative_to(root.resolve()):
        raise file.error(path, f"{plain} is a link that leads outside the repository", hint)
    if not resolved.is_dir():
        what = "is not a folder" if resolved.exists() else "does not exist"
        raise file.error(path, f"{plain} {what}", hint)
    inside = resolved.relative_to(root.resolve())
    if str(inside) != str(plain):
        # git sees a change of the link only, not of the files behind it.
        raise file.error(path, f"{plain} is a link", f"name the folder itself: {inside}")
    return str(plain)


def _context(folder: str) -> str:
    """Return the name of a shared folder in Dockerfiles, where names are in lower case."""
    return PurePosixPath(folder).name.lower()


def _check_context(
    file: YamlFile,
    path: list[str | int],
    folder: str,
    names: Sequence[str],
    others: Mapping[str, Sequence[str]],
) -> None:
    """Check that a Dockerfile can name a shared folder by the last part of its path."""
    if folder in others:
        raise file.error(path, f"the folder {folder} appears twice")
    if not re.fullmatch(r"[a-z][a-z0-9_.-]*", _context(folder)):
        raise file.error(
            path,
            f"'{PurePosixPath(folder).name}' cannot be a name in a Dockerfile",
            "rename the folder: letters, digits, hyphens, dots and underscores, a letter first",
        )
    for other, theirs in others.items():
        both = [name for name in names if name in theirs]
        if both and _context(other) == _context(folder):
            raise file.error(
                path,
                f"{both[0]} also uses {other}, and COPY --from={_context(folder)} would mean both",
                "rename one of the two folders",
            )


def _own_variables(pipeline: Pipeline) -> dict[str, str]:
    """Return the variables that a service's own files give its serving container → the file."""
    containers = _containers(pipeline.manifest)
    serving = next((one for one in containers if one.get("ports")), containers[0])
    found = {}
    for name, group in (("service", [serving]), (pipeline.env, _containers(pipeline.overlay))):
        for container in group:
            if container is serving or container.get("name") == serving.get("name"):
                for variable in container.get("env") or []:
                    found[variable["name"]] = f"pipelines/{pipeline.service}/{name}.yaml"
    return found


def _containers(service: dict[str, Any]) -> list[dict[str, Any]]:
    template = (service.get("spec") or {}).get("template") or {}
    return (template.get("spec") or {}).get("containers") or []
