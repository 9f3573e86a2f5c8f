"""Checks of access: permissions, accounts, the provider, granted roles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from scripts.cloud.google import NotFound
from scripts.config import pipelines, relations, workflows
from scripts.doctor.case import Case, grant
from scripts.doctor.finding import Finding, of_error, ok, skipped, wrong
from scripts.errors import ShipError, UsageError
from scripts.machine import git
from scripts.setup import cloud, github, permissions, resources, steps
from scripts.setup import triggers as setup_triggers
from scripts.setup import wanted as setup_wanted
from scripts.setup.identity_provider import Provider
from scripts.setup.permissions import Binding, Federation, Need
from scripts.setup.resources import Resource
from scripts.setup.wanted import Thing


def accounts(case: Case, plan: Federation) -> Iterator[Finding]:
    """Check that every service account exists."""
    missing = []
    for account in plan.accounts:
        try:
            case.read(resources.of_account(account))
        except NotFound:
            missing.append(f"{account.email} ({account.purpose})")
        except ShipError as error:
            yield of_error("accounts", error, case.context(), looking=True)
            return
    if missing:
        yield wrong("accounts", f"do not exist: {'; '.join(missing)}", bootstrap(case))
    else:
        yield ok("accounts", ", ".join(account.email for account in plan.accounts))


def allowed(case: Case, plan: Federation | None) -> Iterator[Finding]:
    """Check that these credentials have every permission that a delivery with them uses."""
    needs = needs_of(case, plan)
    missing: list[Need] = []
    for resource in dict.fromkeys(need.resource for need in needs):
        wanted = [need for need in needs if need.resource == resource]
        try:
            held = case.may(resource, [need.permission for need in wanted])
        except ShipError as error:
            if isinstance(error, NotFound):
                missing += wanted
                continue
            yield of_error("permissions", error, case.context())
            return
        missing += [need for need in wanted if need.permission not in held]
    who = case.account or "the caller"
    kind = "serviceAccount" if who.endswith("gserviceaccount.com") else "user"
    planned = plan is not None and who in (plan.pusher.email, plan.deployer.email)
    for need in missing:
        fix = bootstrap(case) if planned else grant(need.resource, need.role, f"{kind}:{who}")
        found = f"{who} lacks {need.permission} on {need.resource.path}: {need.why}"
        yield wrong("permissions", found, fix, "permission-denied")
    if not missing:
        yield ok("permissions", f"{who} has all {len(needs)} permissions that a delivery needs")


def needs_of(case: Case, plan: Federation | None) -> list[Need]:
    """Return what a delivery with these credentials needs.

    That is what the pusher needs, what the deployer needs, or for a person both.
    """
    after = case.environment.after
    is_pusher = plan is not None and case.account == plan.pusher.email
    is_deployer = plan is not None and case.account == plan.deployer.email
    push = permissions.push_needs(case.pipeline)
    if is_pusher and not is_deployer:
        return push
    try:
        runs_as = resources.runtime(case.pipeline)
    except UsageError:
        runs_as = None  # the check of the files reports it
    calls = relations.calls_of(case.pipeline)
    deploy = permissions.deploy_needs(case.pipeline, runs_as, calls)
    if after:
        earlier = pipelines.load(case.root, case.pipeline.service, after)
        return [*deploy, *permissions.earlier_needs(earlier)]
    # In Cloud Build one account is both.
    if is_deployer and not is_pusher:
        return deploy
    return list({(need.resource, need.permission): need for need in [*deploy, *push]}.values())


def provider(case: Case, plan: Federation) -> Iterator[Finding]:
    """Check that the provider accepts this repository's jobs, and no others."""
    wanted = plan.provider
    if not plan.by_jobs:
        yield ok("provider", "not needed: builds in Cloud Build run as their account")
        return
    try:
        found = case.google.get("iam", f"/v1/{wanted.name}")
        pool = case.google.get("iam", f"/v1/{wanted.pool_name}")
    except NotFound:
        yield wrong("provider", f"{wanted.name} does not exist", bootstrap(case), "no-provider")
        return
    except ShipError as error:
        yield of_error("provider", error, case.context(), looking=True)
        return
    for what, one in (("provider", found), ("pool", pool)):
        if one.get("state") != "ACTIVE" or one.get("disabled"):
            state = "disabled" if one.get("disabled") else str(one.get("state")).lower()
            yield wrong("provider", f"the {what} {one['name']} is {state}", bootstrap(case))
            return
    problems = [*_differences(wanted, found)]
    for problem in problems:
        yield wrong("provider", problem, bootstrap(case), "attribute-condition")
    if not problems and case.repository:
        of = case.repository
        yield ok(
            "provider",
            f"accepts only jobs of {of.owner}/{of.name} (repository {of.repository_id}, owner"
            f" {of.owner_id}) on {workflows.BRANCH}",
        )


def _differences(wanted: Provider, found: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each way in which a provider differs from the plan."""
    issuer = (found.get("oidc") or {}).get("issuerUri")
    if issuer != wanted.issuer:
        yield f"the provider accepts tokens of {issuer}, not of {wanted.issuer}"
    if found.get("attributeMapping") != wanted.mapping:
        yield "the provider's attribute mapping is not the one that the roles are granted to"
    has = _parts(found.get("attributeCondition", ""))
    should = _parts(wanted.condition)
    lacking, extra = [p for p in should if p not in has], [p for p in has if p not in should]
    if lacking:
        instead = f" but has {' && '.join(extra)}" if extra else ""
        yield f"the provider's condition lacks {' && '.join(lacking)}{instead}"
    elif extra:
        yield f"the provider's condition also requires {' && '.join(extra)}"


def _parts(condition: str) -> list[str]:
    return [" ".join(part.split()) for part in condition.split("&&") if part.strip()]


def bindings(case: Case, plan: Federation) -> Iterator[Finding]:
    """Check that every planned role is granted."""
    policies: dict[Resource, dict[str, Any]] = {}
    missing: list[Binding] = []
    for binding in plan.bindings:
        if binding.resource not in policies:
            try:
                policies[binding.resource] = cloud.policy(case.google, binding.resource)
            except NotFound:
                policies[binding.resource] = {}
            except ShipError as error:
                yield of_error("roles", error, case.context(), looking=True)
                return
        if not steps.granted(policies[binding.resource].get("bindings") or [], binding):
            missing.append(binding)
    for binding in missing:
        who = binding.member.rpartition("/attribute.")[2]
        found = f"{who} has no {binding.role} on {binding.resource.path}: {binding.why}"
        yield wrong("roles", found, bootstrap(case))
    if not missing:
        yield ok("roles", f"all {len(plan.bindings)} roles are granted")


def roles(case: Case, plan: Federation) -> Iterator[Finding]:
    """Check that the custom roles exist and hold exactly the planned permissions."""
    yield from _things(case, "custom-roles", [*map(setup_wanted.role, plan.roles)])


def triggers(case: Case, plan: Federation) -> Iterator[Finding]:
    """Check that Cloud Build's triggers hold the builds of the files here."""
    if plan.by_jobs:
        return
    if case.connection is None:
        yield skipped("triggers", "are not checked without --connection NAME")
        return
    try:
        wanted = setup_triggers.wanted(plan, case.pipelines, case.connection)
    except UsageError as error:
        yield wrong("triggers", error.message, error.hint or "fix the file")
        return
    yield from _things(case, "triggers", wanted)


def _things(case: Case, check: str, wanted: Sequence[Thing]) -> Iterator[Finding]:
    """Check that resources exist and are as planned."""
    differ = []
    for thing in wanted:
        try:
            found = case.google.get(thing.api, thing.path)
        except NotFound:
            differ.append(f"{thing.kind} {thing.name} does not exist")
            continue
        except ShipError as error:
            yield of_error(check, error, case.context(), looking=True)
            return
        if step := steps.make(thing, found):
            is_deleted = step.does == "restore"
            differ.append(f"{thing.kind} {thing.name} is deleted" if is_deleted else
                          f"{step.what} is not what the files here say")  # fmt: skip
    for difference in differ:
        yield wrong(check, difference, bootstrap(case))
    if not differ:
        yield ok(check, f"all {len(wanted)} are as planned")


def provenance(case: Case) -> Iterator[Finding]:
    """Check that the images that the environment takes can have provenance at all.

    GitHub signs for a private repository on its Enterprise plan alone, and then with an instance
    that has no transparency log, which Sigstore's library requires.
    https://docs.github.com/en/actions/concepts/security/artifact-attestations
    """
    if not case.pipeline.verifies_provenance:
        yield ok("provenance", f"{case.pipeline.env} does not ask for it")
        return
    name = git.github_name(case.root)
    signs = f"{case.pipeline.env} takes only images that build.yml of {name} signed"
    why = ""
    if case.by_cloud_build:
        why = "Cloud Build does not sign as GitHub's build.yml does"
    elif name and github.is_private(name):
        why = f"{name} is private, and GitHub signs nothing for it that can be checked"
    if not why:
        yield ok("provenance", signs)
        return
    file = f"pipelines/{case.pipeline.service}/{case.pipeline.env}.yaml"
    yield wrong("provenance", f"{why}: every deploy would be refused", f"verify: none in {file}")


def unplanned(case: Case, why: str) -> Iterator[Finding]:
    """Report the checks that need the repository's or a project's number, which is unknown."""
    if why:
        yield skipped("access", f"accounts, provider and roles are not checked: {why}")
    else:
        number = f"these credentials may not read the number of project {case.unnumbered[0]}"
        yield skipped("access", f"provider and roles are not checked: {number}")


def bootstrap(case: Case) -> str:
    """Return the command that sets the environment up."""
    connection = case.connection or "NAME"
    more = f" --trigger cloud-build --connection {connection}" if case.by_cloud_build else ""
    return f"./ship bootstrap --env {case.pipeline.env}{more}"
