"""The containers of a service together: what Cloud Run takes. Pure: a service in, problems out.

Sources: https://cloud.google.com/run/docs/deploying#sidecars (one container has a port, at most ten
containers, the order), https://github.com/GoogleCloudPlatform/cloud-run-samples/issues/230 (what
others depend on needs a startup probe), and `limits` for the most that one instance can have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from scripts.config.limits import Path, Problem, cpu_of, memory_of
from scripts.errors import did_you_mean

DEPENDENCIES = "run.googleapis.com/container-dependencies"
_MOST, _MOST_CPU, _MOST_GI = 10, 8, 32
_CONTAINERS: Path = ["spec", "template", "spec", "containers"]
_ANNOTATIONS: Path = ["spec", "template", "metadata", "annotations"]
_NEEDS: Path = [*_ANNOTATIONS, DEPENDENCIES]


def problems(service: dict[str, Any]) -> Iterator[Problem]:
    """Yield every problem of a service's containers together.

    Args:
        service: the manifest with the environment's overlay, of the shape that `knative` checks,
            without nulls.
    """
    template = service["spec"]["template"]
    containers = template["spec"]["containers"]
    if len(containers) > 1:
        yield from _together(containers)
    text = ((template.get("metadata") or {}).get("annotations") or {}).get(DEPENDENCIES)
    if text:
        yield from _order(text, containers)


def _together(containers: list[dict[str, Any]]) -> Iterator[Problem]:
    if len(containers) > _MOST:
        found = f"an instance has at most {_MOST} containers, not {len(containers)}"
        yield Problem(path=[*_CONTAINERS, _MOST], found=found, write="")
    serving = [index for index, one in enumerate(containers) if one.get("ports")]
    if not serving:
        found = "no container has a port, so Cloud Run does not know which one takes the requests"
        write = "ports: [{containerPort: 8080}] into that one"
        yield Problem(path=[*_CONTAINERS, 0], found=found, write=write)
    for index in serving[1:]:
        found = f"only one container has a port, and container {serving[0] + 1} has one already"
        yield Problem(path=[*_CONTAINERS, index, "ports"], found=found, write="")
    names: set[str] = set()
    for index, one in enumerate(containers):
        if (name := one.get("name")) in names:
            path = [*_CONTAINERS, index, "name"]
            yield Problem(path=path, found=f"{name} is the name of two", write="name: another")
        names |= {name} if name else set()
        if not one.get("ports"):
            yield from _sidecar_probes(one, index)
    yield from _sums(containers)


def _sidecar_probes(container: dict[str, Any], index: int) -> Iterator[Problem]:
    for kind in ("startupProbe", "livenessProbe"):
        probe = container.get(kind)
        if probe is None:
            continue
        action = next((a for a in ("httpGet", "tcpSocket", "grpc") if a in probe), "tcpSocket")
        if not (probe.get(action) or {}).get("port"):
            yield Problem(
                path=[*_CONTAINERS, index, kind],
                found="a sidecar has no port of its own, so its probe must name one",
                write=f"{action}: {{port: …}} below it",
            )


def _sums(containers: list[dict[str, Any]]) -> Iterator[Problem]:
    cpu = sum(cpu_of(one) or 0 for one in containers)
    memory = sum(memory_of(one) or 0 for one in containers) / 2**30
    for name, whole, most, unit in (
        ("cpu", cpu, _MOST_CPU, "CPU"),
        ("memory", memory, _MOST_GI, "Gi"),
    ):
        if whole > most:
            yield Problem(
                path=[*_CONTAINERS, 0, "resources", "limits", name],
                found=f"all containers together have {whole:g} {unit}, and an instance {most}",
                write="less, here or in another container",
                refused=False,
            )


def _order(text: str, containers: list[dict[str, Any]]) -> Iterator[Problem]:
    shown = f'{DEPENDENCIES}: \'{{"app":["proxy"]}}\''
    try:
        needs = json.loads(text)
    except (ValueError, RecursionError):
        needs = None
    lists = needs.values() if isinstance(needs, dict) else [None]
    if not all(isinstance(one, list) and all(isinstance(n, str) for n in one) for one in lists):
        found = f"'{text[:80]}' is not JSON that names containers"
        yield Problem(path=[*_NEEDS], found=found, write=shown)
        return
    named = {one["name"]: one for one in containers if one.get("name")}
    for name in dict.fromkeys([*needs, *(n for listed in needs.values() for n in listed)]):
        if name not in named:
            meant = did_you_mean(name, [*named], "containers")
            yield Problem(path=[*_NEEDS], found=f"no container '{name}'", write=f"a name; {meant}")
        elif any(name in listed for listed in needs.values()):
            yield from _probed(name, containers)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        found = f"none of {' -> '.join(error.args[1])} could start first"
        yield Problem(path=[*_NEEDS], found=found, write="an order without a circle")


def _probed(name: str, containers: list[dict[str, Any]]) -> Iterator[Problem]:
    """Yield what is missing in a container that others depend on."""
    index = next(n for n, one in enumerate(containers) if one.get("name") == name)
    # The container with a port has a default probe.
    if not containers[index].get("ports") and "startupProbe" not in containers[index]:
        yield Problem(
            path=[*_CONTAINERS, index],
            found=f"others start after {name}, so it needs a startup probe",
            write=f"startupProbe: {{tcpSocket: {{port: …}}}} into {name}",
        )
