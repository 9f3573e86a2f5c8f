"""I9. Docker is logged in with a token that no file, command line or output holds."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.errors import UsageError
from scripts.image import docker_login
from tests.conftest import LocalCloudRun
from tests.identity_help import DEPLOYER, PROJECT, Owner, repository
from tests.scripts.conftest import Project
from tests.scripts.docker_help import needs_docker

HOST = "europe-docker.pkg.dev"
TOKEN = "ya29.of-this-build"


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's own Docker configuration."""
    folder = tmp_path / "docker"
    (folder / "contexts/meta").mkdir(parents=True)
    (folder / "cli-plugins").mkdir()
    held = base64.b64encode(b"me:s3cret:with-colon").decode()
    config = {
        "auths": {"https://index.docker.io/v1/": {"auth": held}, "ghcr.io": {"auth": held}},
        "credHelpers": {"gcr.io": "gcloud", HOST: "gcloud"},
        "currentContext": "work",
    }
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def asked(environment: dict[str, str], server: str, verb: str = "get") -> dict[str, str] | str:
    """Return the helper's answer to Docker for a registry."""
    done = subprocess.run(
        ["docker-credential-shipway", verb],
        env=environment,
        input=server,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    if done.returncode:
        return done.stdout.strip()
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def test_without_credentials_it_is_the_users_own_login(users: Path) -> None:
    with docker_login.environment(HOST, None) as environment:
        assert environment == dict(os.environ)


def test_the_users_configuration_but_for_one_login(users: Path) -> None:
    with docker_login.environment(HOST, TOKEN) as environment:
        folder = Path(environment["DOCKER_CONFIG"])
        config = json.loads((folder / "config.json").read_text())
        assert config["currentContext"] == "work"
        assert config["credHelpers"][HOST] == "shipway"
        assert config["credHelpers"]["gcr.io"] == "gcloud"
        assert (folder / "contexts").resolve() == users / "contexts"
        assert (folder / "cli-plugins").resolve() == users / "cli-plugins"
        assert environment["BUILDX_CONFIG"] == str(users / "buildx")
        assert asked(environment, HOST) == {
            "ServerURL": HOST,
            "Username": "oauth2accesstoken",
            "Secret": TOKEN,
        }
    assert not folder.exists()


@pytest.mark.parametrize("server", ["https://index.docker.io/v1/", "ghcr.io"])
def test_other_logins_stay_where_they_are(users: Path, server: str) -> None:
    with docker_login.environment(HOST, TOKEN) as environment:
        config = json.loads((Path(environment["DOCKER_CONFIG"]) / "config.json").read_text())
        assert config["credHelpers"][server] == "shipway"
        answer = asked(environment, server)
        assert isinstance(answer, dict)
        assert (answer["Username"], answer["Secret"]) == ("me", "s3cret:with-colon")


def test_no_secret_is_written(users: Path) -> None:
    held = base64.b64encode(b"me:s3cret:with-colon").decode()
    with docker_login.environment(HOST, TOKEN) as environment:
        folder = Path(environment["DOCKER_CONFIG"])
        assert folder.stat().st_mode & 0o077 == 0
        files = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
        assert {p.name for p in files} == {"config.json", "docker-credential-shipway"}
        for file in files:
            assert TOKEN not in file.read_text()
            assert held not in file.read_text()


@pytest.mark.parametrize(("verb", "server"), [("get", "quay.io"), ("list", ""), ("store", HOST)])
def test_there_is_no_other_login(users: Path, verb: str, server: str) -> None:
    with docker_login.environment(HOST, TOKEN) as environment:
        # Docker reads this as "continue without a login".
        assert asked(environment, server, verb) == "credentials not found in native keychain"


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}'])
def test_a_broken_docker_configuration(users: Path, text: str) -> None:
    (users / "config.json").write_text(text)
    with (
        pytest.raises(UsageError, match=r"config\.json: not a Docker configuration"),
        docker_login.environment(HOST, TOKEN),
    ):
        pass


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """Return the owner of a local Cloud Run that enforces IAM."""
    cloud_run = LocalCloudRun(tmp_path / "enforcing", "--iam", "enforce")
    made = Owner(cloud_run)
    yield made
    made.http.close()
    cloud_run.stop()


STAGING = """
project: {project}
regions: [us-central1]
registry: us-central1-docker.pkg.dev/{project}/images
access: public
endpoint: {endpoint}
rollout:
  steps: [100]
"""


@needs_docker
def test_a_commit_is_pushed_with_a_workflows_identity(
    project: Project, owner: Owner, tmp_path: Path
) -> None:
    """As in a GitHub Actions job: federated credentials, and no docker login."""
    owner.trust_github()
    owner.let_github_impersonate(DEPLOYER)
    staging = STAGING.format(project=PROJECT, endpoint=owner.url)
    (project.pipeline / "staging.yaml").write_text(staging)
    (project.folder / project.name / "Dockerfile").write_text(
        'FROM scratch\nCOPY server.py settings.json /\nCMD ["/server.py"]\n'
    )
    project.commit()
    job = owner.job(repository="acme/app", ref="refs/heads/main")
    credentials = owner.credentials(tmp_path / "credentials.json", job)
    no_login = tmp_path / "no-login"
    no_login.mkdir()
    (no_login / "cli-plugins").symlink_to(Path.home() / ".docker/cli-plugins")
    variables = {
        "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
        "DOCKER_CONFIG": str(no_login),
    }
    reader = "roles/artifactregistry.reader"
    owner.grant(repository("images"), reader, f"serviceAccount:{DEPLOYER}")
    refused = project.ship("build", "--env", "staging", **variables)
    assert refused.returncode == 1
    assert "does not let Docker push" in refused.stderr
    assert "roles/artifactregistry.writer" in refused.stderr
    writer = "roles/artifactregistry.writer"
    owner.grant(repository("images"), writer, f"serviceAccount:{DEPLOYER}")
    built = project.done("build", "--env", "staging", **variables)
    assert built["built"] is True
    assert not (no_login / "config.json").exists()
    project.commit()
    again = project.ship("build", "--env", "staging", **variables)
    assert again.returncode == 0, again.stderr
    assert "reusing layers of commit" in again.stderr
    assert "ya29." not in refused.stderr + again.stderr + again.stdout
