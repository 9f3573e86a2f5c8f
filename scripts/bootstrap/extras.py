"""Find roles to remove and settings to improve, outside the plan. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scripts.setup import admission, wanted
from scripts.setup.permissions import Binding, Federation
from scripts.setup.steps import Found, Step, policy_command, role_title, short, title
from scripts.setup.wanted import Thing


def surplus(access: Federation, found: Found) -> list[Step]:
    """Return the steps that remove what the plan does not grant.

    These are the other roles of the pusher and the deployer, and the other members that may
    impersonate one of them. The accounts that services run as belong to the team: their other
    roles are not checked.
    """
    ours = {access.pusher.email: access.pusher, access.deployer.email: access.deployer}
    members = {account.member for account in ours.values()}
    steps = []
    for resource in dict.fromkeys(b.resource for b in access.bindings):
        for entry in found.policies.get(resource.path, []):
            for member in entry.get("members") or []:
                binding = Binding(
                    role=entry["role"], resource=resource, member=member, why="it is not planned"
                )
                planned = "condition" not in entry and any(
                    (b.role, b.resource, b.member) == (binding.role, resource, member)
                    for b in access.bindings
                )
                is_about_ours = resource.kind == "account" and resource.name in ours
                if not planned and (member in members or is_about_ours):
                    steps.append(_remove(binding, entry.get("condition")))
    return steps


def _remove(binding: Binding, condition: Any) -> Step:
    return Step(
        does="remove",
        what=f"{_held(binding)} from {short(binding.member)}",
        project=binding.resource.project,
        gcloud=(policy_command("remove", binding, whatever_condition=bool(condition)),),
        why=binding.why,
        binding=binding,
    )


def _held(binding: Binding) -> str:
    return f"{role_title(binding.role)} on {title(binding.resource)}"


def unplanned(steps: list[Step]) -> list[str]:
    """Return a note for each role that `--prune` would remove."""
    return [
        f"not planned: {_held(one)}, held by {short(one.member)}; --prune removes it"
        for one in (step.binding for step in steps)
        if one
    ]


def advice(access: Federation, found: Found, more: Sequence[Thing] = ()) -> list[str]:
    """Return a note for each setting that could be better, but that others may rely on."""
    notes = []
    for repository in wanted.repositories(access):
        existing = found.things.get(f"/v1/{repository.path}")
        if existing and not (existing.get("dockerConfig") or {}).get("immutableTags"):
            notes.append(
                f"tags in {repository.path} can move to other images. If no one relies on that:"
                f" gcloud artifacts repositories update {repository.name} --immutable-tags"
                f" --location={repository.location} --project={repository.project}"
            )
    for thing in more:
        policy = found.things.get(thing.path, {}) if thing.kind == "policy" else {}
        if not admission.is_ours(policy):
            notes.append(
                f"the policy {thing.name} in {thing.project} requires attestations, and stays as it"
                " is: to allow a registry would exempt its images from them"
            )
    return notes
