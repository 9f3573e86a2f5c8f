"""The service that git declares, as Cloud Run takes it. Pure: same input, same bytes."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from scripts.config.image_reference import ImageReference
from scripts.config.pipelines import SOURCE, Pipeline

Object = dict[str, Any]

COMMIT_LABEL = "commit-sha"
MANAGER_LABEL = "managed-by"
MANAGER = "shipway"
PLACEHOLDER = "app"

# Whether Cloud Run checks callers' permissions.
# Source: https://cloud.google.com/run/docs/securing/managing-access#invoker_check
INVOKER_CHECK = "run.googleapis.com/invoker-iam-disabled"

# The minimum of instances: of a service, which its revisions share as they share the traffic; and
# of one revision, which is started for each revision that has traffic or a tag.
# Source: https://docs.cloud.google.com/run/docs/configuring/min-instances
MINIMUM = "run.googleapis.com/minScale"
REVISION_MINIMUM = "autoscaling.knative.dev/minScale"


def overlay(base: Any, over: Any) -> Any:
    """Merge `over` over `base`; change neither.

    Mappings merge key by key, and null removes a key. Lists whose items all have a `name` merge by
    name, new names last. Any other list, and any scalar, is replaced.

    Args:
        base: the value from service.yaml.
        over: the value from an environment's overlay.
    """
    if isinstance(base, dict) and isinstance(over, dict):
        merged = {key: copy.deepcopy(value) for key, value in base.items() if key not in over}
        for key, value in over.items():
            if value is not None:
                merged[key] = overlay(base.get(key), value)
        return {key: merged[key] for key in [*base, *over] if key in merged}
    if _named(base) and _named(over):
        items = {item["name"]: copy.deepcopy(item) for item in base}
        for item in over:
            items[item["name"]] = overlay(items.get(item["name"]), item)
        return list(items.values())
    return _without_nulls(over)


def _named(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and "name" in item for item in value)
    )


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def revision_name(service: str, commit: str, taken: Collection[str] = ()) -> str:
    """Make the name of a commit's revision: <service>-<sha7>, then -2, -3 … for names taken.

    Args:
        service: the service's name.
        commit: full commit SHA.
        taken: names that cannot be used: a revision that failed never starts again, and one that
            exists never changes.
    """
    first = f"{service}-{commit[:7]}"
    names = [first, *(f"{first}-{number}" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)


def tag(commit: str) -> str:
    """Make the tag of a commit's revision: sha-<sha7>."""
    return f"sha-{commit[:7]}"


def check_tag(revision: str, service: str) -> str:
    """Make the tag of a revision that is checked before it serves again: check-<its own part>."""
    return f"check-{revision.removeprefix(f'{service}-')}"


def is_own(tag: str, revision: str) -> bool:
    """Return whether a tag of a revision is one of Shipway's: for its commit or for a check."""
    kind, _, rest = tag.partition("-")
    if kind == "check":
        return revision.endswith(f"-{rest}")
    is_commit = kind == "sha" and re.fullmatch("[0-9a-f]{7}", rest)
    return bool(is_commit and re.fullmatch(rf".+-{rest}(-\d+)?", revision))


def render(
    pipeline: Pipeline,
    *,
    commit: str,
    image: ImageReference | None,
    revision: str,
    urls: Mapping[str, str],
) -> Object:
    """Render the service that git declares: service.yaml, the environment's overlay, the image.

    Args:
        pipeline: the service's files.
        commit: full commit SHA; becomes the label `commit-sha`.
        image: the image by digest; takes the place of the placeholder `app`. None: no image.
        revision: the name of the revision.
        urls: variable → URL of a service that this one calls, for its serving container.

    Returns:
        A Knative Service without traffic, which releases decide, and without status.
    """
    service: Object = overlay(pipeline.manifest, pipeline.overlay)
    labels = {COMMIT_LABEL: commit, MANAGER_LABEL: MANAGER}
    metadata = service["metadata"]
    metadata["namespace"] = pipeline.environment.project
    metadata["labels"] = {**metadata.get("labels", {}), **labels}
    annotations = metadata.setdefault("annotations", {})
    annotations.pop(SOURCE, None)
    annotations[INVOKER_CHECK] = "true" if pipeline.environment.access == "public" else "false"
    template = service["spec"].setdefault("template", {})
    template_metadata = template.setdefault("metadata", {})
    template_metadata["name"] = revision
    template_metadata["labels"] = {**template_metadata.get("labels", {}), **labels}
    for container in template["spec"]["containers"]:
        if container.get("image") == PLACEHOLDER:
            container["image"] = str(image or "")
    if urls:
        serving = serving_container(template["spec"])
        set_by_calls = [{"name": name, "value": url} for name, url in urls.items()]
        serving["env"] = [*(serving.get("env") or []), *set_by_calls]
    rendered: Object = canonical(service)
    return rendered


def canonical(value: Any) -> Any:
    """Return the same value with sorted keys, so that equal input prints equal bytes."""
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return value


def to_bytes(value: Object) -> bytes:
    """Encode a manifest as it is shown: JSON, sorted, two spaces."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def is_managed(resource: Object) -> bool:
    """Return whether Shipway made a service or revision."""
    labels = resource.get("metadata", {}).get("labels") or {}
    return bool(labels.get(MANAGER_LABEL) == MANAGER)


def image_of(revision: Object) -> ImageReference:
    """Return a revision's image: its serving container's, not a sidecar's."""
    return ImageReference.parse(serving_container(revision.get("spec", {})).get("image", ""))


def serving_container(spec: Object) -> Object:
    """Return the container that takes the requests: the one with a port, or the first."""
    containers: list[Object] = spec.get("containers") or [{}]
    return next((c for c in containers if c.get("ports")), containers[0])


def has_urls(revision: Object, urls: Mapping[str, str]) -> bool:
    """Return whether a revision has these URLs of the services that it calls (`render`)."""
    variables = serving_container(revision.get("spec") or {}).get("env") or []
    held = {one["name"]: one.get("value") for one in variables}
    return all(held.get(name) == url for name, url in urls.items())


def own_minimum(revision: Object) -> int:
    """Return the minimum of instances that a revision or a template has by itself."""
    annotations = (revision.get("metadata") or {}).get("annotations") or {}
    text = str(annotations.get(REVISION_MINIMUM) or "")
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def commit_of(revision: Object) -> str:
    """Return the commit that a revision was built from; "" if it has no label."""
    labels = revision.get("metadata", {}).get("labels") or {}
    return str(labels.get(COMMIT_LABEL, ""))
