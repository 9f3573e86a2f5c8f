"""The rules for a revision's containers together: their number, ports, names and dependencies.

Sources: https://cloud.google.com/run/docs/deploying#sidecars (one container has a port, at most ten
containers, the annotation), and messages as Cloud Run's users quote them:
https://github.com/GoogleCloudPlatform/cloud-run-samples/issues/230 (a startup probe is missing),
https://github.com/hashicorp/terraform-provider-google/issues/21035 (a name; names that are left
out). The texts about unknown containers, cycles, duplicates and the number are Shipway's.
"""

from __future__ import annotations

import json
import re
from graphlib import CycleError, TopologicalSorter
from typing import Any

from emulator.errors import invalid
from emulator.run import schema

ANNOTATION = "run.googleapis.com/container-dependencies"
_MOST = 10
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_FIELD = f"spec.template.metadata.annotations[{ANNOTATION}]"
_WHERE = "spec.template.spec.containers"
_VOLUMES = "spec.template.spec.volumes"
# Source: https://cloud.google.com/run/docs/configuring/services/in-memory-volume-mounts.
_NOT_MOUNTED = re.compile(r"/(dev|proc|sys)(/.*)?")


def names(spec: dict[str, Any], service: str) -> list[str]:
    """Return the name of each container. Cloud Run numbers those without one: SERVICE-1 …"""
    containers = spec["containers"]
    return [one.get("name") or f"{service}-{number}" for number, one in enumerate(containers, 1)]


def dependencies(annotations: dict[str, str]) -> dict[str, list[str]]:
    """Return the containers that each container depends on; raise a 400 ApiError."""
    text = annotations.get(ANNOTATION)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    lists = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(one, list) and all(isinstance(n, str) for n in one) for one in lists):
        raise invalid('must be JSON such as {"app":["proxy"]}.', _FIELD)
    return dict(found)


def check(template: schema.RevisionTemplate, service: str) -> None:
    """Raise a 400 ApiError for containers that do not fit together."""
    assert template.spec is not None
    containers = template.spec.containers
    if len(containers) > _MOST:
        raise invalid(f"At most {_MOST} containers are supported.", _WHERE)
    if len(containers) > 1 and sum(bool(one.ports) for one in containers) != 1:
        raise invalid(
            "Revision template should contain exactly one container with an exposed port.", _WHERE
        )
    known = names(schema.plain(template.spec), service)
    for index, name in enumerate(known):
        if not _NAME.fullmatch(name):
            raise invalid(_name_text(name), f"{_WHERE}[{index}].name")
        if name in known[:index]:
            raise invalid(f"The name '{name}' is given twice.", f"{_WHERE}[{index}].name")
    _check_volumes(template.spec)
    annotations = (template.metadata.annotations if template.metadata else None) or {}
    needs = dependencies(annotations)
    for name in [*needs, *(name for listed in needs.values() for name in listed)]:
        if not _NAME.fullmatch(name):
            raise invalid(_name_text(name), _FIELD)
        if name not in known:
            raise invalid(f"Container '{name}' does not exist.", _FIELD)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise invalid(f"Circular dependency: {' -> '.join(error.args[1])}.", _FIELD) from None
    for name, listed in needs.items():
        for other in listed:
            needed = containers[known.index(other)]
            # The container with a port has a default probe.
            if needed.startup_probe is None and not needed.ports:
                raise invalid(
                    f"Dependent container '{other}' must have startup probe specified",
                    f"{_WHERE}[{known.index(name)}].depends_on",
                )


def _check_volumes(spec: schema.RevisionSpec) -> None:
    volumes = [one.name or "" for one in spec.volumes or []]
    for index, name in enumerate(volumes):
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
            raise invalid("must be a DNS label.", f"{_VOLUMES}[{index}].name")
        if name in volumes[:index]:
            raise invalid(f"The name '{name}' is given twice.", f"{_VOLUMES}[{index}].name")
    for number, container in enumerate(spec.containers):
        for index, mount in enumerate(container.volume_mounts or []):
            where = f"{_WHERE}[{number}].volumeMounts[{index}]"
            if mount.name not in volumes:
                raise invalid(f"The volume '{mount.name}' does not exist.", f"{where}.name")
            path = mount.mount_path or ""
            whole = path.startswith("/") and "//" not in path and ".." not in path.split("/")
            if not whole or path == "/" or "\0" in path or _NOT_MOUNTED.fullmatch(path):
                raise invalid(
                    "must be an absolute path, and not below /dev, /proc or /sys.",
                    f"{where}.mountPath",
                )


def _name_text(name: str) -> str:
    return (
        f"Invalid container name '{name}'. Must conform to RFC 1123: only lowercase letters, "
        "digits, hyphens, and periods are allowed, must begin and end with a letter or digit, and "
        "be less than 64 characters"
    )
