"""`ship doctor` on this machine: each problem is reported in plain words, with its fix."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.scripts.bootstrap_help import ADMIN, NAME
from tests.scripts.conftest import Project
from tests.scripts.doctor.doctor_help import (
    BOOTSTRAP,
    DEPLOYER,
    IDS,
    SERVICES,
    Patient,
    fake_docker,
)
from tests.scripts.test_bad_input import free_port


def test_nothing_is_wrong(patient: Patient) -> None:
    code, findings = patient.doctor()
    assert code == 0
    said = {one["check"]: one["found"] for one in findings if one["state"] == "ok"}
    tag, *others = [one for one in findings if one["state"] not in ("ok", "skipped")]
    assert tag["state"] == "warning"
    assert "is named by a tag" in tag["found"]
    # Where this machine's Python is not the image's, that is the only other one.
    for interpreter in others:
        assert interpreter["state"] == "warning"
        assert "runs this machine's Python" in interpreter["found"]
    assert {"files", "git", "docker", "network", "clock", "credentials", "project", "apis",
            "registry", "image", "service", "permissions", "accounts", "provider",
            "roles", "custom-roles"} <= said.keys()  # fmt: skip
    assert said["credentials"] == f"valid: {ADMIN}"
    assert "accepts only jobs of acme/app (repository 4711, owner 42)" in said["provider"]
    table = patient.project.ship(
        "doctor", "--env", "staging", GOOGLE_APPLICATION_CREDENTIALS=str(patient.admin), **IDS
    )
    assert table.returncode == 0
    assert table.stdout.startswith("CHECK")
    assert f"nothing is wrong; {1 + len(others)} warning" in table.stderr


@pytest.mark.parametrize(
    ("which", "unreadable"),
    [
        ("PUSHER", ["project", "project", "apis", "apis", "service"]),
        ("DEPLOYER", ["project", "project", "apis", "apis"]),
    ],
)
def test_each_identity_has_what_its_job_needs(
    patient: Patient, which: str, unreadable: list[str]
) -> None:
    """They may not read accounts and policies, which is not a fault."""
    code, findings = patient.doctor(credentials=patient.speak_as(which))
    assert code == 0, findings
    [permissions] = [one for one in findings if one["check"] == "permissions"]
    assert permissions["found"].startswith(f"{patient.variables[which]} has all")
    skipped = [one["check"] for one in findings if one["state"] == "skipped"]
    at_github = ["environment", "main", "variables"]
    assert skipped == [*unreadable, "secrets", "accounts", "access", *at_github]


def test_the_local_environment_needs_nothing(project: Project) -> None:
    ended = project.ship("doctor")
    assert ended.returncode == 0, ended.stdout
    assert "local needs none" in ended.stdout


def test_what_the_local_cloud_run_cannot_build_is_known_before(project: Project) -> None:
    """Each step is named with its line, and what to write; and an interpreter that differs."""
    name = f"{project.name}/Dockerfile"
    file = project.folder / name
    steps = "RUN make install\nADD http://a.example /b\n"
    file.write_text(file.read_text().lstrip().replace("3.13", "3.1").replace("CMD", f"{steps}CMD"))
    project.commit()
    document = json.loads(project.ship("doctor", "--format", "json").stdout)
    found = [one for one in document["findings"] if one["check"] == "dockerfile"]
    [make, add] = [one for one in found if "make install" in one["found"] or "ADD" in one["found"]]
    assert make["found"].startswith(f"{name}:6: RUN make install: there is no operating system")
    assert make["fix"].startswith(f"{name}:6: write COPY of its result")
    assert add["fix"].startswith(f"{name}:7: write COPY")
    # Where an engine answers, Docker builds it.
    assert {make["state"], add["state"]} in ({"wrong"}, {"warning"})
    assert ("; Docker builds it" in make["found"]) == (make["state"] == "warning")
    [interpreter] = [one for one in found if "runs this machine's Python" in one["found"]]
    assert interpreter["state"] == "warning"


def test_it_only_reads(patient: Patient) -> None:
    """I10: it sends no write, except those that Cloud Run only validates."""
    with patient.file(
        "staging.yaml", lambda text: text.replace("access: private", "access: public")
    ):
        assert patient.wrong() == []
    assert patient.set_up("staging")["steps"] == []


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


def test_no_host_answers(patient: Patient) -> None:
    found = patient.one_wrong("network", SHIPWAY_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert "does not answer" in found["found"]


def test_files_are_checked_without_a_network_and_an_account(
    patient: Patient, tmp_path: Path
) -> None:
    nowhere = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true",
               "SHIPWAY_ENDPOINT": f"http://127.0.0.1:{free_port()}"}  # fmt: skip
    limits = "resources: {limits: {memory: 2GB}}"
    with (
        patient.file("service.yaml", lambda text: f"{text.rstrip()}\n          {limits}\n"),
        patient.file("staging.yaml", lambda text: text.replace("us-central1]", "us-central9]")),
    ):
        _, findings = patient.doctor(credentials="/nonexistent", **nowhere)
    found = {one["check"]: one for one in findings if one["state"] == "wrong"}
    assert {"manifest", "network", "credentials"} <= found.keys()
    assert found["manifest"]["fix"].endswith(": write memory: 2Gi")
    [region] = [one for one in findings if "us-central9" in one["found"] and one["fix"]]
    assert region["state"] == "warning"
    assert "did you mean 'us-central1'?" in region["found"]


def test_a_wrong_clock(patient: Patient) -> None:
    with patient.fault("clock-skew", seconds=900):
        found = patient.one_wrong("clock")
    # The header has whole seconds, and the answer takes a moment.
    assert re.match(r"this machine's clock is (899|900|901) s behind Google's", found["found"])
    assert found["fix"] == "sudo timedatectl set-ntp true"


def test_no_credentials(patient: Patient, tmp_path: Path) -> None:
    nowhere = {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"}
    found = patient.one_wrong("credentials", GOOGLE_APPLICATION_CREDENTIALS="", **nowhere)
    assert found["found"] == "there are no Google credentials on this machine"
    assert found["fix"] == "gcloud auth application-default login"


def test_a_job_of_another_repository(patient: Patient) -> None:
    found = patient.one_wrong(
        "credentials", credentials=patient.speak_as("DEPLOYER", repository_id="9")
    )
    assert found["known"] == "attribute-condition"
    assert "Google does not accept this job" in found["found"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("", "docker is not installed"),
        (
            "echo 'Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?'"
            " >&2; exit 1",
            "no Docker engine runs on this machine",
        ),
        (
            '[ "$1" = version ] && echo 20.10 && exit 0\n'
            "echo \"docker: 'buildx' is not a docker command.\" >&2; exit 1",
            "Docker's buildx plugin",
        ),
        ("exit 1", "no Docker engine runs on this machine"),
        ('[ "$1" = version ] && echo 20.10 && exit 0; exit 1', "Docker's buildx plugin"),
    ],
)
def test_docker(patient: Patient, tmp_path: Path, script: str, said: str) -> None:
    with patient.file("staging.yaml", lambda text: text.replace("builder: cloud-build", "")):
        found = [
            one
            for one in patient.wrong(**fake_docker(tmp_path, script))
            if one["check"] == "docker"
        ]
    assert [one["found"].startswith(said) for one in found] == [True], found


def test_each_fix_is_listed_once(patient: Patient) -> None:
    with patient.without_role(f"{SERVICES}/{NAME}", DEPLOYER):
        ended = patient.project.ship(
            "doctor", "--env", "staging",
            GOOGLE_APPLICATION_CREDENTIALS=patient.speak_as("DEPLOYER"), **IDS,
        )  # fmt: skip
    assert ended.returncode == 1
    listed = ended.stdout.partition("To fix it, in this order:\n")[2]
    assert listed == f"{BOOTSTRAP}\n"


def test_bad_usage_is_not_a_finding(patient: Patient) -> None:
    for words, error in (
        (["--env", "stagin"], "no environment 'stagin'"),
        (["other", "--env", "staging"], "no service 'other'"),
    ):
        ended = patient.project.ship("doctor", *words)
        assert ended.returncode == 2
        assert ended.stdout == ""
        assert f"ship: {error}" in ended.stderr


def test_no_secret_is_shown(patient: Patient) -> None:
    """I9: no token in its output."""
    ended = patient.project.ship(
        "doctor", "--env", "staging", "--debug",
        GOOGLE_APPLICATION_CREDENTIALS=str(patient.admin), **IDS,
    )  # fmt: skip
    assert ADMIN in ended.stdout
    for text in (ended.stdout, ended.stderr):
        assert "ya29." not in text
        assert "eyJ" not in text
