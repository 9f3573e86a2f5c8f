"""The values that Cloud Run takes in a service. Pure: a service in, its problems out.

The file's shape is checked before (`knative`). Sources, for each rule:
https://cloud.google.com/run/docs/configuring/services/cpu (CPU, and memory for it),
https://cloud.google.com/run/docs/configuring/services/memory-limits (units, and the least memory),
https://cloud.google.com/run/docs/configuring/concurrency, /request-timeout, /min-instances,
https://cloud.google.com/run/docs/configuring/healthchecks (ports of probes, 240 s to start) and
https://cloud.google.com/run/docs/container-contract (the port; the variables that are reserved).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from scripts.errors import did_you_mean

Path = list[str | int]

DEFAULT_PORT = 8080
RESERVED = ("PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION")

_MI, _GI = 2**20, 2**30
_BINARY = {"Ki": 2**10, "Mi": _MI, "Gi": _GI}
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, **_BINARY}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
_CPUS = (1, 2, 4, 6, 8)
# CPU: the least and the most memory. CPUs below 1 are in the last lines of the table.
_MEMORY = {
    8: (4 * _GI, 32 * _GI),
    6: (4 * _GI, 24 * _GI),
    4: (2 * _GI, 16 * _GI),
    2: (128 * _MI, 8 * _GI),
    1: (128 * _MI, 4 * _GI),
    0.5: (128 * _MI, 1 * _GI),
    0.08: (128 * _MI, 512 * _MI),
}
_LIMITS = ["cpu", "memory", "nvidia.com/gpu"]
_MOST_REQUESTS, _MOST_SECONDS, _SECONDS_TO_START = 1000, 3600, 240
_SCALES: tuple[tuple[Path, str], ...] = (
    (["spec", "template", "metadata", "annotations"], "autoscaling.knative.dev"),
    (["metadata", "annotations"], "run.googleapis.com"),
)
_GENERATION = "run.googleapis.com/execution-environment"
_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A value that Cloud Run refuses, or with which the service cannot work.

    Attributes:
        path: the value's keys in the service.
        found: the problem.
        write: what to write there instead, in YAML; "" to remove the line.
        refused: whether Cloud Run certainly refuses it.
    """

    path: Path
    found: str
    write: str
    refused: bool = True


def is_reserved(variable: str) -> bool:
    """Return whether Cloud Run lets no one set a variable.

    Source: https://cloud.google.com/run/docs/configuring/services/overview-environment-variables
    """
    return variable in RESERVED or variable.startswith("X_GOOGLE_")


def port_of(container: dict[str, Any]) -> int:
    """Return the port that Cloud Run sends a container's requests to, and sets PORT to."""
    ports = container.get("ports") or [{}]
    return int(ports[0].get("containerPort") or DEFAULT_PORT)


def problems(service: dict[str, Any]) -> Iterator[Problem]:
    """Yield every value of a service that Cloud Run does not take.

    Args:
        service: the manifest with the environment's overlay, of the shape that `knative` checks,
            without nulls.
    """
    template = service["spec"]["template"]
    spec = template["spec"]
    where: Path = ["spec", "template", "spec"]
    for path, prefix in _SCALES:
        yield from _scales(service, path, prefix)
    for key, least, most in (
        ("containerConcurrency", 0, _MOST_REQUESTS),  # 0 stands for the default
        ("timeoutSeconds", 1, _MOST_SECONDS),
    ):
        value = spec.get(key, least)
        if not least <= value <= most:
            nearest = max(1, min(value, most))
            yield _problem([*where, key], f"{value} is not 1 to {most}", f"{key}: {nearest}")
    for index, container in enumerate(spec["containers"]):
        at: Path = [*where, "containers", index]
        yield from _ports(container, at)
        yield from _variables(container, at)
        yield from _probes(container, at, alone=len(spec["containers"]) == 1)
        yield from _resources(container, at, template)


def _problem(path: Path, found: str, write: str, *, refused: bool = True) -> Problem:
    return Problem(path=path, found=found, write=write, refused=refused)


def _scales(service: dict[str, Any], path: Path, prefix: str) -> Iterator[Problem]:
    annotations: Any = service
    for key in path:
        annotations = (annotations or {}).get(key)
    numbers = {}
    for name, least in ((f"{prefix}/minScale", 0), (f"{prefix}/maxScale", 1)):
        text = (annotations or {}).get(name)
        if text is None:
            continue
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
            found = f"'{text}' is not a number from {least}"
            yield _problem([*path, name], found, f'{name}: "{least}"')
        else:
            numbers[name] = int(text)
    if len(numbers) == 2:
        (low, minimum), (high, maximum) = numbers.items()
        if minimum > maximum:
            found = f"{minimum} is more than {high}, {maximum}"
            yield _problem([*path, low], found, f'{low}: "{maximum}"')


def _ports(container: dict[str, Any], at: Path) -> Iterator[Problem]:
    ports = container.get("ports") or []
    if len(ports) > 1:
        yield _problem([*at, "ports", 1], "a container has only one port", "")
    port = port_of(container)
    if not 1 <= port <= 65535:
        path = [*at, "ports", 0, "containerPort"]
        yield _problem(path, f"{port} is not 1 to 65535", f"containerPort: {DEFAULT_PORT}")


def _variables(container: dict[str, Any], at: Path) -> Iterator[Problem]:
    names: set[str] = set()
    for index, variable in enumerate(container.get("env") or []):
        name = variable["name"]
        path: Path = [*at, "env", index, "name"]
        if is_reserved(name):
            instead = "; the port is ports[0].containerPort" if name == "PORT" else ""
            yield _problem(path, f"Cloud Run sets {name} itself{instead}", "")
        elif name in names:
            yield _problem(path, f"{name} is set twice", "")
        names.add(name)


def _probes(container: dict[str, Any], at: Path, *, alone: bool) -> Iterator[Problem]:
    port = port_of(container)
    listens = alone or container.get("ports")
    for kind in _PROBES:
        probe = container.get(kind) or {}
        for action in ("httpGet", "tcpSocket", "grpc"):
            asked = (probe.get(action) or {}).get("port")
            if listens and asked is not None and asked != port:
                # A container can listen on a second port, so Cloud Run takes it: the probe fails.
                yield _problem(
                    [*at, kind, action, "port"],
                    f"it asks port {asked}, but the container's port is {port}",
                    f"port: {port}",
                    refused=False,
                )
        period, wait = probe.get("periodSeconds", 10), probe.get("timeoutSeconds", 1)
        if wait > period:
            found = f"{wait} s is more than periodSeconds, {period}"
            yield _problem([*at, kind, "timeoutSeconds"], found, f"timeoutSeconds: {period}")
        times = probe.get("failureThreshold", 3)
        if kind == "startupProbe" and period * times > _SECONDS_TO_START:
            yield _problem(
                [*at, kind, "failureThreshold"],
                f"{times} times {period} s is more than {_SECONDS_TO_START} s,"
                " the longest time to start",
                f"failureThreshold: {max(1, _SECONDS_TO_START // period)}",
            )


def _resources(container: dict[str, Any], at: Path, template: dict[str, Any]) -> Iterator[Problem]:
    limits = (container.get("resources") or {}).get("limits") or {}
    path: Path = [*at, "resources", "limits"]
    for name in limits:
        if name not in _LIMITS:
            yield _problem([*path, name], f"unknown key; {did_you_mean(name, _LIMITS)}", "")
    cpu = _cpu(limits.get("cpu"))
    if cpu is None:
        text = limits["cpu"]
        found = f"'{text}' is not {', '.join(map(str, _CPUS[:-1]))} or {_CPUS[-1]}, or 0.08 to 1"
        yield _problem([*path, "cpu"], found, f'cpu: "{_nearest_cpu(text)}"')
    memory = _amount(limits.get("memory", "512Mi"), _UNITS)
    if memory is None:
        text = str(limits["memory"])
        found = f"'{text}' is not a quantity: the units are Mi, Gi, M and G"
        yield _problem([*path, "memory"], found, f"memory: {_nearest_memory(text)}")
    if cpu is None or memory is None:
        return
    low, high = next(span for least, span in _MEMORY.items() if cpu >= least)
    if _annotations(template).get(_GENERATION) == "gen2":
        low = max(low, 512 * _MI)
    given = limits.get("memory", "512Mi (the default)")
    if memory < low:
        key = "memory" if "memory" in limits else "cpu"
        also = "" if key == "memory" else f"{_line('cpu', limits)}, and a line "
        found = f"{given} is less than {cpu:g} CPU need, {_shown(low)}"
        yield _problem([*path, key], found, f"{also}memory: {_shown(low)}")
    elif memory > high:
        enough = next((one for one in _CPUS if memory <= _MEMORY[one][1]), None)
        found = f"{given} is more than {cpu:g} CPU can have, {_shown(high)}"
        write = f"memory: {_shown(high)}"
        if enough:
            write += f', or cpu: "{enough}"'
        yield _problem([*path, "memory"], found, write)
    if cpu < 1:
        yield from _fraction(path, cpu, template)


def _fraction(path: Path, cpu: float, template: dict[str, Any]) -> Iterator[Problem]:
    """Yield what does not go with less than one CPU."""
    annotations = _annotations(template)
    if (template["spec"].get("containerConcurrency") or 1) > 1:
        found = f"one request at a time with less than one CPU ({cpu:g})"
        where: Path = ["spec", "template", "spec", "containerConcurrency"]
        yield _problem(where, found, "containerConcurrency: 1")
    for name, value, meaning in (
        ("run.googleapis.com/cpu-throttling", "false", "CPU that is always allocated"),
        (_GENERATION, "gen2", "the second generation"),
    ):
        if str(annotations.get(name)) == value:
            yield _problem([*path, "cpu"], f"{meaning} needs one CPU or more", 'cpu: "1"')


def _annotations(template: dict[str, Any]) -> dict[str, Any]:
    return (template.get("metadata") or {}).get("annotations") or {}


def _amount(value: Any, units: dict[str, int]) -> float | None:
    found = _QUANTITY.fullmatch(str(value))
    if found is None or found[2] not in units:
        return None
    return float(found[1]) * units[found[2]]


def _cpu(value: Any) -> float | None:
    """Return how many CPUs a limit means, by default one; None if Cloud Run has no such number."""
    text = "1" if value is None else str(value)
    cpu = _amount(text, {"": 1}) or (_amount(text, {"m": 1}) or 0) / 1000
    return cpu if cpu in _CPUS or 0.08 <= cpu <= 1 else None


def _nearest_cpu(value: Any) -> int:
    found = re.match(r"[0-9]+(\.[0-9]+)?", str(value))
    wanted = float(found[0]) / (1000 if str(value).endswith("m") else 1) if found else 1
    return next((one for one in _CPUS if one >= wanted), _CPUS[-1])


def _nearest_memory(text: str) -> str:
    found = re.match(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]?)", text)
    unit = {"g": "Gi", "k": "Ki"}.get(found[2].lower(), "Mi") if found else ""
    return f"{found[1]}{unit}" if found else "512Mi"


def _shown(size: float) -> str:
    return f"{size / _GI:g}Gi" if size >= _GI else f"{size / _MI:g}Mi"


def _line(key: str, limits: dict[str, Any]) -> str:
    return f'{key}: "{limits[key]}"'
