"""From what is wanted and what is there to what has to be done. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from scripts.config.pipelines import Pipeline
from scripts.setup import wanted
from scripts.setup.permissions import Binding, Federation, Resource
from scripts.setup.wanted import INVOKER_CHECK, Document, Thing, Write


class Found(msgspec.Struct, kw_only=True):
    """What is there."""

    enabled: dict[str, set[str]] = {}
    """Project -> the APIs that are enabled, of those that are wanted."""
    things: dict[str, Document] = {}
    """Path -> the document, of those that are there."""
    policies: dict[str, list[Document]] = {}
    """Path of a resource -> its policy's bindings."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do, and the commands that do the same. `write` or `binding` is what is sent."""

    does: str
    """enable, create, change, restore, grant, remove."""
    what: str
    project: str
    gcloud: tuple[str, ...]
    why: str = ""
    write: Write | None = None
    binding: Binding | None = None


def plan(
    access: Federation, pipelines: Sequence[Pipeline], found: Found, more: Sequence[Thing] = ()
) -> list[Step]:
    """What is missing, in the order in which it can be done; `more` is wanted besides."""
    steps = []
    for project, names in wanted.apis(access, pipelines).items():
        missing = [name for name in names if name not in found.enabled.get(project, set())]
        if missing:
            steps.append(_enable(project, missing))
    for thing in (*wanted.things(access, pipelines), *more):
        step = _make(thing, found.things.get(thing.path))
        if step:
            steps.append(step)
    for binding in access.bindings:
        if not given(found.policies.get(binding.resource.path, []), binding):
            steps.append(_grant(binding))
    return steps


def surplus(access: Federation, found: Found) -> list[Step]:
    """What the pusher and the deployer may do besides, and who else may speak as one of them.

    The accounts that services run as are the team's own: what more they may do is not looked at.
    """
    ours = {access.pusher.email: access.pusher, access.deployer.email: access.deployer}
    members = {account.member for account in ours.values()}
    steps = []
    for resource in dict.fromkeys(b.resource for b in access.bindings):
        for entry in found.policies.get(resource.path, []):
            for member in entry.get("members") or []:
                binding = Binding(
                    role=entry["role"], resource=resource, member=member, why="nobody planned it"
                )
                planned = "condition" not in entry and any(
                    (b.role, b.resource, b.member) == (binding.role, resource, member)
                    for b in access.bindings
                )
                is_about_ours = resource.kind == "account" and resource.name in ours
                if not planned and (member in members or is_about_ours):
                    steps.append(_remove(binding, entry.get("condition")))
    return steps


def advice(access: Federation, pipelines: Sequence[Pipeline], found: Found) -> list[str]:
    """What is there and could be better, but is not ours to change: others may rely on it."""
    said = []
    for thing in wanted.things(access, pipelines):
        there = found.things.get(thing.path)
        if thing.kind != "images" or there is None:
            continue
        if not (there.get("dockerConfig") or {}).get("immutableTags"):
            _, project, _, location, _, name = thing.name.split("/")
            said.append(
                f"tags in {thing.name} can move to other images; where nobody relies on it:"
                f" gcloud artifacts repositories update {name} --immutable-tags"
                f" --location={location} --project={project}"
            )
    return said


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


def _make(thing: Thing, there: Document | None) -> Step | None:
    what = f"{thing.kind} {thing.name}"
    if there is None:
        return Step(
            does="create", what=what, project=thing.project, gcloud=thing.gcloud, write=thing.create
        )
    if there.get("state") == "DELETED":
        # Its name is taken for 30 days; what it was comes back.
        command = thing.gcloud[0].split(" create")[0] + f" undelete {thing.name}"
        kept = [w for w in thing.gcloud[0].split() if w.startswith(("--location", "--project",
                "--workload"))]  # fmt: skip
        write = Write(method="POST", api=thing.api, path=f"{thing.path}:undelete", body={})
        return Step(
            does="restore", what=what, project=thing.project,
            gcloud=(" ".join([command, *kept]),), write=write,
        )  # fmt: skip
    write_ = _mend(thing, there)
    if write_ is None:
        return None
    told = ", ".join(sorted(write_.params.get("updateMask", "").split(",")))
    if thing.kind == "service":
        is_open = thing.settings[INVOKER_CHECK] == "true"
        told = "open to everybody" if is_open else "closed to who has no run.invoker"
    return Step(
        does="change",
        what=f"{what}: {told}",
        project=thing.project,
        gcloud=thing.changed,
        write=write_,
    )


def _mend(thing: Thing, there: Document) -> Write | None:
    """The write that makes what is there say what it has to, if it does not."""
    if thing.kind == "service":
        annotations = there["metadata"].get("annotations") or {}
        if annotations.get(INVOKER_CHECK, "false") == thing.settings[INVOKER_CHECK]:
            return None
        metadata = {**there["metadata"], "annotations": {**annotations, **thing.settings}}
        # The template as it was read: that is what keeps the write from making a revision.
        body = {**{k: v for k, v in there.items() if k != "status"}, "metadata": metadata}
        return Write(method="PUT", api="run", path=thing.path, body=body)
    wrong = sorted(
        name for name, value in thing.settings.items() if not _says(there.get(name), value, thing)
    )
    if not wrong:
        return None
    return Write(
        method="PATCH",
        api=thing.api,
        path=thing.path,
        params={"updateMask": ",".join(wrong)},
        body={name: thing.settings[name] for name in wrong},
    )


def _says(there: Any, value: Any, thing: Thing) -> bool:
    """Whether what is there is what it has to be; of a trigger, Google may say more."""
    if thing.kind == "trigger" and isinstance(value, dict):
        return isinstance(there, dict) and all(
            _says(there.get(name), part, thing) for name, part in value.items()
        )
    return bool(there == value)


def given(bindings: list[Document], wanted_: Binding) -> bool:
    """Whether a policy's bindings give a role to its member, and without a condition."""
    return any(
        entry.get("role") == wanted_.role
        and wanted_.member in (entry.get("members") or [])
        and "condition" not in entry
        for entry in bindings
    )


def _grant(binding: Binding) -> Step:
    return Step(
        does="grant",
        what=f"{binding.role} on {_named(binding.resource)} to {short(binding.member)}",
        project=binding.resource.project,
        gcloud=(f"{policy_command('add', binding)}",),
        why=binding.why,
        binding=binding,
    )


def _remove(binding: Binding, condition: Any) -> Step:
    command = policy_command("remove", binding)
    if condition:
        command = command.replace(" --condition=None", "") + " --all"
    return Step(
        does="remove",
        what=f"{binding.role} on {_named(binding.resource)} from {short(binding.member)}",
        project=binding.resource.project,
        gcloud=(command,),
        why=binding.why,
        binding=binding,
    )


def policy_command(verb: str, binding: Binding) -> str:
    """The gcloud command that gives a role ("add") or takes it away ("remove")."""
    resource = binding.resource
    noun, where = {
        "project": ("projects", ""),
        "repository": ("artifacts repositories", f" --location={resource.location}"),
        "account": ("iam service-accounts", ""),
        "service": ("run services", f" --region={resource.location}"),
        "secret": ("secrets", ""),
    }[resource.kind]
    if resource.kind == "project":
        target = resource.project
        # Without it gcloud asks, where the policy has conditions.
        where = " --condition=None"
    else:
        target, where = resource.name, f"{where} --project={resource.project}"
    return (
        f"gcloud {noun} {verb}-iam-policy-binding {target} --role={binding.role}"
        f" --member={wanted.quoted(binding.member)}{where}"
    )


def _named(resource: Resource) -> str:
    return f"{resource.kind} {resource.name or resource.project}"


def short(member: str) -> str:
    """A member as a table shows it."""
    kind, _, rest = member.partition(":")
    if kind == "principalSet":
        return f"jobs {rest.partition('/attribute.')[2] or rest}"
    return rest or member
