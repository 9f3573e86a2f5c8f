"""From bare projects to a delivery, and what can go wrong between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests
from google.oauth2.credentials import Credentials

from scripts.cloud.google import Google
from scripts.config import pipelines
from scripts.setup import permissions
from tests.conftest import ROOT
from tests.emulator.cloud_run_help import CloudRun
from tests.scripts.bootstrap_help import ADMIN, IDS, NAME, OPS, STAGING, Team, team_of

CONNECTED = f"projects/{OPS}/locations/us-central1/connections/github/repositories/acme-app"
CLOUD_BUILD = ("--trigger", "cloud-build", "--connection", CONNECTED)
SERVICE = f"projects/{STAGING}/locations/us-central1/services/{NAME}"


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with team_of(tmp_path) as made:
        yield made


def read(team: Team, path: str) -> Any:
    return team.owner_of_projects().get(f"{team.owner.url}/v1/{path}").json()


def test_from_bare_projects_to_production_and_not_a_change_more(team: Team) -> None:
    first = team.plan("staging")
    assert [step["does"] for step in first["steps"][:2]] == ["enable", "enable"]
    assert team.plan("staging") == first, "a dry run changes nothing (I10)"
    made = team.set_up("staging")
    assert made["steps"] == first["steps"]
    team.set_up("production")
    # Typed again it has nothing to do, also when everything has been delivered to.
    team.done("staging", "build", build=True)
    for env in ("staging", "production"):
        assert team.set_up(env)["steps"] == []
        team.done(env, "deliver")
        assert team.plan(env)["steps"] == []


def test_the_first_delivery_takes_the_place_of_googles_sample(team: Team) -> None:
    """Ready and serving, as at Google's, where the sample can be pulled."""
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


def test_killed_anywhere_it_goes_on_where_it_stopped(team: Team) -> None:
    total = len(team.plan("staging")["steps"])
    left = total
    for word in ("pool", "roles/run.viewer"):
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


def test_two_at_once_lose_nothing_of_each_other(team: Team) -> None:
    """Before each policy is written, somebody else writes it: between our reading and writing."""
    others = "user:colleague@example.com"

    class Between(BaseHTTPRequestHandler):
        seen: ClassVar[set[str]] = set()

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition(":setIamPolicy")[0]
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
        thread = threading.Thread(target=server.serve_forever)
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


def test_what_others_made_is_kept_and_what_we_have_besides_is_offered_for_removal(
    team: Team,
) -> None:
    team.set_up("staging")
    plan = team.access("staging")
    project, account = f"projects/{STAGING}", permissions.of_account(plan.deployer).path
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
    assert told.stdout.count("not planned here") == 3
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


def test_what_was_loosened_or_deleted_is_put_right(team: Team) -> None:
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


def test_a_service_is_opened_by_whoever_may_and_stays_as_it_is(team: Team) -> None:
    team.set_up("staging")
    team.done("staging", "build", build=True)
    team.done("staging", "deliver")
    before = read(team, SERVICE)
    file = team.project.pipeline / "staging.yaml"
    file.write_text(file.read_text().replace("access: private", "access: public"))
    team.project.commit()
    steps = team.set_up("staging")["steps"]
    assert [(step["does"], step["what"]) for step in steps] == [
        ("change", f"service {NAME} in us-central1: open to everybody")
    ]
    after = read(team, SERVICE)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"]["run.googleapis.com/invoker-iam-disabled"] == "true"
    team.done("staging", "build", build=True)
    team.done("staging", "deliver")


def test_a_repository_that_is_there_is_left_as_it_is(team: Team) -> None:
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


def test_secrets_are_made_without_a_value(team: Team) -> None:
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


def test_who_may_not_is_told_how_somebody_else_can(team: Team) -> None:
    team.set_up("staging")
    for project in (STAGING, OPS):
        team.leave(project)
    ended = team.bootstrap("staging", "--yes")
    assert ended.returncode == 2
    assert f"project {OPS} is not there, or not for you to set up" in ended.stderr
    assert "--explain" in ended.stderr


def test_nobody_there_to_be_asked(team: Team) -> None:
    ended = team.bootstrap("staging")
    assert ended.returncode == 3
    assert "--dry-run shows them, --yes makes them" in ended.stderr
    assert len(team.plan("staging")["steps"]) > 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--env", "local"], "says credentials: none: there is nothing to set up"),
        (["--env", "stagin"], "did you mean 'staging'?"),
        (["--env", "staging"], "--repository OWNER/NAME"),
        (["--env", "staging", "--repository", "acme"], "--repository OWNER/NAME"),
        (["--env", "staging", "--repository", "acme/app"], "gh is not installed"),
        (["--env", "staging", "--repository", "acme/app", "--owner-id", "x"], "invalid int value"),
    ],
)
def test_wrong_input_is_said_before_anything_is_sent(
    team: Team, words: list[str], said: str
) -> None:
    ended = team.project.ship("bootstrap", *words, PATH=without_gh())
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr


GH = """#!{python}
import json, os, sys
state = {state!r}
words = sys.argv[1:]
known = json.load(open(state))
known["calls"].append(words)
env = next((w.partition("=")[2] for w in words if w.startswith("--env=")), "")
if words[0] == "api" and words[1] == "repos/acme/app":
    print(json.dumps({{"id": 4711, "owner": {{"id": 42}}}}))
elif words[0] == "api" and words[1] == "--method=PUT":
    known["variables"][words[2].rpartition("/")[2]] = {{}}
elif words[0] == "api":
    sys.exit(words[1].rpartition("/")[2] not in known["variables"])
elif words[1] == "list":
    there = known["variables"].get(env, {{}})
    print(json.dumps([{{"name": n, "value": v}} for n, v in there.items()]))
elif words[1] == "set":
    known["variables"][env][words[2]] = words[3].partition("=")[2]
json.dump(known, open(state, "w"))
"""


def test_gh_knows_the_numbers_and_sets_the_variables(team: Team) -> None:
    """A stand-in for gh, which keeps variables as GitHub does."""
    state = team.folder / "gh.json"
    state.write_text(json.dumps({"variables": {"": {}}, "calls": []}))
    program = team.bin / "gh"
    program.write_text(GH.format(python=sys.executable, state=str(state)))
    program.chmod(0o755)
    path = f"{team.bin}{os.pathsep}{os.environ['PATH']}"
    words = ("bootstrap", "--env", "staging", "--repository", "acme/app")
    for extra in (("--dry-run",), ("--yes",), ("--yes",)):
        ended = team.project.ship(
            *words, *extra, PATH=path, GOOGLE_APPLICATION_CREDENTIALS=str(team.admin)
        )
        assert ended.returncode == 0, ended.stderr
        if extra == ("--dry-run",):
            assert json.loads(state.read_text())["variables"] == {"": {}}
            assert "gh variable set DEPLOYER" in ended.stdout
        else:
            assert "gh variable set" not in ended.stdout
    known = json.loads(state.read_text())
    plan = team.access("staging")
    assert known["variables"] == {
        "": plan.repository_variables,
        "staging": plan.environment_variables,
    }
    assert [c[1] for c in known["calls"]].count("set") == 3, "the second time nothing is set"
    assert not [c for c in known["calls"] if any("eyJ" in w or "ya29" in w for w in c)]


def without_gh() -> str:
    """The search path without the folders that hold gh."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(f for f in folders if not Path(f, "gh").exists())


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="left out: gcloud is not installed")
def test_gcloud_takes_every_command_that_is_explained(team: Team, tmp_path: Path) -> None:
    commands = explained(team, "staging")
    team.set_up("staging")
    assert explained(team, "staging") == []
    # All the other kinds of steps as well.
    plan = team.access("staging")
    http = team.owner_of_projects()
    pool = f"projects/{OPS}/locations/global/workloadIdentityPools/{plan.provider.pool}"
    assert http.delete(f"{team.owner.url}/v1/{pool}/providers/{plan.provider.id}").ok
    file = team.project.pipeline / "staging.yaml"
    file.write_text(file.read_text().replace("access: private", "access: public"))
    condition = {"title": "x", "expression": "true"}
    for resource in dict.fromkeys(b.resource for b in plan.bindings):
        team.give(resource.path, "roles/owner", plan.deployer.member)
        if resource.kind == "project":
            team.give(resource.path, "roles/editor", plan.deployer.member, condition=condition)
    commands += explained(team, "staging", "--prune")
    commands += explained(team, "staging", *CLOUD_BUILD)
    team.set_up("staging", *CLOUD_BUILD)
    triggers = f"{team.owner.url}/v1/{CONNECTED.rpartition('/conn')[0]}/triggers"
    for name in ("deliver-4711", "rollback-staging-4711"):
        assert http.patch(f"{triggers}/{name}", json={"substitutions": {"_X": "y"}}).ok
    commands += explained(team, "staging", *CLOUD_BUILD)
    commands = [*dict.fromkeys(commands)]
    assert len(commands) > 25
    checked = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={write(tmp_path, commands)}"],
        env={**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "gcloud")},
        # What would be piped into it: gcloud reads the file when it parses the command.
        input="[]", capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    answers = json.loads(checked.stdout)
    assert len(answers) == len(commands)
    assert not [a.get("error_message") for a in answers if not a.get("success")]


def explained(team: Team, env: str, *words: str) -> list[str]:
    """The commands for gcloud that are printed, without what is piped into them."""
    ended = team.bootstrap(env, "--explain", *words, PATH=without_gh())
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if not line.startswith(("#", "gh "))]
    return [line[line.index("gcloud ") :] for line in lines]


def write(folder: Path, commands: list[str]) -> Path:
    file = folder / "commands.json"
    file.write_text(json.dumps([{"command_string": command} for command in commands]))
    return file


ADMINISTRATION = {
    OPS: ["serviceusage.serviceUsageAdmin", "artifactregistry.admin",
          "iam.workloadIdentityPoolAdmin", "iam.serviceAccountAdmin"],
    STAGING: ["serviceusage.serviceUsageAdmin", "iam.serviceAccountAdmin",
              "iam.serviceAccountUser", "resourcemanager.projectIamAdmin", "run.admin"],
}  # fmt: skip


FOR_CLOUD_BUILD = ["cloudbuild.builds.editor", "iam.serviceAccountUser",
                   "resourcemanager.projectIamAdmin"]  # fmt: skip


@pytest.mark.parametrize("trigger", [(), CLOUD_BUILD], ids=["github", "cloud-build"])
def test_who_sets_up_need_not_own_the_projects(team: Team, trigger: tuple[str, ...]) -> None:
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
    ended = team.bootstrap("staging", "--yes", *trigger)
    assert ended.returncode == 0, ended.stderr
    assert team.plan("staging", *trigger)["steps"] == []


def test_cloud_build_gets_its_triggers_and_one_identity_that_delivers(team: Team) -> None:
    for env in ("staging", "production"):
        steps = team.set_up(env, *CLOUD_BUILD)["steps"]
        assert not [s for s in steps if "pool" in s["what"] or "workloadIdentity" in s["what"]]
        assert team.plan(env, *CLOUD_BUILD)["steps"] == []
    http, base = team.owner_of_projects(), f"{team.owner.url}/v1/{CONNECTED.rpartition('/conn')[0]}"
    triggers = {one["name"]: one for one in http.get(f"{base}/triggers").json()["triggers"]}
    assert sorted(triggers) == [
        "deliver-4711", "promote-production-4711", "promote-staging-4711",
        "resume-production-4711", "resume-staging-4711", "rollback-production-4711",
        "rollback-staging-4711",
    ]  # fmt: skip
    email = f"build-4711@{OPS}.iam.gserviceaccount.com"
    for one in triggers.values():
        assert one["serviceAccount"] == f"projects/{OPS}/serviceAccounts/{email}"
        assert one["substitutions"]["_SERVICE_ACCOUNT"] == email
    assert triggers["deliver-4711"]["repositoryEventConfig"]["push"] == {"branch": "^main$"}
    assert triggers["rollback-staging-4711"]["substitutions"]["_ENVIRONMENT"] == "staging"
    # One that was changed by hand is put right; what Google adds of its own is not a difference.
    own = {"repositoryEventConfig": {"repository": CONNECTED, "push": {"branch": ".*"}}}
    assert http.patch(f"{base}/triggers/deliver-4711", json=own).ok
    [step] = team.set_up("staging", *CLOUD_BUILD)["steps"]
    assert (step["does"], step["what"]) == ("change", "trigger deliver-4711: repositoryEventConfig")
    # The build's account delivers everywhere; who speaks as it here is the test's own affair.
    team.give(f"projects/{OPS}/serviceAccounts/{email}", permissions.IMPERSONATE,
              f"principalSet://iam.googleapis.com/{team.owner.pool}/*")  # fmt: skip
    file = team.owner.credentials(team.folder / "build.json", team.owner.job(), email)
    for verb, env in (
        ("build", "staging"), ("deliver", "staging"), ("deliver", "production"),
    ):  # fmt: skip
        words = (verb, "--env", env)
        ended = team.project.ship(*words, GOOGLE_APPLICATION_CREDENTIALS=str(file))
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--trigger", "cloud-build"],
        ["--connection", CONNECTED],
        ["--trigger", "cloud-build", "--connection", "acme/app"],
        ["--trigger", "cloud-build", "--connection", CONNECTED.replace(OPS, STAGING)],
    ],
)
def test_a_connection_that_cannot_be_is_refused(team: Team, words: list[str]) -> None:
    ended = team.bootstrap("staging", "--yes", *words)
    assert ended.returncode == 2
    assert "--connection" in ended.stderr
    assert len(team.plan("staging")["steps"]) > 10


def test_a_persons_requests_name_a_quota_project(team: Team) -> None:
    """The one that their credentials name, else bootstrap's; other verbs name none of their own."""
    token = team.owner.token_of(f"serviceAccount:{ADMIN}")
    path = f"/v1/projects/{STAGING}/services/run.googleapis.com"
    google = Google(pipelines.load(team.project.folder, NAME, "staging"))

    def asked(named: str | None, fallback: str | None) -> str | None:
        google._credentials = Credentials(token=token, quota_project_id=named)  # type: ignore[no-untyped-call]
        google.quota_project = fallback
        sent = []
        google.http.hooks["response"] = lambda answer, **_: sent.append(answer.request.headers)
        google.get("serviceusage", path)
        found: str | None = sent[0].get("X-Goog-User-Project")
        return found

    assert asked(OPS, STAGING) == OPS
    assert asked(None, STAGING) == STAGING
    assert asked(None, None) is None
