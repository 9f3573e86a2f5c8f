"""`ship doctor` says what is wrong in words that people know, and names the command that mends it.

Each test breaks one thing in a project that bootstrap has set up, reads the answer, and mends it
as it was told to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from platform import machine
from typing import Any

import pytest
import requests

from emulator.recorder import VARIABLE
from scripts.cloud import known_errors
from scripts.config import pipelines
from scripts.doctor import access
from scripts.doctor.case import Case
from tests.conftest import LocalCloudRun
from tests.emulator.registry_help import Client
from tests.scripts.bootstrap_help import ADMIN, NAME, OPS, STAGING, Team
from tests.scripts.conftest import Project
from tests.scripts.test_bad_input import free_port

IDS = {
    "GITHUB_REPOSITORY": "acme/app",
    "GITHUB_REPOSITORY_ID": "4711",
    "GITHUB_REPOSITORY_OWNER_ID": "42",
}
BOOTSTRAP = "./ship bootstrap --env staging"
SERVICES = f"projects/{STAGING}/locations/us-central1/services"
REPOSITORY = f"projects/{OPS}/locations/us-central1/repositories/services"
Finding = dict[str, str]


class Patient(Team):
    """A team whose staging is set up, and has served a commit."""

    def __init__(self, folder: Path, cloud_run: LocalCloudRun, access: str = "private") -> None:
        super().__init__(folder, cloud_run, access)
        self.variables = self.set_up("staging")["variables"]
        self.http = self.owner_of_projects()
        self.url = cloud_run.url

    def deliver(self) -> None:
        self.done("staging", "build", build=True)
        self.done("staging", "deliver")

    def speak_as(self, which: str, **claims: Any) -> str:
        """The credentials of the job that is the PUSHER or the DEPLOYER."""
        self.owner.provider = self.variables["WORKLOAD_IDENTITY_PROVIDER"]
        if which == "DEPLOYER":
            claims.setdefault("environment", "staging")
        job = self.owner.job(**claims)
        return str(self.owner.credentials(self.folder / "job.json", job, self.variables[which]))

    def doctor(
        self,
        *,
        env: str = "staging",
        credentials: str | None = None,
        words: tuple[str, ...] = (),
        **more: str,
    ) -> tuple[int, list[Finding]]:
        ended = self.project.ship(
            "doctor", "--env", env, "--format", "json", *words,
            **{"GOOGLE_APPLICATION_CREDENTIALS": credentials or str(self.admin), **IDS, **more},
        )  # fmt: skip
        assert "Traceback" not in ended.stderr, ended.stderr
        document = json.loads(ended.stdout)
        assert document["ok"] == (ended.returncode == 0)
        return ended.returncode, document["findings"]

    def wrong(self, **how: Any) -> list[Finding]:
        """What is wrong; every one of it with what mends it."""
        code, findings = self.doctor(**how)
        found = [one for one in findings if one["state"] == "wrong"]
        assert code == (1 if found else 0)
        assert all(one["mend"] for one in found), found
        return found

    def one_wrong(self, check: str, **how: Any) -> Finding:
        [found] = self.wrong(**how)
        assert found["check"] == check, found
        return found

    def api(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, f"{self.url}/v1/{path}", json=body, timeout=20)
        assert answer.ok, answer.text
        return answer.json()

    @contextmanager
    def without_role(self, resource: str, role: str, method: str = "GET") -> Iterator[None]:
        """While a role is taken away from everybody who has it on a resource."""
        before = self.api(method, f"{resource}:getIamPolicy")
        kept = [one for one in before["bindings"] if one["role"] != role]
        assert kept != before["bindings"], before
        self.api("POST", f"{resource}:setIamPolicy", {"policy": {"bindings": kept}})
        try:
            yield
        finally:
            policy = {"policy": {"bindings": before["bindings"]}}
            self.api("POST", f"{resource}:setIamPolicy", policy)

    @contextmanager
    def fault(self, name: str, **settings: Any) -> Iterator[None]:
        body = {"name": name, **settings}
        assert requests.post(f"{self.url}/_local/faults", json=body, timeout=9).ok
        try:
            yield
        finally:
            assert requests.delete(f"{self.url}/_local/faults/{name}", timeout=9).ok

    def mended(self) -> None:
        """Type the bootstrap that was named; then nothing is wrong."""
        self.set_up("staging")
        assert self.wrong() == []

    @contextmanager
    def file(self, name: str, change: Callable[[str], str]) -> Iterator[None]:
        """While a file of the pipeline says something else."""
        path = self.project.pipeline / name
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before
        try:
            yield
        finally:
            path.write_text(before)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """One that every test leaves as it was."""
    folder = tmp_path_factory.mktemp("doctor")
    cloud_run = LocalCloudRun(folder / "state", "--iam", "enforce")
    made = Patient(folder, cloud_run)
    made.deliver()
    yield made
    made.http.close()
    made.owner.http.close()
    cloud_run.stop()


def test_nothing_is_wrong(patient: Patient) -> None:
    code, findings = patient.doctor()
    assert code == 0
    said = {one["check"]: one["found"] for one in findings if one["state"] == "ok"}
    assert {"files", "git", "docker", "network", "clock", "credentials", "project", "apis",
            "registry", "image", "service", "permissions", "accounts", "provider",
            "roles"} <= said.keys()  # fmt: skip
    assert said["credentials"] == f"they are good: {ADMIN}"
    assert "lets in jobs of acme/app (repository 4711, owner 42)" in said["provider"]
    table = patient.project.ship(
        "doctor", "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=str(patient.admin), **IDS
    )
    assert table.returncode == 0
    assert table.stdout.startswith("CHECK")
    assert "nothing is wrong" in table.stderr


@pytest.mark.parametrize("which", ["PUSHER", "DEPLOYER"])
def test_each_identity_has_what_its_job_takes(patient: Patient, which: str) -> None:
    """They may not look at accounts and policies, which is no fault."""
    code, findings = patient.doctor(credentials=patient.speak_as(which))
    assert code == 0, findings
    [permissions] = [one for one in findings if one["check"] == "permissions"]
    assert permissions["found"].startswith(f"{patient.variables[which]} has all")
    assert [one["check"] for one in findings if one["state"] == "skipped"]


def test_the_local_environment_needs_nothing(project: Project) -> None:
    ended = project.ship("doctor")
    assert ended.returncode == 0, ended.stdout
    assert "local takes none" in ended.stdout


def test_it_only_reads(patient: Patient) -> None:
    """I10: not a request that writes, but those that Cloud Run only tries."""
    with patient.file(
        "staging.yaml", lambda text: text.replace("access: private", "access: public")
    ):
        assert patient.wrong() == []
    assert patient.set_up("staging")["steps"] == []


# Files


def test_a_broken_file(patient: Patient) -> None:
    with patient.file("staging.yaml", lambda text: text.replace("steps:", "stepz:")):
        found = patient.one_wrong("files")
    assert "staging.yaml" in found["found"]
    assert "rollout.stepz: unknown key" in found["found"]


def test_no_account_to_run_as(patient: Patient) -> None:
    with patient.file("staging.yaml", lambda text: text.partition("overlay:")[0]):
        [found, *_] = patient.wrong()
    assert found["check"] == "files"
    assert "no serviceAccountName in the overlay" in found["found"]


# This machine


def test_nobody_answers(patient: Patient) -> None:
    found = patient.one_wrong("network", SHIPWAY_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert "does not answer" in found["found"]


def test_a_wrong_clock(patient: Patient) -> None:
    with patient.fault("clock-skew", seconds=900):
        found = patient.one_wrong("clock")
    # The header has whole seconds.
    assert re.match(r"this machine's clock is (899|900|901) s behind Google's", found["found"])
    assert found["mend"] == "sudo timedatectl set-ntp true"


def test_no_credentials(patient: Patient, tmp_path: Path) -> None:
    nowhere = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"}
    found = patient.one_wrong("credentials", GOOGLE_APPLICATION_CREDENTIALS="", **nowhere)
    assert found["found"] == "there are no Google credentials on this machine"
    assert found["mend"] == "gcloud auth application-default login"


def test_a_job_of_another_repository(patient: Patient) -> None:
    found = patient.one_wrong(
        "credentials", credentials=patient.speak_as("DEPLOYER", repository_id="9")
    )
    assert found["known"] == "attribute-condition"
    assert "Google does not let this job in" in found["found"]


def fake_docker(folder: Path, script: str) -> dict[str, str]:
    """A PATH with git and a docker that does what the script says; with none for ""."""
    git = shutil.which("git")
    assert git
    (folder / "git").symlink_to(git)
    if script:
        (folder / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "docker").chmod(0o755)
    return {"PATH": str(folder)}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("", "docker is not installed"),
        (
            "echo 'Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?'"
            " >&2; exit 1",
            "no Docker engine runs here",
        ),
        (
            '[ "$1" = version ] && echo 20.10 && exit 0\n'
            "echo \"docker: 'buildx' is not a docker command.\" >&2; exit 1",
            "this Docker has no buildx",
        ),
    ],
)
def test_docker(patient: Patient, tmp_path: Path, script: str, said: str) -> None:
    with patient.file("staging.yaml", lambda text: text.replace("builder: pack", "")):
        found = [
            one
            for one in patient.wrong(**fake_docker(tmp_path, script))
            if one["check"] == "docker"
        ]
    assert [one["found"].startswith(said) for one in found] == [True], found


# Projects


def test_a_bare_project(patient: Patient) -> None:
    """What is behind an API that is not enabled is told once."""
    [found] = patient.wrong(env="production")
    assert found["check"] == "apis"
    assert found["found"].startswith("not enabled in team-prod: cloudresourcemanager.")
    assert found["mend"].startswith("gcloud services enable cloudresourcemanager.googleapis.com ")
    assert found["mend"].endswith(" --project team-prod")


def test_an_api_that_was_disabled(patient: Patient) -> None:
    run = f"projects/{STAGING}/services/run.googleapis.com"
    patient.api("POST", f"{run}:disable", {})
    found = patient.one_wrong("apis")
    assert found["found"] == f"not enabled in {STAGING}: run.googleapis.com"
    # A deployer may not list APIs: the call itself says it.
    as_deployer = patient.wrong(credentials=patient.speak_as("DEPLOYER"))
    assert {one["known"] for one in as_deployer} == {"api-disabled"}
    told = {one["mend"] for one in as_deployer}
    assert told == {f"gcloud services enable run.googleapis.com --project {STAGING}"}
    patient.api("POST", f"{run}:enable", {})
    assert patient.wrong() == []


def test_quota(patient: Patient) -> None:
    with patient.fault("quota-exceeded", service="artifactregistry.googleapis.com"):
        found = patient.wrong()
    assert {one["known"] for one in found} == {"quota"}
    assert {"registry", "roles"} <= {one["check"] for one in found}
    assert found[0]["found"].startswith("the quota of artifactregistry.googleapis.com")
    assert found[0]["mend"].startswith("wait a minute")


def test_the_registrys_token_exchange(patient: Patient) -> None:
    with patient.fault("token-exchange"):
        found = patient.one_wrong("image")
    assert found["known"] == "token-exchange"
    assert f"the registry of {OPS} does not take these credentials: {ADMIN}" in found["found"]


def test_an_image_for_another_platform(patient: Patient) -> None:
    before = patient.project.git("rev-parse", "HEAD")
    sha = patient.project.commit()
    client = Client(patient.url, f"{OPS}/services/{NAME}")
    client.session.headers.update(patient.http.headers)
    client.image(sha, "linux/s390x")
    found = patient.one_wrong("image")
    patient.project.git("reset", "--hard", "--quiet", before)
    assert found["known"] == "wrong-platform"
    assert "is for linux/s390x, and not for linux/" in found["found"]


def with_secret(text: str) -> str:
    return text.replace(
        "        - image: app\n",
        "        - image: app\n          env:\n            - name: KEY\n              valueFrom:\n"
        "                secretKeyRef: {name: key, key: latest}\n",
    )


def test_secrets(patient: Patient) -> None:
    with patient.file("service.yaml", with_secret):
        missing = {one["check"]: one for one in patient.wrong()}
        assert "secretmanager.googleapis.com" in missing["apis"]["found"]
        patient.set_up("staging")
        empty = patient.one_wrong("secrets")
        assert (empty["found"], empty["known"]) == ("key has no value", "secret-missing")
        assert empty["mend"].startswith(f"gcloud secrets versions add key --project={STAGING}")
        value = {"payload": {"data": "c2VjcmV0"}}
        patient.api("POST", f"projects/{STAGING}/secrets/key:addVersion", value)
        assert patient.wrong() == []
        one = f"projects/{STAGING}/secrets/key/versions/1"
        patient.api("POST", f"{one}:disable", {})
        assert patient.one_wrong("secrets")["found"] == "the newest value of key is disabled"
        patient.api("DELETE", f"projects/{STAGING}/secrets/key")
        gone = {one["check"]: one for one in patient.wrong()}
        assert gone["secrets"]["found"] == f"there is no secret key in {STAGING}"
        assert gone["secrets"]["mend"] == BOOTSTRAP
    assert patient.wrong() == []


def test_a_policy_of_the_organisation(patient: Patient) -> None:
    public = patient.file("staging.yaml", lambda text: text.replace("private", "public"))
    with patient.fault("org-policy-invoker"), public:
        found = patient.one_wrong("access")
    assert found["known"] == "org-policy-invoker"
    assert "a policy of your organisation" in found["found"]
    assert found["mend"].startswith(f"write access: private in pipelines/{NAME}/staging.yaml")


# Access


@pytest.mark.parametrize(
    ("resource", "role", "method"),
    [
        (REPOSITORY, "roles/artifactregistry.writer", "GET"),
        (f"projects/{STAGING}", "roles/logging.viewer", "POST"),
        (f"{SERVICES}/{NAME}", "roles/run.developer", "GET"),
        (
            f"projects/{STAGING}/serviceAccounts/runtime@{STAGING}.iam.gserviceaccount.com",
            "roles/iam.serviceAccountUser",
            "POST",
        ),
    ],
)
def test_a_role_that_was_taken_away(
    patient: Patient, resource: str, role: str, method: str
) -> None:
    which = "PUSHER" if "writer" in role else "DEPLOYER"
    with patient.without_role(resource, role, method):
        found = patient.one_wrong("roles")
        assert f"has no {role} on {resource}" in found["found"]
        assert found["mend"] == BOOTSTRAP
        lacking = patient.wrong(credentials=patient.speak_as(which))
        assert {one["known"] for one in lacking} == {"permission-denied"}
        assert lacking[0]["found"].startswith(f"{patient.variables[which]} lacks ")
        assert lacking[0]["mend"] == BOOTSTRAP
        patient.mended()


def test_a_role_that_somebody_else_has(patient: Patient) -> None:
    resource, role = f"{SERVICES}/{NAME}", "roles/run.developer"
    with patient.without_role(resource, role):
        patient.give(resource, role, "user:somebody@example.com")
        patient.give(
            resource, role, f"serviceAccount:{patient.variables['DEPLOYER']}",
            condition={"title": "once", "expression": "false"},
        )  # fmt: skip
        found = patient.one_wrong("roles")
    assert f"has no {role} on {resource}" in found["found"]


def test_a_person_who_may_not(patient: Patient) -> None:
    """The command that is named gives just what is missing."""
    email = f"dev@{STAGING}.iam.gserviceaccount.com"
    base = f"projects/{STAGING}/serviceAccounts"
    patient.api("POST", base, {"accountId": "dev-person"})
    email = f"dev-person@{STAGING}.iam.gserviceaccount.com"
    pool = patient.variables["WORKLOAD_IDENTITY_PROVIDER"].partition("/providers/")[0]
    member = f"principalSet://iam.googleapis.com/{pool}/*"
    binding = {"role": "roles/iam.workloadIdentityUser", "members": [member]}
    patient.api("POST", f"{base}/{email}:setIamPolicy", {"policy": {"bindings": [binding]}})
    patient.owner.provider = patient.variables["WORKLOAD_IDENTITY_PROVIDER"]
    file = patient.owner.credentials(patient.folder / "dev.json", patient.owner.job(), email)
    found = patient.wrong(credentials=str(file))
    mends = {one["mend"] for one in found if one["check"] == "permissions"}
    assert (
        f"gcloud artifacts repositories add-iam-policy-binding services"
        f" --role=roles/artifactregistry.writer --member=serviceAccount:{email}"
        f" --location=us-central1 --project={OPS}"
    ) in mends
    assert any(f"gcloud projects add-iam-policy-binding {STAGING}" in mend for mend in mends)
    patient.api("DELETE", f"{base}/{email}")


def test_an_account_that_is_gone(patient: Patient) -> None:
    deployer = patient.variables["DEPLOYER"]
    patient.api("DELETE", f"projects/{STAGING}/serviceAccounts/{deployer}")
    found = {one["check"]: one for one in patient.wrong()}
    assert f"not there: {deployer}" in found["accounts"]["found"]
    assert found["accounts"]["mend"] == BOOTSTRAP
    patient.mended()


def test_the_provider(patient: Patient) -> None:
    provider = patient.variables["WORKLOAD_IDENTITY_PROVIDER"]

    def change(**fields: Any) -> Finding:
        patient.api("PATCH", f"{provider}?updateMask={','.join(fields)}", fields)
        [found] = [one for one in patient.wrong() if one["check"] == "provider"]
        assert found["mend"] == BOOTSTRAP
        return found

    condition = patient.api("GET", provider)["attributeCondition"]
    other = condition.replace("'4711'", "'815'")
    assert (
        "does not say assertion.repository_id == '4711', but: assertion.repository_id == '815'"
    ) in change(attributeCondition=other)["found"]
    patient.mended()
    # Spaces are no difference.
    patient.api(
        "PATCH", f"{provider}?updateMask=attributeCondition",
        {"attributeCondition": condition.replace(" && ", "  &&\n ")},
    )  # fmt: skip
    assert patient.wrong() == []
    mapping = {"google.subject": "assertion.sub"}
    assert "maps other attributes" in change(attributeMapping=mapping)["found"]
    patient.mended()
    patient.api("DELETE", provider)
    [found] = patient.wrong()
    assert found["found"].endswith(f"{provider} is deleted")
    patient.mended()


def test_another_repository_than_the_one_that_was_set_up(patient: Patient) -> None:
    found = {one["check"]: one for one in patient.wrong(GITHUB_REPOSITORY_ID="815")}
    assert "providers/github-815" in found["provider"]["found"]
    assert "push-815@" in found["accounts"]["found"]


def test_a_repository_that_is_named(patient: Patient) -> None:
    words = ("--repository", "acme/app", "--repository-id", "815", "--owner-id", "42")
    found = {one["check"]: one for one in patient.wrong(words=words)}
    assert "providers/github-815" in found["provider"]["found"]


def test_a_repository_that_nobody_knows(patient: Patient) -> None:
    code, findings = patient.doctor(GITHUB_REPOSITORY="")
    assert code == 0
    [skipped] = [one for one in findings if one["check"] == "access"]
    assert "which repository at GitHub delivers?" in skipped["found"]


def test_cloud_builds_one_identity_has_what_a_build_takes(patient: Patient) -> None:
    code, findings = patient.doctor(words=("--trigger", "cloud-build"))
    assert code == 1
    by = {one["check"]: one for one in findings}
    assert by["provider"]["found"].startswith("not needed")
    assert "build-4711@team-ops" in by["accounts"]["found"]
    assert "--trigger cloud-build" in by["accounts"]["mend"]


def build(patient: Patient, **settings: str) -> None:
    patient.project.commit(**settings)
    built = patient.project.ship(
        "build", "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=patient.speak_as("PUSHER")
    )
    assert built.returncode == 0, built.stderr


def asked_since(start: int) -> set[str]:
    """The permissions that Google's APIs asked for since the recorded file had `start` bytes."""
    lines = map(json.loads, Path(os.environ[VARIABLE]).read_bytes()[start:].splitlines())
    return {line["permission"] for line in lines if line["agent"] == "shipway"} - {""}


def test_a_delivery_uses_no_other_permission(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the doctor asks about is held against what a delivery is asked for."""
    for name, value in IDS.items():
        monkeypatch.setenv(name, value)
    build(patient)
    start = Path(os.environ[VARIABLE]).stat().st_size
    ended = patient.project.ship(
        "deliver", "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=patient.speak_as("DEPLOYER")
    )
    assert ended.returncode == 0, ended.stderr
    case = Case(patient.project.folder, pipelines.load(patient.project.folder, NAME, "staging"))
    case.account = patient.variables["DEPLOYER"]
    needed = {need.permission for need in access.needs_of(case, case.plan())}
    # To speak as the deployer is what the provider and the roles are looked at for.
    speaking = {"iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.getOpenIdToken"}
    asked = asked_since(start) - speaking
    assert {"run.services.update", "run.revisions.list"} <= asked
    assert asked <= needed


# Deliver's failures


def fails(patient: Patient, verb: str, which: str, **more: str) -> str:
    ended = patient.project.ship(
        verb, "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=patient.speak_as(which), **more
    )
    assert ended.returncode in (1, 2), ended.stderr
    assert ended.stderr.count("ship: ") == 1, ended.stderr
    assert f"-> ./ship doctor {NAME} --env staging" in ended.stderr
    return ended.stderr


def test_a_delivery_that_is_denied_says_to_whom(patient: Patient) -> None:
    build(patient)
    with patient.without_role(f"{SERVICES}/{NAME}", "roles/run.developer"):
        said = fails(patient, "deliver", "DEPLOYER")
    deployer = patient.variables["DEPLOYER"]
    assert f"That is: {deployer} lacks run.services." in said
    assert f"-> {BOOTSTRAP}" in said


def test_a_push_that_is_denied_says_to_whom(patient: Patient) -> None:
    patient.project.commit()
    with patient.without_role(REPOSITORY, "roles/artifactregistry.writer"):
        said = fails(patient, "build", "PUSHER")
    assert f"That is: {patient.variables['PUSHER']} lacks artifactregistry." in said
    with patient.fault("token-exchange"):
        said = fails(patient, "build", "PUSHER")
    assert f"That is: the registry of {OPS} does not take these credentials" in said


def test_what_docker_says_of_a_push_is_read(patient: Patient, tmp_path: Path) -> None:
    patient.project.commit()
    docker = fake_docker(
        tmp_path,
        'case "$2" in inspect) echo "Driver: docker"; exit 0;; esac\n'
        "echo \"ERROR: denied: Token exchange failed for project 'team-ops'. Caller does not have"
        " permission 'artifactregistry.repositories.uploadArtifacts'.\" >&2; exit 1",
    )
    with patient.file("staging.yaml", lambda text: text.replace("builder: pack", "")):
        patient.project.git("commit", "--quiet", "--all", "--message", "with docker")
        said = fails(patient, "build", "PUSHER", **docker)
    patient.project.git("commit", "--quiet", "--all", "--message", "without")
    assert "That is: the registry of team-ops does not take these credentials" in said
    assert f"{patient.variables['PUSHER']} may not push there" in said


def test_an_image_for_another_platform_is_not_delivered(patient: Patient) -> None:
    sha = patient.project.commit()
    client = Client(patient.url, f"{OPS}/services/{NAME}")
    client.session.headers.update(patient.http.headers)
    client.image(sha, "linux/arm64" if machine() == "x86_64" else "linux/amd64")
    ended = patient.project.ship(
        "deliver", "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=patient.speak_as("DEPLOYER")
    )
    assert ended.returncode == 3, ended.stderr
    assert "That is: the image is not for the platform" in ended.stderr
    patient.project.commit()


def test_a_container_that_does_not_listen(patient: Patient) -> None:
    # What the container writes is no word of Google's.
    build(patient, start="exit", note="Permission 'storage.objects.get' denied on resource 'x'")
    said = fails(patient, "deliver", "DEPLOYER")
    assert "starting Permission 'storage.objects.get' denied" in said
    assert "That is: the container did not listen on $PORT in time" in said
    found = patient.one_wrong("service")
    assert found["known"] == "port"
    patient.project.commit(start="listen")
    patient.deliver()
    assert patient.wrong() == []


def test_a_disabled_api_ends_a_delivery_with_the_command(patient: Patient) -> None:
    run = f"projects/{STAGING}/services/run.googleapis.com"
    patient.api("POST", f"{run}:disable", {})
    said = fails(patient, "deliver", "DEPLOYER")
    patient.api("POST", f"{run}:enable", {})
    assert "That is: the API run.googleapis.com is not enabled" in said
    assert "-> gcloud services enable run.googleapis.com --project" in said


def test_what_the_doctor_knows_nothing_of_is_left_as_it_is(patient: Patient) -> None:
    ended = patient.project.ship("deliver", "--env", "stagin")
    assert "doctor" not in ended.stderr


def test_no_billing_account_ends_a_bootstrap_with_the_command(patient: Patient) -> None:
    with patient.fault("no-billing"):
        ended = patient.bootstrap("production", "--yes")
    assert ended.returncode == 1
    assert re.search(r"That is: project \d+ has no billing account", ended.stderr), ended.stderr
    assert "-> gcloud billing projects link " in ended.stderr
    assert f"-> ./ship doctor {NAME} --env production" in ended.stderr


def test_the_words_of_a_policy_that_forbids_all_users(patient: Patient) -> None:
    """Nothing of ours grants it; whoever does it by hand meets the same words."""
    binding = {"role": "roles/run.invoker", "members": ["allUsers"]}
    with patient.fault("org-policy-domains"):
        answer = patient.http.post(
            f"{patient.url}/v1/{SERVICES}/{NAME}:setIamPolicy",
            json={"policy": {"bindings": [binding]}},
            timeout=20,
        )
    found = known_errors.explain(answer.json()["error"]["message"])
    assert found is not None
    assert found.name == "org-policy"
    assert "forbids allUsers" in found.says


# Removing what images need comes last: it takes them with it.


def test_no_repository(patient: Patient) -> None:
    patient.api("DELETE", REPOSITORY)
    found = {one["check"]: one for one in patient.wrong()}
    assert found["registry"]["found"].startswith("there is no repository us-central1-docker")
    assert found["registry"]["mend"] == BOOTSTRAP
    said = fails(patient, "build", "PUSHER")
    assert "denied" in said
    patient.mended()


def test_what_production_needs_of_staging(patient: Patient) -> None:
    """Its deployer reads there whether a digest has served."""
    deployer = patient.set_up("production")["variables"]["DEPLOYER"]
    patient.owner.provider = patient.variables["WORKLOAD_IDENTITY_PROVIDER"]
    job = patient.owner.job(environment="production")
    file = str(patient.owner.credentials(patient.folder / "job.json", job, deployer))
    assert patient.wrong(env="production", credentials=file) == []
    with patient.without_role(f"projects/{STAGING}", "roles/run.viewer", "POST"):
        found = patient.wrong(env="production", credentials=file)
    assert [one["found"] for one in found] == [
        f"{deployer} lacks {permission} on projects/{STAGING}: sees that a digest has served in"
        " staging"
        for permission in ("run.services.get", "run.revisions.list")
    ]


def test_what_mends_it_is_listed_once(patient: Patient) -> None:
    with patient.without_role(f"{SERVICES}/{NAME}", "roles/run.developer"):
        ended = patient.project.ship(
            "doctor", "--env", "staging",
            GOOGLE_APPLICATION_CREDENTIALS=patient.speak_as("DEPLOYER"), **IDS,
        )  # fmt: skip
    assert ended.returncode == 1
    listed = ended.stdout.partition("what mends it, in this order:\n")[2]
    assert listed == f"{BOOTSTRAP}\n"


def test_bad_usage_is_no_finding(patient: Patient) -> None:
    assert patient.project.ship("doctor", "--env", "stagin").returncode == 2
    assert patient.project.ship("doctor", "other", "--env", "staging").returncode == 2


def test_no_secret_is_shown(patient: Patient) -> None:
    """I9: no token in what it says, whatever happens."""
    ended = patient.project.ship(
        "doctor", "--env", "staging", "--debug",
        GOOGLE_APPLICATION_CREDENTIALS=str(patient.admin), **IDS,
    )  # fmt: skip
    for text in (ended.stdout, ended.stderr):
        assert "ya29." not in text
        assert "eyJ" not in text
