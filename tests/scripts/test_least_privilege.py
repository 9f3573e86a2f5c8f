"""The roles of federation.py are enough to deliver, and none of them is too many."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.core import config, federation
from scripts.core.federation import Binding, Federation
from tests.conftest import LocalCloudRun
from tests.federation_help import NUMBERS, REPOSITORY
from tests.identity_help import Owner
from tests.scripts.conftest import Project

NAME = "svc"
PLACEHOLDER = "us-docker.pkg.dev/cloudrun/container/hello"
ENVIRONMENT = """
project: {project}
regions: [us-central1]
registry: us-central1-docker.pkg.dev/acme-ops/services
access: {access}
{after}
endpoint: {endpoint}
builder: pack
platform: host
rollout:
  steps: [50, 100]
overlay:
  spec:
    template:
      spec:
        serviceAccountName: app-runtime@{project}.iam.gserviceaccount.com
"""


class Team:
    """A repository, and two environments with just the roles that federation.py gives."""

    def __init__(self, folder: Path, cloud_run: LocalCloudRun, access: str) -> None:
        self.folder = folder
        self.project = Project(folder / "repository", cloud_run, NAME)
        for env, project, after in (
            ("staging", "acme-staging", ""),
            ("production", "acme-prod", "after: staging"),
        ):
            text = ENVIRONMENT.format(
                project=project, access=access, after=after, endpoint=cloud_run.url
            )
            (self.project.pipeline / f"{env}.yaml").write_text(text)
        self.project.commit()
        self.owner = Owner(cloud_run.url)
        self.plans = {env: self._plan(env) for env in ("staging", "production")}
        provider = self.plans["staging"].provider
        base = f"{cloud_run.url}/v1/projects/{provider.project}/locations/global"
        base += "/workloadIdentityPools"
        self.owner.post(f"{base}?workloadIdentityPoolId={provider.pool}", {})
        self.owner.post(
            f"{base}/{provider.pool}/providers?workloadIdentityPoolProviderId={provider.id}",
            {
                "attributeMapping": provider.mapping,
                "attributeCondition": provider.condition,
                "oidc": {"issuerUri": provider.issuer},
            },
        )
        self.owner.provider = provider.name
        for env, plan in self.plans.items():
            self._make_service(env, access)
            for binding in plan.bindings:
                self.owner.grant(binding.resource.path, binding.role, binding.member)

    def _plan(self, env: str) -> Federation:
        pipeline = config.load(self.project.folder, NAME, env)
        after = pipeline.environment.after
        earlier = [config.load(self.project.folder, NAME, after)] if after else []
        return federation.plan(REPOSITORY, [pipeline], earlier, NUMBERS, issuer=self.owner.issuer)

    def _make_service(self, env: str, access: str) -> None:
        """What the deployer may not do: it is made once, by whoever sets the project up."""
        project = config.load(self.project.folder, NAME, env).environment.project
        body = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {
                "name": NAME,
                "annotations": {
                    "run.googleapis.com/invoker-iam-disabled": str(access == "public").lower()
                },
            },
            "spec": {"template": {"spec": {
                "serviceAccountName": f"app-runtime@{project}.iam.gserviceaccount.com",
                "containers": [{"image": PLACEHOLDER}],
            }}},
        }  # fmt: skip
        url = f"{self.owner.url}/v1/projects/{project}/locations/us-central1/services"
        self.owner.post(url, body)

    def ship(self, env: str, *words: str, build: bool = False) -> subprocess.CompletedProcess[str]:
        """Type a command as that environment's job, or as the job that builds."""
        plan = self.plans[env]
        claims = {"repository": "acme/app", "repository_id": "4711", "repository_owner_id": "42"}
        if not build:
            claims["environment"] = env
        email = plan.pusher.email if build else plan.deployer.email
        file = self.owner.credentials(self.folder / "job.json", self.owner.job(**claims), email)
        return self.project.ship(*words, "--env", env, GOOGLE_APPLICATION_CREDENTIALS=str(file))

    def done(self, env: str, *words: str, build: bool = False) -> str:
        ended = self.ship(env, *words, build=build)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@contextmanager
def team_of(folder: Path, access: str) -> Iterator[Team]:
    cloud_run = LocalCloudRun(folder / "state", "--iam", "enforce")
    made = Team(folder, cloud_run, access)
    yield made
    made.owner.http.close()
    cloud_run.stop()


@pytest.fixture(params=["public", "private"])
def team(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Team]:
    with team_of(tmp_path, request.param) as made:
        yield made


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """One that has delivered a commit of a private service everywhere."""
    with team_of(tmp_path_factory.mktemp("settled"), "private") as made:
        made.done("staging", "build", build=True)
        for env in ("staging", "production"):
            made.done(env, "deliver")
        yield made


def test_a_commit_goes_to_production_and_back(team: Team) -> None:
    team.done("staging", "build", build=True)
    team.done("staging", "deliver")
    team.done("production", "deliver")
    team.project.commit()
    team.done("staging", "build", build=True)
    for env in ("staging", "production"):
        team.done(env, "deploy")
        team.done(env, "promote", "--to", "100")
        team.done(env, "rollback")
        team.done(env, "resume")
        for verb in ("status", "history", "smoke", "logs"):
            team.done(env, verb)


NEEDED = [
    # The role, on what kind of thing, whose; and what says so when it is not there.
    (federation.IMPERSONATE, "push", "iam.serviceAccounts.getAccessToken"),
    (federation.IMPERSONATE, "deploy", "iam.serviceAccounts.getAccessToken"),
    (federation.ARTIFACT_WRITER, "push", "artifactregistry.repositories"),
    (federation.ARTIFACT_READER, "deploy", "artifactregistry.repositories.downloadArtifacts"),
    (federation.RUN_DEVELOPER, "deploy", "run.services.update"),
    (federation.RUN_INVOKER, "deploy", "403"),
    (federation.RUN_VIEWER, "deploy", "PERMISSION_DENIED: Permission 'run."),
    (federation.ACT_AS, "deploy", "iam.serviceaccounts.actAs"),
    (federation.LOGS, "deploy", "logging.logEntries.list"),
]


def without(binding: Binding) -> Callable[[list[Any]], list[Any]]:
    """What takes one member's role out of a policy's bindings."""

    def change(kept: list[Any]) -> list[Any]:
        return [
            {**one, "members": [m for m in one["members"] if m != binding.member]}
            if one["role"] == binding.role
            else one
            for one in kept
        ]

    return change


@pytest.mark.parametrize("env", ["staging", "production"])
@pytest.mark.parametrize(("role", "whose", "said"), NEEDED, ids=lambda value: str(value))
def test_without_one_of_its_roles_a_delivery_fails(
    settled: Team, env: str, role: str, whose: str, said: str
) -> None:
    """And says what is missing. Every binding of the environment is in one of these cases."""
    plan = settled.plans[env]
    mine = (plan.pusher if whose == "push" else plan.deployer).email
    taken = [
        b
        for b in plan.bindings
        if b.role == role and mine in (b.member.partition(":")[2], b.resource.name)
    ]
    assert taken
    settled.project.commit()
    if whose == "deploy":
        settled.done("staging", "build", build=True)
        if env == "production":
            settled.done("staging", "deliver")
    for binding in taken:
        settled.owner.change(binding.resource.path, without(binding))
        if whose == "push":
            ended = settled.ship(env, "build", build=True)
        else:
            ended = settled.ship(env, "logs" if role == federation.LOGS else "deliver")
        settled.owner.grant(binding.resource.path, binding.role, binding.member)
        assert ended.returncode != 0, binding
        assert said in ended.stderr, ended.stderr


def test_every_role_is_in_the_list_above(settled: Team) -> None:
    given = {
        (b.role, "push" if "push-" in f"{b.member}{b.resource.name}" else "deploy")
        for plan in settled.plans.values()
        for b in plan.bindings
        if "serverless-robot-prod" not in b.member
    }
    assert given == {(role, whose) for role, whose, _ in NEEDED}


def test_a_deployer_touches_nothing_else(settled: Team) -> None:
    """Another service, a secret, a policy: nor may the pusher deploy."""
    owner, plan = settled.owner, settled.plans["staging"]
    http = requests.Session()
    base = f"{owner.url}/v1/projects/acme-staging"
    services = f"{base}/locations/us-central1/services"
    mine = owner.http.get(f"{services}/{NAME}").json()
    other = {**mine, "metadata": {"name": "other"}}
    other.pop("status")
    other["spec"].pop("traffic", None)
    other["spec"]["template"]["metadata"] = {}
    owner.post(services, other)
    owner.post(f"{base}/secrets?secretId=key", {"replication": {"automatic": {}}})
    owner.post(f"{base}/secrets/key:addVersion", {"payload": {"data": "eA=="}})
    policy = {"policy": {"bindings": [{"role": "roles/owner", "members": ["allUsers"]}]}}
    for account in (plan.deployer, plan.pusher):
        http.headers["Authorization"] = f"Bearer {owner.token_of(account.member)}"
        asked = [
            ("PUT", f"{services}/other", owner.http.get(f"{services}/other").json()),
            ("DELETE", f"{services}/other", None),
            ("POST", services, {**other, "metadata": {"name": "third"}}),
            ("GET", f"{base}/secrets/key/versions/latest:access", None),
            ("POST", f"{base}/secrets?secretId=more", {"replication": {"automatic": {}}}),
            ("POST", f"{base}:setIamPolicy", policy),
            ("POST", f"{services}/{NAME}:setIamPolicy", policy),
            ("POST", f"{base}/serviceAccounts/{plan.deployer.email}:setIamPolicy", policy),
            ("PUT", f"{owner.url}/v1/projects/acme-prod/locations/us-central1/services/{NAME}",
             mine),
            ("POST", f"{owner.url}/v1/{federation.of_account(plan.runtimes[0]).path}"
             ":generateAccessToken", {"scope": ["x"]}),
        ]  # fmt: skip
        for method, url, body in asked:
            answer = http.request(method, url, json=body)
            assert answer.status_code == 403, (method, url, answer.text)
    # Opening the service to everybody is a change of who may do what, too.
    http.headers["Authorization"] = f"Bearer {owner.token_of(plan.deployer.member)}"
    mine["metadata"]["annotations"]["run.googleapis.com/invoker-iam-disabled"] = "true"
    mine.pop("status")
    opened = http.put(f"{services}/{NAME}", json=mine)
    assert opened.status_code == 403
    assert "run.services.setIamPolicy" in opened.text
    http.close()
