"""The manifest behind a live service, without what Cloud Run and its clients add; differences.

Pure. Source of the additions: https://cloud.google.com/run/docs/reference/yaml/v1 (defaults),
https://cloud.google.com/run/docs/reference/rest/v1/ObjectMeta (annotations of the system), and
what `gcloud run services describe --format export` prints.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from scripts.config.image_reference import ImageReference
from scripts.config.sources import APP
from scripts.release.manifest import (
    COMMIT_LABEL,
    INVOKER_CHECK,
    MANAGER_LABEL,
    Object,
    canonical,
    serving_container,
)

# Written by the system or by a client: they record events, not the desired state.
_ADDED = re.compile(
    r"serving\.knative\.dev/.*|client\.knative\.dev/.*|cloud\.googleapis\.com/location"
    r"|run\.googleapis\.com/(client-name|client-version|ingress-status|operation-id|urls"
    r"|startupProbeType|satisfiesPzs|lastModifier|creator|build-.*)"
    r"|shipway/.*"
)
_STAMPS = (COMMIT_LABEL, MANAGER_LABEL)
_DEFAULT_ACCOUNT = re.compile(r"\d+-compute@developer\.gserviceaccount\.com")
_STARTUP = {"failureThreshold": 1, "periodSeconds": 240, "timeoutSeconds": 240}
_PROBE = {"failureThreshold": 3, "periodSeconds": 10, "timeoutSeconds": 1}
_SUFFIXES = {
    "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
}  # fmt: skip
_ABSENT = object()


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One place where the live service and the files differ."""

    path: str
    runs: str | None
    """None: missing."""
    files: str | None


def declared(service: Object) -> Object:
    """Return the manifest of a live service, with the placeholder for its image.

    Args:
        service: the Knative Service as the API answered.

    Returns:
        The contents of pipelines/<name>/service.yaml: no status, no traffic, no revision name, and
        nothing that the system or a client adds.
    """
    template = copy.deepcopy(service["spec"]["template"])
    serving_container(template["spec"])["image"] = APP
    metadata = _metadata(service["metadata"])
    metadata.get("annotations", {}).pop(INVOKER_CHECK, None)
    return {
        "apiVersion": service["apiVersion"],
        "kind": service["kind"],
        "metadata": {"name": service["metadata"]["name"], **_filled(metadata)},
        "spec": {
            "template": _filled(
                {"metadata": _filled(_metadata(template.get("metadata") or {})), **_rest(template)}
            )
        },
    }


def differences(files: Object, runs: Object) -> list[Difference]:
    """List what a deploy of the files would change, except traffic and images.

    Args:
        files: the service that git declares (`manifest.render`).
        runs: the service as the API answered.

    Returns:
        Sorted by path. Empty where only a new image and its labels would change.
    """
    files, runs = copy.deepcopy(files), copy.deepcopy(runs)
    declared_spec, live_spec = (one["spec"]["template"]["spec"] for one in (files, runs))
    for one, live in zip(declared_spec["containers"], live_spec["containers"], strict=False):
        if not ImageReference.parse(one.get("image") or "").is_by_digest:
            # A placeholder: a deploy brings its own image.
            one.pop("image", None)
            live.pop("image", None)
    wanted, found = _comparable(files), _comparable(runs)
    # A deploy keeps the service's labels and annotations that the files do not name (I8).
    for key in ("labels", "annotations"):
        found[key] = {k: v for k, v in found[key].items() if k in wanted[key]}
    return list(_walk("", wanted, found))


def _rest(template: Object) -> Object:
    return {key: value for key, value in template.items() if key != "metadata"}


def _filled(value: Object) -> Object:
    return {key: item for key, item in value.items() if item not in ({}, [], None)}


def _metadata(metadata: Object) -> Object:
    labels = metadata.get("labels") or {}
    annotations = metadata.get("annotations") or {}
    return {
        "labels": {k: v for k, v in labels.items() if not _ADDED.fullmatch(k) and k not in _STAMPS},
        "annotations": {k: v for k, v in annotations.items() if not _ADDED.fullmatch(k)},
    }


def _comparable(service: Object) -> Object:
    metadata = _metadata(service["metadata"])
    metadata["annotations"].setdefault(INVOKER_CHECK, "false")
    template = _metadata(service["spec"]["template"].get("metadata") or {})
    # Cloud Run's own limit where none is set.
    # Source: https://cloud.google.com/run/docs/configuring/max-instances
    template["annotations"].setdefault("autoscaling.knative.dev/maxScale", "100")
    spec = _with_defaults(copy.deepcopy(service["spec"]["template"]["spec"]))
    return {
        "labels": metadata["labels"],
        "annotations": metadata["annotations"],
        "template": {**template, "spec": canonical(_keyed(spec))},
    }


def _with_defaults(spec: Object) -> Object:
    spec.setdefault("containerConcurrency", 80)
    spec.setdefault("timeoutSeconds", 300)
    if _DEFAULT_ACCOUNT.fullmatch(spec.get("serviceAccountName", "")):
        del spec["serviceAccountName"]
    serving = serving_container(spec)
    port = (serving.get("ports") or [{}])[0]
    serving["ports"] = [{"containerPort": 8080, "name": "http1", **port}]
    for container in spec["containers"]:
        limits = (container.get("resources") or {}).get("limits") or {}
        limits = {"cpu": "1", "memory": "512Mi", **limits}
        container["resources"] = {
            **(container.get("resources") or {}),
            "limits": {name: _quantity(value) for name, value in limits.items()},
        }
        # A single container needs no name.
        if len(spec["containers"]) == 1:
            container.pop("name", None)
        container_port = (container.get("ports") or [{}])[0].get("containerPort", 8080)
        if container is serving:
            container.setdefault("startupProbe", {**_STARTUP, "tcpSocket": {}})
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if container.get(kind):
                container[kind] = _probe(container[kind], container_port)
    return spec


def _probe(probe: Object, port: int) -> Object:
    made = {**_PROBE, **probe}
    for action in ("tcpSocket", "httpGet", "grpc"):
        if action in made:
            made[action] = {"port": port, **(made[action] or {})}
    if "httpGet" in made:
        made["httpGet"].setdefault("path", "/")
    return made


def _quantity(value: Any) -> str:
    """Return a quantity of Kubernetes in one form: "1000m", 1 and "1" are the same."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m|k|M|G|Ki|Mi|Gi)?", str(value))
    if not match:
        return str(value)
    return f"{Decimal(match[1]) * _SUFFIXES.get(match[2] or '', Decimal(1)):f}".rstrip("0").rstrip(
        "."
    )


def _keyed(value: Any) -> Any:
    """Turn lists of named items into mappings; leave out empty values, as Google's APIs do."""
    if isinstance(value, dict):
        kept = {key: _keyed(item) for key, item in value.items()}
        containers = kept.get("containers")
        if isinstance(containers, list):
            kept["containers"] = {f"[{index}]": one for index, one in enumerate(containers)}
        return {key: item for key, item in kept.items() if item not in ({}, [], "", None)}
    if isinstance(value, list):
        if value and all(isinstance(item, dict) and item.get("name") for item in value):
            return {f"[{item['name']}]": _keyed(item) for item in value}
        return [_keyed(item) for item in value]
    return value


def _walk(path: str, files: Any, runs: Any) -> Iterator[Difference]:
    if isinstance(files, dict) or isinstance(runs, dict):
        files = files if isinstance(files, dict) else {}
        runs = runs if isinstance(runs, dict) else {}
        for key in sorted({*files, *runs}):
            step = key if key.startswith("[") else f".{key}"
            yield from _walk(path + step, files.get(key, _ABSENT), runs.get(key, _ABSENT))
    elif isinstance(files, list) and isinstance(runs, list) and len(files) == len(runs):
        for index, (one, other) in enumerate(zip(files, runs, strict=True)):
            yield from _walk(f"{path}[{index}]", one, other)
    elif files != runs:
        # A variable's live value may be a secret that git does not hold: do not show it (I9).
        hidden = re.search(r"\.env\[[^]]+\]\.value$", path) and runs is not _ABSENT
        yield Difference(
            path=path.removeprefix("."),
            runs="(set)" if hidden else _text(runs),
            files=_text(files),
        )


def _text(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
