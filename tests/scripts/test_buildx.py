"""Builds with Docker: for real where an engine answers, and its failures everywhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from scripts.cloud.patience import Patience
from scripts.cloud.registry import Registry
from scripts.cloud.session import Session
from scripts.config.image_reference import ImageReference
from scripts.errors import Failed, ShipError, UsageError
from scripts.image.buildx import SBOM_SCANNER, Builder
from tests.conftest import LocalCloudRun
from tests.scripts.docker_help import needs_docker

COMMIT = "c" * 40


def build(
    context: Path,
    repository: str,
    said: list[str] | None = None,
    earlier: Sequence[str] = (),
    contexts: Mapping[str, Path] = MappingProxyType({}),
) -> str:
    return Builder(os.environ).build(
        context,
        dockerfile=context / "Dockerfile",
        repository=ImageReference.parse(repository),
        platform="linux/amd64",
        commit=COMMIT,
        earlier=earlier,
        labels={"org.opencontainers.image.revision": COMMIT},
        contexts=contexts,
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
    repository = f"{host}/acme/buildx/app"
    digest = build(context, repository, said)
    # Docker's default driver keeps what it pushed.
    subprocess.run(
        ["docker", "image", "rm", f"{repository}:{COMMIT}"], capture_output=True, timeout=60
    )
    with Session(Patience(2)) as session:
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
    with Session(Patience(2)) as session:
        registry = Registry(local_cloud_run.url, session)
        assert registry.has("acme/buildx/app", COMMIT)
        assert not registry.has("acme/buildx/app", "d" * 40)
        assert registry.attestations("acme/buildx/app", digest) == []


@needs_docker
def test_a_build_that_fails_shows_its_last_lines(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY not-there /\n")
    with pytest.raises(Failed) as caught:
        build(context, "127.0.0.1:1/acme/x")
    assert "docker buildx build failed with exit code" in caught.value.message
    assert "not-there" in "\n".join(caught.value.evidence)


def fake_docker(
    folder: Path, script: str, monkeypatch: pytest.MonkeyPatch, driver: str = "docker"
) -> None:
    """Write a program called docker, found first, which runs `script` when it builds."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(
        f'#!/bin/sh\nif [ "$2" = inspect ]; then echo "Driver: {driver}"; exit; fi\n{script}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_docker_is_missing(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="docker is not installed") as caught:
        build(context, "h/x")
    assert "--builder cloud-build" in (caught.value.hint or "")


DEAD = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?"


def test_no_engine_answers(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """buildx inspect reports it, and exits with 0."""
    fake_docker(tmp_path / "bin", "", monkeypatch)
    (tmp_path / "bin/docker").write_text(f'#!/bin/sh\necho "Driver:"\necho "Error: {DEAD}"\n')
    with pytest.raises(UsageError, match="no Docker engine answers") as caught:
        build(context, "h/x")
    assert caught.value.evidence == ["Driver:", f"Error: {DEAD}"]


@pytest.mark.parametrize(
    ("output", "kind", "message"),
    [
        (f"ERROR: {DEAD}", UsageError, "no Docker engine answers"),
        ("docker: 'buildx' is not a docker command.", UsageError, "docker has no buildx"),
        ("unknown flag: --progress", UsageError, "docker has no buildx"),
        (
            "ERROR: failed to push h.example/x:y: denied: Permission denied",
            Failed,
            f"h.example does not let Docker push to h.example/x:{COMMIT}",
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
        build(context, "h.example/x")
    assert message in caught.value.message
    assert caught.value.evidence == [output]


# Writes its arguments down, and names a digest.
RECORDS = """
echo "$@" >{log}
while [ $# -gt 1 ]; do
  [ "$1" = --metadata-file ] && echo '{{"containerimage.digest": "sha256:1"}}' >"$2"
  shift
done
"""


def arguments_of(
    context: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
    earlier: Sequence[str] = (),
) -> str:
    """Return the arguments that docker gets with a driver."""
    log = tmp_path / "arguments"
    fake_docker(tmp_path / "bin", RECORDS.format(log=log), monkeypatch, driver)
    common = {"common": context.parent / "libs/common"}
    made = build(context, "h.example/p/r/x", earlier=earlier, contexts=common)
    assert made == "sha256:1"
    return log.read_text()


def test_the_engine_keeps_layers_in_the_image_and_attests_nothing(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = arguments_of(context, tmp_path, monkeypatch, "docker", ["e" * 40])
    assert f"--cache-from type=registry,ref=h.example/p/r/x:{'e' * 40} --cache-to type=inli" in said
    assert "--push --provenance false --sbom false" in said


@pytest.mark.parametrize("driver", ["docker-container", "remote", "kubernetes"])
def test_buildkit_keeps_all_stages_and_attests(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """No tag is ever written twice: each commit's layers have their own."""
    said = arguments_of(context, tmp_path, monkeypatch, driver, ["e" * 40])
    assert f"--cache-from type=registry,ref=h.example/p/r/x/cache:{'e' * 40} " in said
    assert f"--cache-to type=registry,ref=h.example/p/r/x/cache:{COMMIT},mode=max," in said
    assert "ignore-error=true" in said
    assert f"--provenance mode=max --attest type=sbom,generator={SBOM_SCANNER} " in said
    assert ImageReference.parse(SBOM_SCANNER).is_by_digest
    assert "rewrite-timestamp=true" in said
    assert f"--build-context common={context.parent}/libs/common " in said


def test_the_time_of_an_image_does_not_change_with_the_commit(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BuildKit would build the folder of WORKDIR and all later layers again for each commit."""
    said = arguments_of(context, tmp_path, monkeypatch, "docker-container")
    assert "--build-arg SOURCE_DATE_EPOCH=315532800 " in said
    assert "--cache-from" not in said


def test_nothing_secret_on_the_command_line(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9. The arguments are the build's, and nothing of the environment's."""
    monkeypatch.setenv("ACCESS_TOKEN", "ya29.secret")
    arguments = arguments_of(context, tmp_path, monkeypatch, "docker")
    assert "--platform linux/amd64" in arguments
    assert "ya29" not in arguments


def test_docker_reports_no_digest(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'while [ $# -gt 1 ]; do [ "$1" = --metadata-file ] && echo "{}" >"$2"; shift; done'
    fake_docker(tmp_path / "bin", script, monkeypatch)
    with pytest.raises(Failed, match=r"did not report the digest that it pushed to h\.example/x:c"):
        build(context, "h.example/x")
