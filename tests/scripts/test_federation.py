"""Which jobs get an identity: permissions.py's condition and bindings, on the local token service.

Each refusal is tested twice: with the whole condition, and with a provider that lacks the part that
should refuse the token. The second provider accepts it, which proves that this part refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa

from emulator.identity.roles import ROLES
from scripts.config import workflows
from scripts.errors import UsageError
from scripts.setup import github, permissions, resources
from scripts.setup.permissions import Federation
from scripts.setup.resources import Account
from tests.conftest import LocalCloudRun
from tests.federation_help import NUMBERS, REPOSITORY, pipeline, planned
from tests.identity_help import Owner

FILES = "acme/app/.github/workflows"
MAIN = workflows.BRANCH
DELIVER, BUILD, DELIVER_TO, WATCH = (
    f"{FILES}/{name}.yml@{MAIN}" for name in ("deliver", "build", "deliver-to", "watch")
)
MINE = {"repository": "acme/app", "repository_id": "4711", "repository_owner_id": "42"}


class Door:
    """A local token service with the pool, its providers, and the accounts of two environments."""

    def __init__(self, cloud_run: LocalCloudRun) -> None:
        self.owner = Owner(cloud_run)
        url = cloud_run.url
        self.plans = {e: planned(e, self.owner.issuer) for e in ("staging", "production")}
        self.provider = self.plans["staging"].provider
        base = f"{url}/v1/projects/{self.provider.project}/locations/global/workloadIdentityPools"
        self.owner.post(f"{base}?workloadIdentityPoolId={self.provider.pool}", {})
        self.providers = f"{base}/{self.provider.pool}/providers?workloadIdentityPoolProviderId="
        self.make(self.provider.id, self.provider.condition)
        conditions = REPOSITORY.conditions()
        for name in conditions:
            rest = [text for part, text in conditions.items() if part != name]
            self.make(f"without-{name}", " && ".join(rest))
        for plan in self.plans.values():
            for binding in plan.bindings:
                if binding.role == permissions.IMPERSONATE:
                    self.owner.grant(binding.resource.path, binding.role, binding.member)

    def make(self, name: str, condition: str) -> None:
        self.owner.post(
            f"{self.providers}{name}",
            {
                "attributeMapping": self.provider.mapping,
                "attributeCondition": condition,
                "oidc": {"issuerUri": self.provider.issuer},
            },
        )

    def name(self, provider: str) -> str:
        return f"{self.provider.pool_name}/providers/{provider}"

    def token(self, claims: dict[str, Any], provider: str, audience: str = "") -> str:
        """Return a token of the job that builds, with other claims."""
        asked = audience or f"https://iam.googleapis.com/{self.name(provider)}"
        claims = {**MINE, **claims}
        built = BUILD.replace(MINE["repository"], claims["repository"])
        return self.owner.github_token(audience=asked, **{"job_workflow_ref": built, **claims})

    def exchange(self, token: str, provider: str = "") -> requests.Response:
        return requests.post(
            f"{self.owner.url}/v1/token",
            json={
                "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
                "audience": f"//iam.googleapis.com/{self.name(provider or self.provider.id)}",
                "scope": "https://www.googleapis.com/auth/cloud-platform",
                "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
                "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt",
                "subjectToken": token,
            },
        )

    def knock(self, claims: dict[str, Any], provider: str = "") -> requests.Response:
        name = provider or self.provider.id
        return self.exchange(self.token(claims, name), name)

    def speaks_as(self, account: Account, claims: dict[str, Any]) -> int:
        """Return the status of a job's request for an access token of an account."""
        entered = self.knock(claims)
        assert entered.ok, entered.text
        answer = requests.post(
            f"{self.owner.url}/v1/projects/-/serviceAccounts/{account.email}:generateAccessToken",
            json={"scope": ["https://www.googleapis.com/auth/cloud-platform"]},
            headers={"Authorization": f"Bearer {entered.json()['access_token']}"},
        )
        return answer.status_code


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    cloud_run = LocalCloudRun(tmp_path_factory.mktemp("door") / "state", "--iam", "enforce")
    made = Door(cloud_run)
    yield made
    made.owner.http.close()
    cloud_run.stop()


@pytest.mark.parametrize(
    "claims",
    [
        {},
        # deliver.yml calls deliver-to.yml for an environment.
        {"job_workflow_ref": DELIVER_TO, "environment": "production"},
        {"event_name": "workflow_dispatch", "workflow_ref": f"{FILES}/rollback.yml@{MAIN}",
         "job_workflow_ref": f"{FILES}/rollback.yml@{MAIN}", "environment": "production"},
        # The watch, on its schedule and by hand.
        {"event_name": "schedule", "workflow_ref": WATCH, "job_workflow_ref": WATCH,
         "environment": "production"},
        {"event_name": "workflow_dispatch", "workflow_ref": WATCH, "job_workflow_ref": WATCH},
        # Renamed by its owner: the numbers stay.
        {"repository": "acme/renamed"},
        # The form of the subject in repositories made since June 2026, and one over Google's limit.
        {"sub": "repo:acme-42/app-4711:ref:refs/heads/main"},
        {"sub": "repo:acme/app:environment:" + "x" * 127},
    ],
)  # fmt: skip
def test_the_main_branch_of_this_repository_gets_in(door: Door, claims: dict[str, Any]) -> None:
    entered = door.knock(claims)
    assert entered.ok, entered.text


@pytest.mark.parametrize(
    ("stopped_by", "claims"),
    [
        # Another repository of the same owner.
        ("repository", {"repository": "acme/other", "repository_id": "9"}),
        # The name was freed and someone else took it, with or without the repository.
        ("owner", {"repository_owner_id": "666"}),
        ("repository", {"repository_id": "9"}),
        # Another branch, although the workflow files are those of main.
        ("branch", {"ref": "refs/heads/evil", "workflow_ref": DELIVER}),
        ("branch", {"ref": "refs/heads/main2", "workflow_ref": DELIVER}),
        ("branch", {"ref": "refs/tags/main", "workflow_ref": DELIVER}),
        ("branch", {"ref": "refs/heads/evil", "workflow_ref": DELIVER,
                    "job_workflow_ref": DELIVER_TO}),
        # Events that a stranger can cause, which run main's files on main.
        ("event", {"event_name": "pull_request_target"}),
        ("event", {"event_name": "issue_comment"}),
        ("event", {"event_name": "workflow_run"}),
        # A schedule of another file than the watch's.
        ("event", {"event_name": "schedule"}),
        ("event", {"event_name": "schedule", "workflow_ref": DELIVER, "job_workflow_ref": WATCH}),
        # Another workflow of this repository, another branch's or a nameless one calls
        # deliver-to.yml or build.yml.
        ("workflow", {"workflow_ref": f"{FILES}/docs.yml@{MAIN}"}),
        ("workflow", {"workflow_ref": f"{FILES}/docs.yml@{MAIN}", "environment": "production",
                      "job_workflow_ref": DELIVER_TO}),
        ("workflow", {"workflow_ref": f"{FILES}/deliver.yml@refs/heads/evil",
                      "job_workflow_ref": DELIVER_TO}),
        ("workflow", {"workflow_ref": None, "job_workflow_ref": DELIVER_TO}),
        # A job is in deliver.yml itself, or in another file that it calls: of this repository, of
        # another one or of a branch.
        ("job", {"job_workflow_ref": DELIVER}),
        ("job", {"job_workflow_ref": f"{FILES}/docs.yml@{MAIN}"}),
        ("job", {"job_workflow_ref": "evil/x/.github/workflows/deliver-to.yml@refs/heads/main"}),
        ("job", {"job_workflow_ref": f"{FILES}/deliver-to.yml@refs/heads/evil"}),
        ("job", {"job_workflow_ref": None}),
        # A machine of someone else that registered as a runner of this repository.
        ("runner", {"runner_environment": "self-hosted"}),
        ("runner", {"runner_environment": None}),
        # A re-run of an old commit, whose code and workflow files main no longer has.
        ("attempt", {"run_attempt": "2", "sha": "0" * 40}),
        ("attempt", {"run_attempt": "11"}),
        ("attempt", {"run_attempt": None}),
        # A claim is missing.
        ("owner", {"repository_owner_id": None}),
    ],
)  # fmt: skip
def test_each_part_of_the_condition_stops_a_token(
    door: Door, stopped_by: str, claims: dict[str, Any]
) -> None:
    refused = door.knock(claims)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"] == "unauthorized_client"
    let_in = door.knock(claims, f"without-{stopped_by}")
    assert let_in.ok, let_in.text


@pytest.mark.parametrize(
    "claims",
    [
        # A fork, and its pull request: the numbers are the fork's.
        {"repository": "evil/app", "repository_id": "13", "repository_owner_id": "666"},
        # A pull request from a branch here: the reference is GitHub's merge of it.
        {"event_name": "pull_request", "ref": "refs/pull/7/merge"},
        {"event_name": "pull_request", "ref": "refs/pull/7/merge", "environment": "production"},
        {"ref": "refs/heads/evil"},
        {"ref": "refs/tags/v1"},
        {
            "workflow_ref": f"{FILES}/docs.yml@{MAIN}",
            "job_workflow_ref": f"{FILES}/docs.yml@{MAIN}",
        },
        {"repository_id": None},
    ],
)
def test_several_parts_stop_a_token(door: Door, claims: dict[str, Any]) -> None:
    refused = door.knock(claims)
    assert refused.status_code == 400, refused.text
    # Without the number the mapping fails, too.
    expected = "invalid_grant" if "repository_id" in claims and not claims["repository_id"] else ""
    assert refused.json()["error"] == (expected or "unauthorized_client")


def test_a_fork_can_let_self_hosted_runners_in(door: Door, tmp_path: Path) -> None:
    """With a line in .shipway.toml, which bootstrap and doctor read; nothing else changes."""
    record = tmp_path / ".shipway.toml"
    for line, expected in (("", "400"), ("self_hosted_runners = true", "200")):
        record.write_text(f'version = "0.2.0"\n{line}\n')
        ours = github.repository(tmp_path, "acme/app", 42, 4711)
        name = f"fork-{expected}"
        door.make(name, " && ".join(ours.conditions().values()))
        for runner, status in (("github-hosted", "200"), ("self-hosted", expected)):
            assert str(door.knock({"runner_environment": runner}, name).status_code) == status
        assert not door.knock({"runner_environment": "self-hosted", "run_attempt": "2"}, name).ok


def test_only_its_own_jobs_speak_as_an_account(door: Door) -> None:
    """The job in build.yml is the pusher, each environment's job its deployer, and no other is."""
    staging, production = door.plans["staging"], door.plans["production"]
    jobs: dict[str, dict[str, Any]] = {
        "build": {},
        "staging": {"environment": "staging", "job_workflow_ref": DELIVER_TO},
        "production": {"environment": "production", "job_workflow_ref": DELIVER_TO},
        "watch": {"event_name": "schedule", "workflow_ref": WATCH, "job_workflow_ref": WATCH},
        # An environment with the name of what the pusher's role is granted to.
        "other": {"environment": "build", "job_workflow_ref": DELIVER_TO},
        # Jobs without an environment in files that let them in.
        "deliver-to": {"job_workflow_ref": DELIVER_TO},
        "rollback": {
            "event_name": "workflow_dispatch",
            "workflow_ref": f"{FILES}/rollback.yml@{MAIN}",
            "job_workflow_ref": f"{FILES}/rollback.yml@{MAIN}",
        },
    }
    accounts = {
        "build": staging.pusher,
        "staging": staging.deployer,
        "production": production.deployer,
    }
    found = {
        (job, name): door.speaks_as(account, claims)
        for job, claims in jobs.items()
        for name, account in accounts.items()
    }
    assert found == {(job, name): 200 if job == name else 403 for job in jobs for name in accounts}
    for plan in door.plans.values():
        [runtime] = plan.runtimes
        assert {door.speaks_as(runtime, claims) for claims in jobs.values()} == {403}


def test_productions_deployer_needs_its_environment(door: Door) -> None:
    """The job that GitHub starts after the approval, and no other job of the same file."""
    deployer = door.plans["production"].deployer
    job = {"job_workflow_ref": DELIVER_TO}
    assert door.speaks_as(deployer, job) == 403
    assert door.speaks_as(deployer, {**job, "environment": "staging"}) == 403
    assert door.speaks_as(deployer, {**job, "environment": "production"}) == 200


def test_another_repository_of_the_same_pool_speaks_as_none(door: Door) -> None:
    """Members belong to the pool, so that the provider does not matter."""
    other = msgspec.structs.replace(REPOSITORY, repository_id=9, name="other")
    door.make("github-9", " && ".join(other.conditions().values()))
    claims = {
        **MINE, "repository": "acme/other", "repository_id": "9", "environment": "staging",
    }  # fmt: skip
    entered = door.knock(claims, "github-9")
    assert entered.ok, entered.text
    account = door.plans["staging"].deployer.email
    answer = requests.post(
        f"{door.owner.url}/v1/projects/-/serviceAccounts/{account}:generateAccessToken",
        json={"scope": ["https://www.googleapis.com/auth/cloud-platform"]},
        headers={"Authorization": f"Bearer {entered.json()['access_token']}"},
    )
    assert answer.status_code == 403


def test_tokens_of_another_issuer_or_for_another_audience(door: Door) -> None:
    """Wrong audience, expired, signed by another key, unsigned."""
    name = door.provider.id
    good = door.token({}, name)
    assert door.exchange(good).ok
    claims = jwt.decode(good, options={"verify_signature": False})
    header = {"kid": jwt.get_unverified_header(good)["kid"]}
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for token, said in (
        (door.token({}, name, audience="https://github.com/acme"), "audience in ID Token"),
        (door.token({}, name, f"https://iam.googleapis.com/{door.name('x')}"), "audience in ID"),
        (door.token({"iat": 1_700_000_000, "exp": 1_700_000_300}, name), "stale to sign-in"),
        (door.token({"iss": workflows.ISSUER}, name), "does not match the expected one"),
        (jwt.encode(claims, key, "RS256", header), "Unable to verify the ID Token signature"),
        (jwt.encode(claims, None, "none", header), "Unable to verify the ID Token signature"),
    ):
        refused = door.exchange(token)
        assert refused.status_code == 400
        assert refused.json()["error"] == "invalid_grant"
        assert said in refused.json()["error_description"]


def roles(plan: Federation, member: str) -> set[tuple[str, str]]:
    return {(b.role, b.resource.path) for b in plan.bindings if b.member == member}


def test_the_roles_of_production() -> None:
    """The complete list, so that a new role is a decision and not an accident."""
    plan = planned("production")
    region = "projects/acme-prod/locations/us-central1"
    images = "projects/acme-ops/locations/us-central1/repositories/services"
    assert roles(plan, plan.pusher.member) == {(permissions.ARTIFACT_WRITER, images)}
    assert roles(plan, plan.deployer.member) == {
        (permissions.ARTIFACT_READER, images),
        ("projects/acme-prod/roles/shipwayDeployer", f"{region}/services/app"),
        ("projects/acme-prod/roles/shipwayWatcher", "projects/acme-prod"),
        (permissions.RUN_VIEWER, "projects/acme-staging"),
        (
            permissions.ACT_AS,
            "projects/acme-prod/serviceAccounts/app-runtime@acme-prod.iam.gserviceaccount.com",
        ),
    }
    [runtime] = plan.runtimes
    assert roles(plan, runtime.member) == set()
    agent = f"service-{NUMBERS['acme-prod']}@serverless-robot-prod.iam.gserviceaccount.com"
    assert roles(plan, f"serviceAccount:{agent}") == {(permissions.ARTIFACT_READER, images)}
    assert plan.environment_variables == {
        "DEPLOYER": "deploy-production-4711@acme-prod.iam.gserviceaccount.com"
    }
    assert plan.repository_variables == {
        "WORKLOAD_IDENTITY_PROVIDER": f"projects/{NUMBERS['acme-ops']}/locations/global"
        "/workloadIdentityPools/shipway/providers/github-4711",
        "PUSHER": "push-4711@acme-ops.iam.gserviceaccount.com",
    }


def test_a_service_that_calls_another_may_invoke_it_if_it_is_private() -> None:
    other = "projects/acme-prod/locations/us-central1/services/ai"
    before, plan = (
        planned("production", access="private"),
        planned("production", access="private", calls=True),
    )
    [runtime] = plan.runtimes
    assert roles(plan, runtime.member) == {(permissions.RUN_INVOKER, other)}
    more = roles(plan, plan.deployer.member) - roles(before, before.deployer.member)
    assert more == {("projects/acme-prod/roles/shipwayDeployer", other)}, "it reads the URL"
    assert plan.roles == before.roles
    public = planned("production", calls=True)
    assert roles(public, runtime.member) == set()


def test_each_need_names_a_role_that_gives_its_permission() -> None:
    private = pipeline("production", access="private")
    runs_as = resources.runtime(private)
    needs = [
        *permissions.push_needs(private),
        *permissions.deploy_needs(private, runs_as),
        *permissions.earlier_needs(pipeline("staging")),
        *permissions.agent_needs(private),
    ]
    plan = planned("production", access="private")
    held = {**ROLES, **{role.name: role.permissions for role in plan.roles}}
    assert [need for need in needs if need.permission not in held[need.role]] == []
    given = {(b.role, b.resource) for b in plan.bindings}
    assert {(need.role, need.resource) for need in needs} <= given


def test_no_identity_can_change_access() -> None:
    """Nor act as an account other than the service's; roles on a whole project only read."""
    for env in ("staging", "production"):
        plan = planned(env)
        roles = {**ROLES, **{role.name: role.permissions for role in plan.roles}}
        for binding in plan.bindings:
            held = roles[binding.role]
            assert not {p for p in held if "setIamPolicy" in p or p.endswith("actAs")} or (
                binding.role == permissions.ACT_AS and binding.resource.kind == "account"
            )
            if binding.resource.kind == "project":
                verbs = {p.rpartition(".")[2] for p in held}
                assert verbs <= {"get", "list", "getIamPolicy"}, binding


def test_secrets_and_smoke_checks_of_a_private_service() -> None:
    staging = pipeline("staging")
    names = ("key", "theirs")
    container = {
        "image": "app",
        "env": [
            {"name": n, "valueFrom": {"secretKeyRef": {"name": n, "key": "latest"}}} for n in names
        ],
    }
    annotations = {"run.googleapis.com/secrets": "theirs:projects/acme-ops/secrets/shared"}
    overlay = {
        "spec": {"template": {"metadata": {"annotations": annotations}, "spec": {
            **staging.overlay["spec"]["template"]["spec"],
            "containers": [container],
            "volumes": [{"name": "v", "secret": {"secretName": "file"}}],
        }}}
    }  # fmt: skip
    private = msgspec.structs.replace(staging.environment, access="private")
    changed = msgspec.structs.replace(staging, overlay=overlay, environment=private)
    plan = permissions.plan(REPOSITORY, [changed], [], NUMBERS)
    [runtime] = plan.runtimes
    assert roles(plan, runtime.member) == {
        (permissions.SECRET_ACCESSOR, f"projects/{name}")
        for name in (
            "acme-staging/secrets/key",
            "acme-staging/secrets/file",
            "acme-ops/secrets/shared",
        )
    }
    service = "projects/acme-staging/locations/us-central1/services/app"
    assert (permissions.RUN_INVOKER, service) in roles(plan, plan.deployer.member)


def test_a_missing_account_to_run_as_is_reported() -> None:
    bare = msgspec.structs.replace(pipeline("staging"), overlay={})
    with pytest.raises(UsageError) as refused:
        permissions.plan(REPOSITORY, [bare], [], NUMBERS)
    assert "pipelines/app/staging.yaml: no serviceAccountName" in refused.value.message
    assert "app-runtime@acme-staging.iam.gserviceaccount.com" in str(refused.value.hint)


def test_names_of_accounts_fit_every_name_of_an_environment() -> None:
    for env in ("qa", "production", "a-very-long-name-of-an-environment", "Eins_Zwei", "eins-zwei"):
        named = msgspec.structs.replace(pipeline("staging"), env=env)
        wide = msgspec.structs.replace(REPOSITORY, repository_id=1234567890)
        account = permissions.plan(wide, [named], [], NUMBERS).deployer
        assert 6 <= len(account.id) <= 30
        assert account.id.replace("-", "").isalnum()
        assert account.id.islower()
