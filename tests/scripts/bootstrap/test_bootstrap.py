"""`./ship bootstrap`: from bare projects to a delivery, and what can go wrong on the way."""

from __future__ import annotations

import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from typing import Any, ClassVar

import pytest
import requests
from google.oauth2.credentials import Credentials
from rich.console import Console

from scripts.cloud.google import Google
from scripts.cloud.patience import Patience
from scripts.command import failure
from scripts.command.record import Record
from scripts.command.tables import Table, rich_table
from scripts.config import pipelines
from scripts.config.pipelines import ENDPOINT_VARIABLE
from scripts.errors import Refused, Unknown
from scripts.setup import cloud, permissions, resources, steps
from tests.conftest import ROOT
from tests.emulator.cloud_run_help import CloudRun
from tests.relay import Relay, Spoiled
from tests.scripts.bootstrap_help import (
    ADMIN,
    CLOUD_BUILD,
    IDS,
    NAME,
    OPS,
    STAGING,
    Team,
    without_gh,
)

SERVICE = f"projects/{STAGING}/locations/us-central1/services/{NAME}"


def read(team: Team, path: str) -> Any:
    return team.owner_of_projects().get(f"{team.owner.url}/v1/{path}").json()


def test_from_bare_projects_to_production_and_not_a_change_more(team: Team) -> None:
    first = team.plan("staging")
    assert [step["does"] for step in first["steps"][:2]] == ["enable", "enable"]
    assert team.plan("staging") == first, "a dry run changes nothing (I10)"
    made = team.set_up("staging")
    assert made["steps"] == first["steps"]
    team.set_up("production")
    # A second run has nothing to do, also after deliveries.
    team.done("staging", "build", build=True)
    for env in ("staging", "production"):
        assert team.set_up(env)["steps"] == []
        team.done(env, "deliver")
        assert team.plan(env)["steps"] == []


def test_the_first_delivery_replaces_googles_sample(team: Team) -> None:
    """The sample is ready and serves, as at Google, if it can be pulled."""
    samples = CloudRun(team.owner.url, "cloudrun")
    samples.http.headers["Authorization"] = team.owner.http.headers["Authorization"]
    samples.push("hello", into="container")
    samples.http.close()
    team.set_up("staging")
    team.done("staging", "build", build=True)
    ended = team.ship("staging", "deliver")
    assert ended.returncode == 0, ended.stderr
    assert "50 %" in ended.stderr, "it has a predecessor: the steps are taken (I4)"
    traffic = read(team, SERVICE)["status"]["traffic"]
    [serving] = [target["revisionName"] for target in traffic if target.get("percent")]
    assert serving == team.project.revision(team.project.git("rev-parse", "HEAD"))


def test_killed_anywhere_it_continues_where_it_stopped(team: Team) -> None:
    total = len(team.plan("staging")["steps"])
    left = total
    for word in ("pool", "roles/iam.serviceAccountUser"):
        with team.project.start(
            *("bootstrap", "--env", "staging", *IDS, "--yes"),
            GOOGLE_APPLICATION_CREDENTIALS=str(team.admin),
        ) as running:
            assert running.stderr is not None
            for line in running.stderr:
                if word in line:
                    running.send_signal(signal.SIGKILL)
                    break
        now = len(team.plan("staging")["steps"])
        assert 0 < now < left
        left = now
    team.set_up("staging")
    assert team.plan("staging")["steps"] == []


def test_concurrent_changes_of_a_policy_are_kept(team: Team) -> None:
    """Someone else writes each policy between its read and its write."""
    others = "user:colleague@example.com"

    class Between(BaseHTTPRequestHandler):
        seen: ClassVar[set[str]] = set()

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition(":setIamPolicy")[0]
            if self.command == "PUT" and path.endswith("/iam"):
                path = path.removesuffix("/iam").replace("/storage/v1/", "/v1/")
            if path != self.path and path not in self.seen:
                self.seen.add(path)
                team.give(path.removeprefix("/v1/"), "roles/viewer", others)
            answer = requests.request(
                self.command, team.owner.url + self.path, data=body, timeout=30,
                headers={"Authorization": self.headers["Authorization"],
                         "Content-Type": "application/json"},
            )  # fmt: skip
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_PUT = do_PATCH = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Between) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        ended = team.bootstrap("staging", "--yes", SHIPWAY_ENDPOINT=address)
        server.shutdown()
        thread.join()
    assert ended.returncode == 0, ended.stderr
    assert team.plan("staging")["steps"] == []
    resources = {binding.resource for binding in team.access("staging").bindings}
    assert {f"/v1/{resource.path}" for resource in resources} == Between.seen
    for resource in resources:
        assert others in json.dumps(team.policy(resource.path)), resource


def test_roles_of_others_are_kept_and_unplanned_ones_can_be_removed(
    team: Team,
) -> None:
    team.set_up("staging")
    plan = team.access("staging")
    project, account = f"projects/{STAGING}", resources.of_account(plan.deployer).path
    team.give(project, "roles/run.viewer", "user:colleague@example.com")
    team.give(project, "roles/run.admin", plan.deployer.member)
    team.give(account, permissions.IMPERSONATE, f"principalSet://iam.googleapis.com/"
              f"{plan.provider.pool_name}/*")  # fmt: skip
    team.give(
        project, "roles/run.admin", plan.deployer.member,
        condition={"title": "once", "expression": "request.auth.claims.x == 'y'"},
    )  # fmt: skip
    before = team.policy(project)
    told = team.bootstrap("staging", "--yes")
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("not planned: roles/") == 3
    assert team.policy(project) == before
    offered = team.plan("staging", "--prune")["steps"]
    assert {step["does"] for step in offered} == {"remove"}
    team.set_up("staging", "--prune")
    assert team.plan("staging", "--prune")["steps"] == []
    after = team.policy(project)
    assert {"role": "roles/run.viewer", "members": ["user:colleague@example.com"]} in after
    assert not [b for b in after if b["role"] == "roles/run.admin"]
    team.done("staging", "build", build=True)
    team.done("staging", "deliver")


def test_changed_or_deleted_resources_are_corrected(team: Team) -> None:
    team.set_up("staging")
    provider = team.access("staging").provider
    name = f"projects/{OPS}/locations/global/workloadIdentityPools/{provider.pool}"
    http = team.owner_of_projects()
    url = f"{team.owner.url}/v1/{name}/providers/{provider.id}"
    loose = {"attributeCondition": "assertion.repository_owner_id == '42'"}
    assert http.patch(url, json=loose, params={"updateMask": "attributeCondition"}).ok
    [step] = team.set_up("staging")["steps"]
    assert (step["does"], step["what"]) == ("change", f"provider {provider.id}: attributeCondition")
    assert http.get(url).json()["attributeCondition"] == provider.condition
    assert http.delete(url).ok
    assert http.delete(f"{team.owner.url}/v1/{name}").ok
    assert [step["does"] for step in team.set_up("staging")["steps"]] == ["restore", "restore"]
    team.done("staging", "build", build=True)
    team.done("staging", "deliver")


def test_a_service_is_opened_without_a_new_revision(team: Team) -> None:
    team.set_up("staging")
    team.done("staging", "build", build=True)
    team.done("staging", "deliver")
    before = read(team, SERVICE)
    file = team.project.pipeline / "staging.yaml"
    file.write_text(file.read_text().replace("access: private", "access: public"))
    team.project.commit()
    steps = team.set_up("staging")["steps"]
    assert [(step["does"], step["what"]) for step in steps] == [
        ("change", f"service {NAME} in us-central1: open to everyone")
    ]
    after = read(team, SERVICE)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"]["run.googleapis.com/invoker-iam-disabled"] == "true"
    team.done("staging", "build", build=True)
    team.done("staging", "deliver")


def test_an_existing_repository_stays_as_it_is(team: Team) -> None:
    http, url = team.owner_of_projects(), f"{team.owner.url}/v1/projects/{OPS}"
    for call, body in (
        ("services/artifactregistry.googleapis.com:enable", {}),
        ("locations/us-central1/repositories?repositoryId=services", {"format": "DOCKER"}),
    ):
        assert http.post(f"{url}/{call}", json=body).ok
    ended = team.bootstrap("staging", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert "repositories update services --immutable-tags" in ended.stdout
    there = http.get(f"{url}/locations/us-central1/repositories/services").json()
    assert "dockerConfig" not in there
    assert "cleanupPolicies" not in there


KEY = """
        containers:
          - name: main
            env:
              - name: KEY
                valueFrom:
                  secretKeyRef: {name: api-key, key: latest}
"""


def test_secrets_are_created_without_a_value(team: Team) -> None:
    file, manifest = team.project.pipeline / "staging.yaml", team.project.pipeline / "service.yaml"
    file.write_text(file.read_text().rstrip() + KEY)
    named = "- name: main\n          image: app"
    manifest.write_text(manifest.read_text().replace("- image: app", named))
    ended = team.bootstrap("staging", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert "give it a value: gcloud secrets versions add api-key" in ended.stdout
    http = team.owner_of_projects()
    secret = f"{team.owner.url}/v1/projects/{STAGING}/secrets/api-key"
    assert not http.get(f"{secret}/versions").json().get("versions")
    assert http.post(f"{secret}:addVersion", json={"payload": {"data": "eA=="}}).ok
    team.project.commit()
    team.done("staging", "build", build=True)
    team.done("staging", "deliver")


def test_without_permission_it_says_how_someone_else_can_do_it(team: Team) -> None:
    team.set_up("staging")
    for project in (STAGING, OPS):
        team.leave(project)
    ended = team.bootstrap("staging", "--yes")
    assert ended.returncode == 2
    assert f"project {OPS} does not exist, or you may not set it up" in ended.stderr
    assert "--explain" in ended.stderr


def test_a_terminal_of_80_columns_shows_the_whole_plan() -> None:
    row = ["grant", "team-staging", "roles/iam.serviceAccountUser on account"
           " runtime@team-staging.iam.gserviceaccount.com to"
           " deploy-staging-4711@team-staging.iam.gserviceaccount.com"]  # fmt: skip
    shown = StringIO()
    table = rich_table(Table(columns=["DO", "PROJECT", "WHAT"], rows=[row]), 80)
    Console(file=shown, width=80).print(table)
    words = shown.getvalue().split()
    assert words[:3] == ["DO", "PROJECT", "WHAT"]
    # A long word may be cut in two, but nothing is missing.
    assert "".join(words[3:]) == "".join(" ".join(row).split())


def test_without_a_terminal_it_asks_for_yes(team: Team) -> None:
    ended = team.bootstrap("staging")
    assert ended.returncode == 3
    assert "--dry-run shows them, --yes makes them" in ended.stderr
    assert len(team.plan("staging")["steps"]) > 10


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--env", "local"], "has credentials: none, so there is nothing to set up"),
        (["--env", "stagin"], "did you mean 'staging'?"),
        (["--env", "staging"], "--repository OWNER/NAME"),
        (["--env", "staging", "--repository", "acme"], "--repository OWNER/NAME"),
        (["--env", "staging", "--repository", "acme/app"], "gh is not installed"),
        (["--env", "staging", "--repository", "acme/app", "--owner-id", "x"], "invalid int value"),
    ],
)
def test_wrong_input_is_an_error_before_anything_is_sent(
    team: Team, words: list[str], error: str
) -> None:
    ended = team.project.ship("bootstrap", *words, PATH=without_gh(team.folder))
    assert ended.returncode == 2, ended.stderr
    assert error in ended.stderr


ADMINISTRATION = {
    OPS: ["serviceusage.serviceUsageAdmin", "artifactregistry.admin",
          "iam.workloadIdentityPoolAdmin", "iam.serviceAccountAdmin",
          # Where Cloud Build builds.
          "storage.admin", "iam.roleAdmin", "resourcemanager.projectIamAdmin"],
    STAGING: ["serviceusage.serviceUsageAdmin", "iam.serviceAccountAdmin", "iam.roleAdmin",
              "binaryauthorization.policyEditor",
              "iam.serviceAccountUser", "resourcemanager.projectIamAdmin", "run.admin"],
}  # fmt: skip


FOR_CLOUD_BUILD = ["cloudbuild.builds.editor", "iam.serviceAccountUser",
                   "resourcemanager.projectIamAdmin"]  # fmt: skip


@pytest.mark.parametrize("trigger", [(), CLOUD_BUILD], ids=["github", "cloud-build"])
def test_setting_up_does_not_need_an_owner(team: Team, trigger: tuple[str, ...]) -> None:
    """The roles that docs/security.md names are enough."""
    page = (ROOT / "docs" / "security.md").read_text()
    http = team.owner_of_projects()
    for project, roles in ADMINISTRATION.items():
        manager = f"projects/{project}/services/cloudresourcemanager.googleapis.com"
        assert http.post(f"{team.owner.url}/v1/{manager}:enable", json={}).ok
        more = FOR_CLOUD_BUILD if trigger and project == OPS else []
        for role in [*roles, *more]:
            assert f"`{role}`" in page
            team.give(f"projects/{project}", f"roles/{role}", f"serviceAccount:{ADMIN}")
    for project in ADMINISTRATION:
        team.leave(project)
    ended = team.bootstrap("staging", "--yes", "--binary-authorization", "enforce", *trigger)
    assert ended.returncode == 0, ended.stderr
    assert team.plan("staging", *trigger)["steps"] == []


def test_a_write_whose_answer_is_lost_is_read_again(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step, for as long as it is tried; then nobody answers, and it is called unknown."""
    answers = True

    def spoil(method: str, path: str) -> Spoiled | None:
        reads = method == "GET" or path.partition("?")[0].endswith(":getIamPolicy")
        return None if answers and reads else Spoiled("closed", done=answers)

    with Relay(team.owner.url, spoil=spoil) as relay:
        monkeypatch.setenv(ENDPOINT_VARIABLE, relay.url)
        declared = [pipelines.load(team.project.folder, NAME, "staging")]
        token = team.owner.token_of(f"serviceAccount:{ADMIN}")
        google = Google(declared[0], token=token, patience=Patience(0.1))
        access = team.access("staging")
        todo = steps.plan(access, declared, cloud.look(google, access, declared))
        kinds = {step.does: step for step in todo}
        assert {"enable", "create", "grant"} <= kinds.keys()
        for step in todo:
            cloud.do(google, step)
        assert team.plan("staging")["steps"] == []
        assert {write.outcome for write in google.writes} == {"done"}
        answers = False
        with pytest.raises(Unknown, match="in team-staging: it is not known whether"):
            cloud.do(google, next(step for step in todo if "runtime" in step.what))
    record = Record(verb="bootstrap", root=team.folder, writes=google.writes)
    error = failure.complete(Refused("no reviewer"), record)
    assert error.exit_code == 1
    assert "no reviewer; written: artifactregistry, " in error.message
    assert "unknown whether written: account" in error.message
    assert "written: artifactregistry, " in failure.interrupted(record).message


def test_a_users_requests_name_a_quota_project(team: Team) -> None:
    """The one that their credentials name, else bootstrap's; other verbs name none of their own."""
    token = team.owner.token_of(f"serviceAccount:{ADMIN}")
    path = f"/v1/projects/{STAGING}/services/run.googleapis.com"
    google = Google(pipelines.load(team.project.folder, NAME, "staging"))

    def asked(named: str | None, fallback: str | None) -> str | None:
        google.credentials.found = Credentials(token=token, quota_project_id=named)  # type: ignore[no-untyped-call]
        google.quota_project = fallback
        sent = []
        google.http.hooks["response"] = lambda answer, **_: sent.append(answer.request.headers)
        google.get("serviceusage", path)
        found: str | None = sent[0].get("X-Goog-User-Project")
        return found

    assert asked(OPS, STAGING) == OPS
    assert asked(None, STAGING) == STAGING
    assert asked(None, None) is None
