"""The roles of permissions.py are enough to deliver, and none is too many."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from scripts.setup import permissions, resources
from scripts.setup.permissions import Binding
from tests.scripts.bootstrap_help import NAME, PRODUCTION, STAGING, Team, team_of


@pytest.fixture(params=["public", "private"])
def team(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Team]:
    with team_of(tmp_path, request.param) as made:
        made.set_up("staging")
        made.set_up("production")
        yield made


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Yield a team that has delivered a commit of a private service everywhere."""
    with team_of(tmp_path_factory.mktemp("settled")) as made:
        made.set_up("staging")
        made.set_up("production")
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
        team.done("production", verb)


NEEDED = [
    # The role, its member, and what is printed without it.
    (permissions.IMPERSONATE, "push", "iam.serviceAccounts.getAccessToken"),
    (permissions.IMPERSONATE, "deploy", "iam.serviceAccounts.getAccessToken"),
    (permissions.ARTIFACT_WRITER, "push", "artifactregistry.repositories"),
    (permissions.BUILDER, "push", "cloudbuild.builds."),
    (permissions.OBJECT_CREATOR, "push", "storage.objects.create"),
    (permissions.OBJECT_VIEWER, "push", f"the account needs {permissions.OBJECT_VIEWER} on gs://"),
    (permissions.ACT_AS, "push", "act as service account"),
    (permissions.ARTIFACT_WRITER, "builder", "artifactregistry.repositories.uploadArtifacts"),
    (permissions.OBJECT_USER, "builder", "storage.objects.get"),
    (permissions.ARTIFACT_READER, "deploy", "artifactregistry.repositories.downloadArtifacts"),
    (permissions.DEPLOYER, "deploy", "PERMISSION_DENIED: Permission 'run.services."),
    (permissions.WATCHER, "deploy", "PERMISSION_DENIED: Permission 'run.revisions."),
    (permissions.RUN_INVOKER, "deploy", "403"),
    (permissions.RUN_VIEWER, "deploy", "PERMISSION_DENIED: Permission 'run."),
    (permissions.ACT_AS, "deploy", "iam.serviceaccounts.actAs"),
]
# Where a commit begins, it is built.
OF_BUILDS = [
    *((role, "push") for role in (
        permissions.BUILDER, permissions.OBJECT_CREATOR, permissions.OBJECT_VIEWER,
        permissions.ACT_AS,
    )),
    (permissions.ARTIFACT_WRITER, "builder"), (permissions.OBJECT_USER, "builder"),
]  # fmt: skip
ENVIRONMENTS = ["staging", "production"]


def named(role: str) -> str:
    """Return a role as the list above names it: a custom one by its ID."""
    return role if role.startswith("roles/") else role.rpartition("/")[2]


@pytest.mark.xdist_group("settled")
@pytest.mark.parametrize(
    ("env", "role", "whose", "error"),
    [
        (env, *needed)
        for env in ENVIRONMENTS
        for needed in NEEDED
        if env == "production" or needed[0] != permissions.RUN_VIEWER  # of the one before it
        if env == "staging" or needed[:2] not in OF_BUILDS
    ],
    ids=str,
)
def test_without_one_of_its_roles_a_delivery_fails(
    settled: Team, env: str, role: str, whose: str, error: str
) -> None:
    """The error names what is missing. The cases cover every binding of the environment.

    Only the log of a build is not needed: that it cannot be read is printed, once.
    """
    plan = settled.access(env)
    builders = plan.builders or [plan.pusher]
    mine = {"push": plan.pusher, "builder": builders[0]}.get(whose, plan.deployer).email
    taken = [
        b
        for b in plan.bindings
        if named(b.role) == role
        and (
            mine == b.member.partition(":")[2]
            or (mine == b.resource.name and role == permissions.IMPERSONATE)
        )
    ]
    assert taken
    settled.project.commit()
    if whose == "deploy" and role != permissions.IMPERSONATE:
        settled.done("staging", "build", build=True)
        if env == "production":
            settled.done("staging", "deliver")
    for binding in taken:
        settled.take(binding)
        if whose in ("push", "builder"):
            ended = settled.ship(env, "build", build=True)
        else:
            ended = settled.ship(env, "deliver")
        settled.give(binding.resource.path, binding.role, binding.member)
        assert (ended.returncode == 0) == (role == permissions.OBJECT_VIEWER), binding
        assert error in ended.stderr, ended.stderr
        if role == permissions.OBJECT_VIEWER:
            assert ended.stderr.count("cannot be read") == 1, ended.stderr


def whose(binding: Binding) -> str:
    """Return the account that a role is about, as the list above names it."""
    if "builder@" in binding.member:
        return "builder"
    return "push" if "push-" in f"{binding.member}{binding.resource.name}" else "deploy"


@pytest.mark.xdist_group("settled")
def test_every_role_is_in_the_list_above(settled: Team) -> None:
    given = {
        (named(b.role), whose(b))
        for plan in map(settled.access, ("staging", "production"))
        for b in plan.bindings
        if "serverless-robot-prod" not in b.member
    }
    assert given == {(role, whose) for role, whose, _ in NEEDED}


# The permission, and a command that fails without it.
USED_BY = {
    "run.services.get": "status",
    "run.services.update": "hold",
    "run.revisions.list": "status",
    "run.revisions.get": "deploy",
    "logging.logEntries.list": "logs",
}


@pytest.mark.xdist_group("settled")
@pytest.mark.parametrize(("permission", "verb"), USED_BY.items())
def test_without_one_permission_of_a_custom_role_a_command_fails(
    settled: Team, permission: str, verb: str
) -> None:
    [role] = [r for r in settled.access("staging").roles if permission in r.permissions]
    settled.project.commit()
    settled.done("staging", "build", build=True)
    url = f"{settled.owner.url}/v1/{role.name}"
    http = settled.owner_of_projects()
    kept = [one for one in role.permissions if one != permission]
    assert http.patch(url, json={"includedPermissions": kept}).ok
    try:
        ended = settled.ship("staging", verb)
    finally:
        assert http.patch(url, json={"includedPermissions": [*role.permissions]}).ok
    assert ended.returncode == 1, ended.stderr
    assert permission in ended.stderr, ended.stderr


@pytest.mark.xdist_group("settled")
def test_every_permission_of_a_custom_role_is_in_the_list_above(settled: Team) -> None:
    for env in ENVIRONMENTS:
        held = [p for role in settled.access(env).roles for p in role.permissions]
        builds = [*USED_BY_BUILDS, CANCELS] if env == "staging" else []
        assert sorted(held) == sorted([*USED_BY, *builds])


@pytest.mark.xdist_group("settled")
@pytest.mark.parametrize(
    ("source", "permission"),
    [("metrics", "monitoring.timeSeries.list"), ("logs", "logging.logEntries.list")],
)
def test_a_watch_needs_to_read_its_source(settled: Team, source: str, permission: str) -> None:
    """`bootstrap` gives the permission. Without it, the watch says so, and nothing is clear."""
    file = settled.project.pipeline / "staging.yaml"
    before = file.read_text()
    watch = f"{{delay: 0.2s, warm-up: 0s, after: 0s, unclear: go-on, source: {source}}}"
    file.write_text(before.replace("rollout:\n", f"rollout:\n  bake: 0.5s\n  watch: {watch}\n"))
    try:
        settled.set_up("staging")
        [role] = [r for r in settled.access("staging").roles if r.id == "shipwayWatcher"]
        assert permission in role.permissions
        assert ("monitoring.timeSeries.list" in role.permissions) is (source == "metrics")
        kept = [one for one in role.permissions if one != permission]
        http, url = settled.owner_of_projects(), f"{settled.owner.url}/v1/{role.name}"
        for held, seen in ((role.permissions, True), (kept, False)):
            assert http.patch(url, json={"includedPermissions": [*held]}).ok
            settled.project.commit()
            settled.done("staging", "build", build=True)
            ended = settled.ship("staging", "deliver")
            assert ended.returncode == 0, ended.stderr
            assert "0 answers, 200 are missing" in ended.stderr
            assert "was no worse" not in ended.stderr, "no one answered, or it was not seen"
            assert ("users' answers are not seen" in ended.stderr) is not seen, ended.stderr
            assert (permission in ended.stderr) is not seen
        assert http.patch(url, json={"includedPermissions": [*role.permissions]}).ok
    finally:
        file.write_text(before)


# The permission, and the fault that makes a build need it.
USED_BY_BUILDS = {
    "cloudbuild.builds.create": {},
    "cloudbuild.builds.get": {},
    "cloudbuild.builds.list": {"name": "lost", "method": "POST", "path": "*/builds", "times": 1},
}
CANCELS = "cloudbuild.builds.update"


@pytest.mark.xdist_group("settled")
@pytest.mark.parametrize(("permission", "fault"), USED_BY_BUILDS.items())
def test_without_one_permission_of_its_custom_role_a_build_fails(
    settled: Team, permission: str, fault: dict[str, str | int]
) -> None:
    [role] = [r for r in settled.access("staging").roles if permission in r.permissions]
    url, http = f"{settled.owner.url}/v1/{role.name}", settled.owner_of_projects()
    settled.project.commit()
    kept = [one for one in role.permissions if one != permission]
    assert http.patch(url, json={"includedPermissions": kept}).ok
    if fault:
        settled.project.cloud_run.local("POST", "faults", fault)
    try:
        ended = settled.ship("staging", "build", build=True)
    finally:
        assert http.patch(url, json={"includedPermissions": [*role.permissions]}).ok
        if fault:
            settled.project.cloud_run.local("DELETE", f"faults/{fault['name']}")
    assert ended.returncode == 1, ended.stderr
    assert permission in ended.stderr, ended.stderr


@pytest.mark.xdist_group("settled")
def test_a_deployer_touches_nothing_else(settled: Team) -> None:
    """Not another service, a secret or a policy; it cannot delete its own service or move it to
    another account. Nor may the pusher deploy."""
    owner, plan = settled.owner, settled.access("staging")
    theirs = settled.owner_of_projects()
    http = requests.Session()
    base = f"{owner.url}/v1/projects/{STAGING}"
    services = f"{base}/locations/us-central1/services"
    mine = theirs.get(f"{services}/{NAME}").json()
    other = {**mine, "metadata": {"name": "other"}}
    other.pop("status")
    other["spec"].pop("traffic", None)
    other["spec"]["template"]["metadata"] = {}
    for url, body in (
        (f"{base}/services/secretmanager.googleapis.com:enable", {}),
        (services, other),
        (f"{base}/secrets?secretId=key", {"replication": {"automatic": {}}}),
        (f"{base}/secrets/key:addVersion", {"payload": {"data": "eA=="}}),
    ):
        made = theirs.post(url, json=body)
        assert made.ok, made.text
    moved = json.loads(json.dumps(mine))
    moved["spec"]["template"]["metadata"].pop("name", None)
    moved["spec"]["template"]["spec"]["serviceAccountName"] = plan.deployer.email
    [revision, *_] = theirs.get(f"{base}/locations/us-central1/revisions").json()["items"]
    policy = {"policy": {"bindings": [{"role": "roles/owner", "members": ["allUsers"]}]}}
    for account in (plan.deployer, plan.pusher):
        http.headers["Authorization"] = f"Bearer {owner.token_of(account.member)}"
        asked = [
            ("DELETE", f"{services}/{NAME}", None),
            ("DELETE", f"{base}/locations/us-central1/revisions/{revision['metadata']['name']}",
             None),
            ("PUT", f"{services}/{NAME}", moved),
            ("POST", f"{base}/roles", {"roleId": "mine", "role": {}}),
            ("PATCH", f"{owner.url}/v1/{plan.roles[0].name}",
             {"includedPermissions": ["run.services.setIamPolicy"]}),
            ("PUT", f"{services}/other", theirs.get(f"{services}/other").json()),
            ("DELETE", f"{services}/other", None),
            ("POST", services, {**other, "metadata": {"name": "third"}}),
            ("GET", f"{base}/secrets/key/versions/latest:access", None),
            ("POST", f"{base}/secrets?secretId=more", {"replication": {"automatic": {}}}),
            ("POST", f"{base}:setIamPolicy", policy),
            ("POST", f"{services}/{NAME}:setIamPolicy", policy),
            ("POST", f"{base}/serviceAccounts/{plan.deployer.email}:setIamPolicy", policy),
            ("PUT", f"{owner.url}/v1/projects/{PRODUCTION}/locations/us-central1/services/{NAME}",
             mine),
            ("POST", f"{owner.url}/v1/{resources.of_account(plan.runtimes[0]).path}"
             ":generateAccessToken", {"scope": ["x"]}),
        ]  # fmt: skip
        for method, url, body in asked:
            answer = http.request(method, url, json=body)
            assert answer.status_code == 403, (method, url, answer.text)
    # Opening the service to everyone is a change of policy as well.
    http.headers["Authorization"] = f"Bearer {owner.token_of(plan.deployer.member)}"
    mine["metadata"]["annotations"]["run.googleapis.com/invoker-iam-disabled"] = "true"
    mine.pop("status")
    opened = http.put(f"{services}/{NAME}", json=mine)
    assert opened.status_code == 403
    assert "run.services.setIamPolicy" in opened.text
    http.close()
