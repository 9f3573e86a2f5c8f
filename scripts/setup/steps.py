"""Plan the steps from the wanted and the existing state. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from scripts.config.pipelines import Pipeline
from scripts.release.manifest import INVOKER_CHECK
from scripts.setup import admission, wanted
from scripts.setup.permissions import Binding, Federation
from scripts.setup.resources import Resource
from scripts.setup.wanted import Document, Thing, Write


class Found(msgspec.Struct, kw_only=True):
    """The existing state.

    Attributes:
        enabled: project ID -> the enabled APIs, among those that are needed.
        things: path -> the document, of each resource that exists.
        policies: a resource's path -> the bindings of its policy.
    """

    enabled: dict[str, set[str]] = {}
    things: dict[str, Document] = {}
    policies: dict[str, list[Document]] = {}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do. Either `write` or `binding` is sent.

    Attributes:
        does: the kind of step.
        what: the object of the step, as tables show it.
        project: the ID of the project that changes.
        gcloud: the commands that do the same.
        why: the reason; "" if `what` is clear enough.
        thing: the resource that is created, changed or restored.
        write: the request to send.
        binding: the role to grant or remove.
    """

    does: Literal["enable", "create", "change", "restore", "grant", "remove"]
    what: str
    project: str
    gcloud: tuple[str, ...]
    why: str = ""
    thing: Thing | None = None
    write: Write | None = None
    binding: Binding | None = None


def plan(
    access: Federation, pipelines: Sequence[Pipeline], found: Found, more: Sequence[Thing] = ()
) -> list[Step]:
    """Return the steps that are left, in the order in which they can be taken.

    Args:
        access: who may do what.
        pipelines: every service that has the environment.
        found: what exists.
        more: other resources that must exist.
    """
    steps = []
    for project, names in wanted.apis(access, pipelines, more).items():
        missing = [name for name in names if name not in found.enabled.get(project, set())]
        if missing:
            steps.append(_enable(project, missing))
    for thing in (*wanted.things(access, pipelines), *more):
        step = make(thing, found.things.get(thing.path))
        if step:
            steps.append(step)
    for binding in access.bindings:
        if not granted(found.policies.get(binding.resource.path, []), binding):
            steps.append(grant(binding))
    return steps


def _enable(project: str, names: list[str]) -> Step:
    return Step(
        does="enable",
        what=", ".join(name.removesuffix(".googleapis.com") for name in names),
        project=project,
        gcloud=(f"gcloud services enable {' '.join(names)} --project={project}",),
        write=Write(
            method="POST",
            api="serviceusage",
            path=f"/v1/projects/{project}/services:batchEnable",
            body={"serviceIds": names},
        ),
    )


def make(thing: Thing, existing: Document | None) -> Step | None:
    """Return the step that creates, restores or corrects a resource; None if it is right."""
    what = f"{thing.kind} {thing.name}"
    if existing is None:
        return Step(
            does="create", what=what, project=thing.project, gcloud=thing.gcloud,
            thing=thing, write=thing.create,
        )  # fmt: skip
    if existing.get("state") == "DELETED" or existing.get("deleted"):
        # Its name stays taken for a while; undeleting brings it back as it was.
        write = Write(method="POST", api=thing.api, path=f"{thing.path}:undelete", body={})
        return Step(
            does="restore", what=what, project=thing.project, gcloud=thing.undelete,
            thing=thing, write=write,
        )  # fmt: skip
    if thing.kind == "service":
        return _open_or_close(thing, existing)
    if thing.kind == "policy":
        return _admit(thing, existing)
    if thing.kind == "role":
        # Google lists the permissions in an order of its own.
        held = sorted(existing.get("includedPermissions") or [])
        existing = {**existing, "includedPermissions": held}
    wrong = sorted(
        name
        for name, value in thing.settings.items()
        if not _matches(existing.get(name), value, thing.extensible)
    )
    if not wrong:
        return None
    return Step(
        does="change", what=f"{what}: {', '.join(wrong)}", project=thing.project,
        gcloud=thing.changed, thing=thing,
        write=Write(
            method="PATCH",
            api=thing.api,
            path=thing.path,
            params={"updateMask": ",".join(wrong)},
            body={name: thing.settings[name] for name in wrong},
        ),
    )  # fmt: skip


def _admit(thing: Thing, existing: Document) -> Step | None:
    """Return the step that changes the policy of Binary Authorization."""
    body = admission.merged(existing, thing)
    if body is None:
        return None
    changed = ", ".join(sorted(key for key in thing.settings if body[key] != existing.get(key)))
    return Step(
        does="change", what=f"policy {thing.name}: {changed}", project=thing.project,
        gcloud=(admission.command(thing.project, body),), thing=thing,
        write=Write(method="PUT", api=thing.api, path=thing.path, body=body),
    )  # fmt: skip


def _open_or_close(thing: Thing, existing: Document) -> Step | None:
    """Return the step that lets everyone, or only invokers, call a service."""
    annotations = existing["metadata"].get("annotations") or {}
    if annotations.get(INVOKER_CHECK, "false") == thing.settings[INVOKER_CHECK]:
        return None
    is_open = thing.settings[INVOKER_CHECK] == "true"
    metadata = {**existing["metadata"], "annotations": {**annotations, **thing.settings}}
    # The template goes back as it was read, so that the write makes no revision.
    body = {**{k: v for k, v in existing.items() if k != "status"}, "metadata": metadata}
    return Step(
        does="change",
        what=f"service {thing.name}: {'open to everyone' if is_open else 'open to invokers only'}",
        project=thing.project, gcloud=thing.changed, thing=thing,
        write=Write(method="PUT", api="run", path=thing.path, body=body),
    )  # fmt: skip


def _matches(existing: Any, value: Any, extensible: bool) -> bool:
    """Return whether a setting has its value; an extensible mapping may have more keys."""
    if extensible and isinstance(value, dict):
        return isinstance(existing, dict) and all(
            _matches(existing.get(name), part, extensible) for name, part in value.items()
        )
    return bool(existing == value)


def granted(bindings: list[Document], binding: Binding) -> bool:
    """Return whether a policy's bindings grant a role to its member, without a condition."""
    return any(
        entry.get("role") == binding.role
        and binding.member in (entry.get("members") or [])
        and "condition" not in entry
        for entry in bindings
    )


def grant(binding: Binding) -> Step:
    """Return the step that grants a role."""
    return Step(
        does="grant",
        what=f"{role_title(binding.role)} on {title(binding.resource)} to {short(binding.member)}",
        project=binding.resource.project,
        gcloud=(policy_command("add", binding),),
        why=binding.why,
        binding=binding,
    )


def policy_command(
    verb: Literal["add", "remove"], binding: Binding, *, whatever_condition: bool = False
) -> str:
    """Return the gcloud command that grants a role or removes it.

    Args:
        verb: "add" grants, "remove" removes.
        binding: the role, its resource and its member.
        whatever_condition: remove it whatever condition it has; else one without a condition.
    """
    resource = binding.resource
    noun, where = {
        "project": ("projects", ""),
        "repository": ("artifacts repositories", f" --location={resource.location}"),
        "account": ("iam service-accounts", ""),
        "service": ("run services", f" --region={resource.location}"),
        "secret": ("secrets", ""),
        "bucket": ("storage buckets", ""),
    }[resource.kind]
    if resource.kind == "project":
        target = resource.project
        # Without the flag gcloud asks, if the policy has conditions.
        where = "" if whatever_condition else " --condition=None"
    else:
        name = f"gs://{resource.name}" if resource.kind == "bucket" else resource.name
        target, where = name, f"{where} --project={resource.project}"
    return (
        f"gcloud {noun} {verb}-iam-policy-binding {target} --role={binding.role}"
        f" --member={wanted.quoted(binding.member)}{where}{' --all' if whatever_condition else ''}"
    )


def title(resource: Resource) -> str:
    """Return how tables name a resource."""
    return f"{resource.kind} {resource.name or resource.project}"


def role_title(role: str) -> str:
    """Return how tables name a role: a custom one by its ID, because the project is shown."""
    return role if role.startswith("roles/") else role.rpartition("/")[2]


def short(member: str) -> str:
    """Return how tables name a member of a policy."""
    kind, _, rest = member.partition(":")
    if kind == "principalSet":
        return f"jobs {rest.partition('/attribute.')[2] or rest}"
    return rest or member
