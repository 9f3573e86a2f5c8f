"""Read what exists in Google Cloud, and take the steps that are left."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

from scripts.cloud import answers
from scripts.cloud.google import ApiError, Conflict, Google, NotFound
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, ShipError, Unknown, UsageError
from scripts.setup import admission, steps, wanted
from scripts.setup.permissions import Federation
from scripts.setup.resources import Resource
from scripts.setup.steps import Found, Step
from scripts.setup.wanted import Document, Thing

_RACES = 5
_OPERATION_SECONDS = 300.0
# The longest time that a new account or a newly enabled API takes to be known everywhere.
_SETTLING_SECONDS = 120.0


def number(google: Google, project: str) -> str:
    """Read a project's number from Service Usage, the one API that is always enabled."""
    answer = google.get(
        "serviceusage", f"/v1/projects/{project}/services/run.googleapis.com", answers.Named
    )
    return str(answer["name"]).split("/")[1]


def numbers(google: Google, projects: Sequence[str]) -> dict[str, str]:
    """Read the projects' numbers.

    Returns:
        Project ID -> number.

    Raises:
        UsageError: a project does not exist, or the caller may not see it.
    """
    found = {}
    for project in dict.fromkeys(projects):
        try:
            found[project] = number(google, project)
        except ApiError as error:
            if error.code not in (403, 404):
                raise
            raise UsageError(
                f"project {project} does not exist, or you may not set it up: {error.message}",
                "--explain prints the commands for someone who may",
            ) from None
    return found


def look(
    google: Google, access: Federation, pipelines: Sequence[Pipeline], more: Sequence[Thing] = ()
) -> Found:
    """Read the current state of everything in the plan.

    Resources behind an API that is not enabled count as missing.

    Args:
        google: who asks.
        access: who may do what.
        pipelines: every service that has the environment.
        more: other resources that must exist.
    """
    found = Found()
    for project, names in wanted.apis(access, pipelines, more).items():
        found.enabled[project] = _enabled(google, project, names)
    for thing in (*wanted.things(access, pipelines), *more):
        if f"{thing.api}.googleapis.com" in found.enabled.get(thing.project, set()):
            document = _or_none(functools.partial(google.get, thing.api, thing.path))
            if document is not None:
                found.things[thing.path] = document
    for resource in dict.fromkeys(binding.resource for binding in access.bindings):
        api = f"{resource.api}.googleapis.com"
        # The project that `after` names may not be in the plan: it has been set up before.
        if api in found.enabled.get(resource.project, {api}):
            read = _or_none(functools.partial(policy, google, resource))
            found.policies[resource.path] = (read or {}).get("bindings") or []
    return found


def _enabled(google: Google, project: str, names: Sequence[str]) -> set[str]:
    """Return which of these APIs are enabled."""
    answer = google.get(
        "serviceusage",
        f"/v1/projects/{project}/services:batchGet",
        answers.EnabledApis,
        names=[f"projects/{project}/services/{name}" for name in names],
    )
    return {
        service["config"]["name"]
        for service in answer.get("services") or []
        if service.get("state") == "ENABLED"
    }


def do(google: Google, step: Step) -> None:
    """Take one step. A step that was taken before changes nothing.

    If the answer to a write is lost, what it was about is read again.

    Raises:
        Failed: Google refused, or did not finish in time.
        Unknown: the answer to a write was lost, and nothing shows that it was done.
    """
    before = len(google.writes)
    try:
        _take(google, step)
    except Unknown:
        if not _is_taken(google, step):
            raise
        for write in google.writes[before:]:
            write.outcome = "done"


def _is_taken(google: Google, step: Step) -> bool:
    """Return whether a step is seen to be taken; False also if it cannot be read."""
    try:
        if step.binding is not None:
            bindings = policy(google, step.binding.resource).get("bindings") or []
            return steps.granted(bindings, step.binding) == (step.does == "grant")
        if step.thing is not None:
            return steps.make(step.thing, google.get(step.thing.api, step.thing.path)) is None
        if step.write is not None:
            names = step.write.body["serviceIds"]
            return _enabled(google, step.project, names) == set(names)
    except ShipError:
        pass
    return False


def _take(google: Google, step: Step) -> None:
    what = f"{step.what} in {step.project}"
    if step.binding is not None:
        _settled(lambda: _bind(google, step, what))
    elif step.thing is not None and step.thing.kind == "policy":
        thing = step.thing
        _settled(lambda: _admit(google, thing, what))
    elif step.write is not None:
        write = step.write
        answer = _settled(
            # A second one answers that it exists: see `_settled`.
            lambda: google.write(
                write.method,
                write.api,
                write.path,
                write.body,
                shape=answers.Operation,
                what=what,
                repeatable=True,
                params=write.params,
            )
        )
        _wait(google, write.api, answer)


def _settled(act: Callable[[], Document]) -> Document:
    """Act, and retry for a while if a new account or API is not known everywhere yet."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    pause = 0.5
    while True:
        try:
            return act()
        except ApiError as error:
            # Cloud Storage has no name for it.
            if error.status == "ALREADY_EXISTS" or (error.code == 409 and not error.status):
                return {}
            if not _will_settle(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 10.0)


def _will_settle(error: ApiError) -> bool:
    """Return whether an error goes away by itself, judged by Google's own words.

    Sources: https://cloud.google.com/iam/docs/access-change-propagation, and what an API answers
    just after it was enabled.
    """
    text = error.message
    is_new = error.code in (400, 404) and "does not exist" in text
    return is_new or (
        error.code == 403 and "wait a few minutes for the action to propagate" in text
    )


def _bind(google: Google, step: Step, what: str) -> Document:
    """Add a member to a policy or remove it, and write with the etag that was read."""
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
        method, path, body = _written(binding.resource, {**read, "bindings": bindings})
        try:
            # The etag guards it, so that a second one changes nothing.
            return google.write(
                method,
                binding.resource.api,
                path,
                body,
                shape=answers.Policy,
                what=what,
                repeatable=True,
            )
        except Conflict:
            continue
        except ApiError as error:
            if error.code != 412:  # Cloud Storage's answer to an etag that is no longer current
                raise
    raise Failed(
        f"gave up after {_RACES} attempts: someone else keeps changing the policy of"
        f" {binding.resource.path}",
        "run it again: it continues where it stopped",
    )


def _written(resource: Resource, policy: Document) -> tuple[str, str, Document]:
    """Return the method, path and body of the request that writes a policy."""
    if resource.kind == "bucket":
        return "PUT", f"/storage/v1/{resource.path}/iam", policy
    return "POST", f"/v1/{resource.path}:setIamPolicy", {"policy": policy}


def _admit(google: Google, thing: Thing, what: str) -> Document:
    """Read the policy of Binary Authorization, and write it with the etag that was read.

    It could not be read before, if its API was not enabled.
    """
    body = admission.merged(google.get(thing.api, thing.path), thing)
    return google.write("PUT", thing.api, thing.path, body, what=what) if body else {}


def policy(google: Google, resource: Resource) -> Document:
    """Read a policy with its conditions: in an older version, a write would lose them.

    Source: https://cloud.google.com/iam/docs/policies#versions
    """
    if resource.kind == "bucket":
        return google.get(
            "storage", f"/storage/v1/{resource.path}/iam", answers.Policy,
            optionsRequestedPolicyVersion=3,
        )  # fmt: skip
    path = f"/v1/{resource.path}:getIamPolicy"
    if resource.kind == "project":
        return google.query(
            resource.api, path, {"options": {"requestedPolicyVersion": 3}}, answers.Policy
        )
    if resource.kind == "account":
        return google.query(
            resource.api, f"{path}?options.requestedPolicyVersion=3", None, answers.Policy
        )
    return google.get(resource.api, path, answers.Policy, **{"options.requestedPolicyVersion": 3})


def _wait(google: Google, api: str, operation: Document) -> None:
    """Wait for a long-running operation, if the answer is one."""
    name = str(operation.get("name", ""))
    deadline = time.monotonic() + _OPERATION_SECONDS
    pause = 0.05
    while "/operations/" in f"/{name}" and not operation.get("done"):
        if time.monotonic() > deadline:
            raise Failed(f"{name} is not done after {_OPERATION_SECONDS:.0f} s")
        time.sleep(pause)
        pause = min(pause * 2, 3.0)
        operation = google.get(api, f"/v1/{name}", answers.Operation)
    if error := operation.get("error"):
        raise Failed(f"{name}: {error.get('message', error)}")


def _or_none(read: Callable[[], Document]) -> Document | None:
    try:
        return read()
    except NotFound:
        return None
