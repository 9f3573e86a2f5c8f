"""Builds with Docker: for real where an engine answers, and its failures everywhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import requests

from scripts.core.errors import Failed, ShipError, UsageError
from scripts.core.image import buildx
from scripts.core.image.registry import Registry
from tests.conftest import LocalCloudRun
from tests.scripts.docker_help import needs_docker

COMMIT = "c" * 40


def build(context: Path, reference: str, said: list[str] | None = None) -> str:
    return buildx.build(
        context,
        dockerfile=context / "Dockerfile",
        reference=reference,
        platform="linux/amd64",
        commit=COMMIT,
        created=1_700_000_000,
        labels={"org.opencontainers.image.revision": COMMIT},
        progress=(said if said is not None else []).append,
    )


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "main.py").write_text("print(1)\n")
    (folder / "Dockerfile").write_text(
        'FROM scratch\nCOPY main.py /\nARG COMMIT_SHA\nENV COMMIT_SHA=$COMMIT_SHA\nCMD ["/x"]\n'
    )
    return folder


@needs_docker
def test_built_and_pushed(context: Path, local_cloud_run: LocalCloudRun) -> None:
    host = local_cloud_run.url.removeprefix("http://")
    said: list[str] = []
    reference = f"{host}/acme/buildx/app:{COMMIT}"
    digest = build(context, reference, said)
    # Docker's default driver keeps what it pushed.
    subprocess.run(["docker", "image", "rm", reference], capture_output=True, timeout=60)
    with requests.Session() as session:
        session.trust_env = False
        found = Registry(local_cloud_run.url, session).resolve("acme/buildx/app", COMMIT)
        assert found is not None
        manifest = session.get(
            f"{local_cloud_run.url}/v2/acme/buildx/app/manifests/{digest}",
            headers={"Accept": found.media_type},
        ).json()
        blob = manifest["config"]["digest"]
        config = session.get(f"{local_cloud_run.url}/v2/acme/buildx/app/blobs/{blob}").json()
    assert found.digest == digest
    assert found.platforms == ("linux/amd64",)
    assert found.labels["org.opencontainers.image.revision"] == COMMIT
    assert f"COMMIT_SHA={COMMIT}" in config["config"]["Env"]
    assert [line for line in said if "COPY main.py" in line]


@needs_docker
def test_a_build_that_fails_shows_its_last_lines(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY not-there /\n")
    with pytest.raises(Failed) as caught:
        build(context, "127.0.0.1:1/acme/x:y")
    assert "docker buildx build failed with exit code" in caught.value.message
    assert "not-there" in "\n".join(caught.value.evidence)


def fake_docker(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called docker, found first."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_docker_is_missing(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="docker is not installed") as caught:
        build(context, "h/x:y")
    assert "--builder pack" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("output", "kind", "message"),
    [
        (
            "ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
            "Is the docker daemon running?",
            UsageError,
            "no Docker engine answers",
        ),
        ("docker: 'buildx' is not a docker command.", UsageError, "docker has no buildx"),
        ("unknown flag: --progress", UsageError, "docker has no buildx"),
        (
            "ERROR: failed to push h.example/x:y: denied: Permission denied",
            Failed,
            "h.example does not let Docker push to h.example/x:y",
        ),
        ("ERROR: something else", Failed, "docker buildx build failed with exit code 3"),
    ],
)
def test_failures(
    context: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    kind: type[ShipError],
    message: str,
) -> None:
    fake_docker(tmp_path / "bin", f'echo "{output}" >&2; exit 3', monkeypatch)
    with pytest.raises(kind) as caught:
        build(context, "h.example/x:y")
    assert message in caught.value.message
    assert caught.value.evidence == [output]


def test_nothing_secret_on_the_command_line(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9. The arguments are the build's, and nothing of the environment's."""
    monkeypatch.setenv("ACCESS_TOKEN", "ya29.secret")
    log = tmp_path / "arguments"
    fake_docker(tmp_path / "bin", f'echo "$@" >{log}; exit 3', monkeypatch)
    with pytest.raises(Failed):
        build(context, "h.example/x:y")
    arguments = log.read_text()
    assert "--platform linux/amd64" in arguments
    assert "ya29" not in arguments


def test_docker_says_no_digest(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'while [ $# -gt 1 ]; do [ "$1" = --metadata-file ] && echo "{}" >"$2"; shift; done'
    fake_docker(tmp_path / "bin", script, monkeypatch)
    with pytest.raises(Failed, match=r"did not say which digest it pushed to h\.example/x:y"):
        build(context, "h.example/x:y")
