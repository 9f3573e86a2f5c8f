"""The two triggers held against each other: what GitHub's workflows do, Cloud Build's files do.

Cloud Build's are run step by step, GitHub's with act; both on a scratch Cloud Run that enforces
IAM.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.discovery import problems_of
from tests.scripts.docker_help import needs_docker
from tests.scripts.test_init import follow_the_sample
from tests.scripts.test_rehearse import Fork, jobs

FILES = sorted((ROOT / "cloudbuild").glob("*.yaml"))
# One moment for both: the commits that a rehearsal makes are then the same commits.
MOMENT = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Fork:
    fork = Fork(tmp_path_factory.mktemp("fork"))
    for file in FILES:
        fork.write(f"cloudbuild/{file.name}", file.read_text())
    follow_the_sample(fork.folder)
    fork.git("add", "--all")
    fork.git("commit", "--quiet", "--amend", "--no-edit")
    return fork


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_googles_schemas_hold(file: Path) -> None:
    """The published schema, and the discovery document; each is shown a fault too."""
    document = yaml.safe_load(file.read_text())
    assert problems_of("cloudbuild.v1", "Build", document) == []
    assert problems_of("cloudbuild.v1", "Build", {**document, "stepz": []}) != []
    tool = Path(sys.executable).parent / "check-jsonschema"
    command = [str(tool), "--builtin-schema", "vendor.cloudbuild", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_rules_of_the_house(file: Path) -> None:
    """Own account, images by digest, time limits, logs, and nothing typed in any script."""
    document = yaml.safe_load(file.read_text())
    assert document["serviceAccount"].endswith("/$_SERVICE_ACCOUNT")
    assert "_SERVICE_ACCOUNT" not in document.get("substitutions", {})
    assert document["options"]["logging"] == "CLOUD_LOGGING_ONLY"
    times = [int(step["timeout"].removesuffix("s")) for step in document["steps"]]
    assert int(document["timeout"].removesuffix("s")) == sum(times)
    for step in document["steps"]:
        assert re.fullmatch(r"[a-z./-]+:[\w.-]+@sha256:[0-9a-f]{64}", step["name"])
        # Text of a substitution is put into args as it is; `script` is left alone.
        assert "args" not in step
        assert "$_" not in step["script"]
        assert "${_" not in step["script"]
        checked = subprocess.run(
            [str(Path(sys.executable).parent / "shellcheck"), "-"],
            input=step["script"], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stdout


def verbs(texts: Iterator[str] | list[str]) -> list[str]:
    """The commands of ours, in order; what they are told of the commit aside."""
    found = [words for text in texts for words in re.findall(r"\./ship (.*)", text)]
    plain = [re.sub(r' --commit "\$COMMIT_SHA"', "", words) for words in found]
    return [re.sub(r'"\$(digest|DIGEST)"', "DIGEST", words) for words in plain]


@pytest.mark.parametrize("name", ["deliver", "promote", "rollback", "resume"])
def test_the_same_verbs_in_the_same_order(name: str) -> None:
    github = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())
    cloud = yaml.safe_load((ROOT / f"cloudbuild/{name}.yaml").read_text())
    runs = [step.get("run", "") for job in github["jobs"].values() for step in job["steps"]]
    scripts = [step["script"] for step in cloud["steps"]]
    assert verbs(runs) == verbs(scripts) != []


def rehearse(fork: Fork, *arguments: str) -> dict[str, Any]:
    done = fork.rehearse(*arguments, "--format", "json", **MOMENT)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def declared(services: dict[str, Any]) -> dict[str, Any]:
    """What the services are, without what no two services share: numbers, times, ports, names."""
    made = {}
    for where, service in services.items():
        metadata = service["metadata"]
        annotations = metadata["annotations"]
        kept = {
            key: value
            for key, value in annotations.items()
            if key in ("shipway/candidate", "shipway/known-good")
            or not re.match(r"shipway/|serving\.|run\.googleapis\.com/(urls|operation-id)", key)
        }
        log = [(e["verb"], e.get("revision"), e.get("percent"))
               for e in json.loads(annotations["shipway/log"])]  # fmt: skip
        spec = json.loads(re.sub(r"127\.0\.0\.1:\d+", "HOST", json.dumps(service["spec"])))
        made[where] = {"labels": metadata["labels"], "annotations": kept, "log": log, "spec": spec}
    return made


def test_both_triggers_leave_the_same_services(forked: Fork) -> None:
    """Same commit, same image by its digest, same revision, same traffic, same history."""
    cloud = rehearse(forked, "cloudbuild/deliver.yaml")
    github = rehearse(forked, "deliver")
    assert set(cloud["steps"].values()) == {"SUCCESS"}
    assert cloud["services"].keys() == {
        "staging/us-central1/shop", "production/us-central1/shop",
    }  # fmt: skip
    assert declared(cloud["services"]) == declared(github["services"])


def test_a_failing_smoke_check_stops_it_before_production(tmp_path: Path, forked: Fork) -> None:
    fork = Fork(tmp_path)
    for file in FILES:
        fork.write(f"cloudbuild/{file.name}", file.read_text())
    follow_the_sample(fork.folder)
    fork.commit("break it", health="broken")
    done = fork.rehearse("cloudbuild/deliver.yaml")
    assert done.returncode == 1
    assert jobs(done) == {
        "history": "SUCCESS", "docker": "SUCCESS", "build": "SUCCESS", "staging": "FAILURE",
        "production": "QUEUED",
    }  # fmt: skip
    assert '"status": "broken"' in done.stderr


def test_promote_to_a_percentage(forked: Fork) -> None:
    inputs = ("--input", "_ENVIRONMENT=production", "--input", "_PERCENT=35")
    done = forked.rehearse("cloudbuild/promote.yaml", *inputs)
    assert done.returncode == 0, done.stderr
    assert "0 %     35 %" in done.stderr


def test_rollback_and_what_was_typed_is_no_shell(forked: Fork) -> None:
    made = Path(tempfile.gettempdir(), f"made-{uuid.uuid4().hex[:8]}")
    reason = f"--yes $(touch {made}) `touch {made}`; touch {made} \" ' & touch {made}"
    inputs = ("--input", "_ENVIRONMENT=production", "--input", f"_REASON={reason}")
    done = forked.rehearse("cloudbuild/rollback.yaml", *inputs)
    assert done.returncode == 0, done.stderr
    assert "on hold" in done.stderr
    assert "by Cloud Build (rollback), 2" in done.stderr
    assert reason in done.stderr
    assert not made.exists()


def test_resume(forked: Fork) -> None:
    inputs = ("--input", "_ENVIRONMENT=production", "--input", "_REASON=mended")
    done = forked.rehearse("cloudbuild/resume.yaml", *inputs)
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout


@needs_docker
def test_deliver_with_docker(forked: Fork) -> None:
    """buildx builds and pushes with the build's own token, from its metadata server."""
    done = forked.rehearse("cloudbuild/deliver.yaml", "--builder", "docker")
    assert done.returncode == 0, done.stderr
    assert set(jobs(done).values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cloudbuild/delivr.yaml"], "cloudbuild/delivr.yaml: no such file"),
        (["cloudbuild/promote.yaml"], "key '_ENVIRONMENT' in the template is not matched"),
        (["cloudbuild/promote.yaml", "--input", "_ENVIRONMENT=qa"], "production, staging"),
        (["cloudbuild/deliver.yaml", "--input", "_X=1"], "'_X' in the substitution data is not"),
        (["cloudbuild/deliver.yaml", "--input", "_SERVICE_ACCOUNT="], "names no service account"),
    ],
)
def test_bad_input(forked: Fork, words: list[str], said: str) -> None:
    done = forked.rehearse(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_nothing_is_left_in_the_repository(forked: Fork) -> None:
    assert forked.git("status", "--porcelain") == ""
