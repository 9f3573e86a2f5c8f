"""Reads what is there, and writes what is missing."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

from scripts.cloud.google import ApiError, Conflict, Google, NotFound
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, UsageError
from scripts.setup import wanted
from scripts.setup.permissions import Federation, Resource
from scripts.setup.steps import Found, Step
from scripts.setup.wanted import Document, Thing

_RACES = 5
_OPERATION_SECONDS = 300.0
# How long Google takes at the most until a new account can be named, or an enabled API answers.
_SETTLING_SECONDS = 120.0


def numbers(google: Google, projects: Sequence[str]) -> dict[str, str]:
    """Project ID -> number. Service Usage tells it: the one API that is always enabled.

    Raises:
        UsageError: there is no such project, or the caller may not see it.
    """
    found = {}
    for project in dict.fromkeys(projects):
        try:
            answer = google.get(
                "serviceusage", f"/v1/projects/{project}/services/run.googleapis.com"
            )
        except ApiError as error:
            if error.code not in (403, 404):
                raise
            raise UsageError(
                f"project {project} is not there, or not for you to set up: {error.message}",
                "for somebody who may: --explain prints the commands",
            ) from None
        found[project] = answer["name"].split("/")[1]
    return found


def look(
    google: Google, access: Federation, pipelines: Sequence[Pipeline], more: Sequence[Thing] = ()
) -> Found:
    """Everything that the plan is about, as it is now. What is behind an API that is not enabled
    is not there."""
    found = Found()
    for project, names in wanted.apis(access, pipelines).items():
        answer = google.get(
            "serviceusage",
            f"/v1/projects/{project}/services:batchGet",
            names=[f"projects/{project}/services/{name}" for name in names],
        )
        found.enabled[project] = {
            service["config"]["name"]
            for service in answer.get("services") or []
            if service.get("state") == "ENABLED"
        }
    for thing in (*wanted.things(access, pipelines), *more):
        if f"{thing.api}.googleapis.com" in found.enabled.get(thing.project, set()):
            document = _or_none(functools.partial(google.get, thing.api, thing.path))
            if document is not None:
                found.things[thing.path] = document
    for resource in dict.fromkeys(binding.resource for binding in access.bindings):
        api = f"{resource.api}.googleapis.com"
        # A project that is none of the plan's (where `after` leads) has been set up before.
        if api in found.enabled.get(resource.project, {api}):
            read = _or_none(functools.partial(policy, google, resource))
            found.policies[resource.path] = (read or {}).get("bindings") or []
    return found


def do(google: Google, step: Step) -> None:
    """Take one step. Taken already, it changes nothing.

    Raises:
        Failed: Google refused, or did not come to an end.
    """
    if step.binding is not None:
        _settled(lambda: _bind(google, step))
    elif step.write is not None:
        write = step.write
        answer = _settled(
            lambda: google.write(write.method, write.api, write.path, write.body, **write.params)
        )
        _wait(google, write.api, answer)


def _settled(act: Callable[[], Document]) -> Document:
    """Act, again for a while where what was just made or enabled is not known everywhere yet."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    pause = 0.5
    while True:
        try:
            return act()
        except ApiError as error:
            if error.status == "ALREADY_EXISTS":
                return {}
            if not _will_settle(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 10.0)


def _will_settle(error: ApiError) -> bool:
    """Sources: https://cloud.google.com/iam/docs/access-change-propagation, and the API's own
    words for one that was enabled a moment ago."""
    said = error.message
    is_new = error.code in (400, 404) and "does not exist" in said
    return is_new or (
        error.code == 403 and "wait a few minutes for the action to propagate" in said
    )


def _bind(google: Google, step: Step) -> Document:
    """Put a member into a policy or take it out, and write with the etag that was read."""
    binding = step.binding
    assert binding is not None
    for _ in range(_RACES):
        read = policy(google, binding.resource)
        bindings = [dict(entry) for entry in read.get("bindings") or []]
        if step.does == "remove":
            for entry in bindings:
                if entry["role"] == binding.role:
                    entry["members"] = [m for m in entry["members"] if m != binding.member]
            bindings = [entry for entry in bindings if entry["members"]]
        else:
            same = [b for b in bindings if b["role"] == binding.role and "condition" not in b]
            if not same:
                same = [{"role": binding.role, "members": []}]
                bindings += same
            if binding.member not in same[0]["members"]:
                same[0]["members"] = [*same[0]["members"], binding.member]
        body = {"policy": {**read, "bindings": bindings}}
        path = f"/v1/{binding.resource.path}:setIamPolicy"
        try:
            return google.write("POST", binding.resource.api, path, body)
        except Conflict:
            continue
    raise Failed(
        f"the policy of {binding.resource.path} is being changed by others all the time",
        "run it again: it goes on where it stopped",
    )


def policy(google: Google, resource: Resource) -> Document:
    """A policy with its conditions: an older version of it would lose them when written back.

    Source: https://cloud.google.com/iam/docs/policies#versions
    """
    path = f"/v1/{resource.path}:getIamPolicy"
    if resource.kind == "project":
        return google.query(resource.api, path, {"options": {"requestedPolicyVersion": 3}})
    if resource.kind == "account":
        return google.query(resource.api, f"{path}?options.requestedPolicyVersion=3", None)
    return google.get(resource.api, path, **{"options.requestedPolicyVersion": 3})


def _wait(google: Google, api: str, operation: Document) -> None:
    """Wait for a long-running operation, where the answer is one."""
    name = str(operation.get("name", ""))
    deadline = time.monotonic() + _OPERATION_SECONDS
    pause = 0.05
    while "/operations/" in f"/{name}" and not operation.get("done"):
        if time.monotonic() > deadline:
            raise Failed(f"{name} is not done after {_OPERATION_SECONDS:.0f} s")
        time.sleep(pause)
        pause = min(pause * 2, 3.0)
        operation = google.get(api, f"/v1/{name}")
    if error := operation.get("error"):
        raise Failed(f"{name}: {error.get('message', error)}")


def _or_none(read: Callable[[], Document]) -> Document | None:
    try:
        return read()
    except NotFound:
        return None
