"""Each system of tests/services: from a fork's first command to a broken release, which is stopped.

The systems share one local Cloud Run, and the layers of their packages.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests import warm
from tests.conftest import NOTE, ROOT, LocalCloudRun, needs_node
from tests.emulator.test_sandbox import needs_network
from tests.scripts.docker_help import forget_images, needs_docker
from tests.stand_in import WHAT, BaseImages
from tests.systems import SYSTEMS, System, put_key

WERKZEUG = "Werkzeug<3\n"  # what hello's author left out
PROJECT = "shipway-local"


class Fork:
    """A fork of the template in which a system takes the place of the sample."""

    def __init__(self, folder: Path, cloud_run: LocalCloudRun, system: System) -> None:
        self.folder = folder
        self.system = system
        self.cloud_run = cloud_run
        self.app = folder / "app"
        _copy_template(folder)
        shutil.rmtree(self.app, ignore_errors=True)
        shutil.copytree(ROOT / "tests/services" / system.name, self.app)
        self.git("init", "--quiet", "--initial-branch=main")
        self.done(
            "init", system.name, "--repository", "acme/systems", "--region", "us-central1",
            "--project", "staging=acme-staging", "--project", "production=acme-production", "--yes",
        )  # fmt: skip
        self.change_manifest(system.settles)

    def git(self, *words: str) -> str:
        me = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        command = ["git", *me, *words]
        return subprocess.check_output(command, cwd=self.folder, text=True).strip()

    def commit(self) -> str:
        """Commit everything; return the name of the revision."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a change")
        return f"{self.system.name}-{self.git('rev-parse', 'HEAD')[:7]}"

    def ship(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "SHIPWAY_ENDPOINT": self.cloud_run.url, "SHIPWAY_ACTOR": "tester"}
        # The first delivery on a machine installs the packages.
        return warm.ship(*words, cwd=self.folder, env=env, timeout=300)

    def done(self, *words: str) -> str:
        ended = self.ship(*words)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.done(*words, "--format", "json"))

    def change_manifest(self, how: Any) -> None:
        file = self.folder / "pipelines" / self.system.name / "service.yaml"
        service = yaml.safe_load(file.read_text())
        how(service)
        file.write_text(yaml.safe_dump(service))

    def write(self, file: str, text: str) -> None:
        (self.app / file).write_text(text)

    def read(self, file: str) -> str:
        return (self.app / file).read_text()

    def service(self) -> Any:
        base = f"{self.cloud_run.url}/v1/projects/{PROJECT}/locations/us-central1/services"
        answer = requests.get(f"{base}/{self.system.name}", timeout=10)
        return answer.json() if answer.ok else None

    @property
    def url(self) -> str:
        return str(self.service()["status"]["url"])

    def shares(self) -> dict[str, int]:
        """Return revision -> percent, as Cloud Run reports it in force."""
        traffic = self.service()["status"]["traffic"]
        return {one["revisionName"]: one["percent"] for one in traffic if one.get("percent")}


def _copy_template(folder: Path) -> None:
    """Copy what `init` reads and writes. The command line is this project's own."""
    for name in (".github", "cloudbuild"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "pipelines").mkdir()
    shutil.copy(ROOT / "pipelines/schema.json", folder / "pipelines")
    shutil.copytree(ROOT / "tests/pipelines/app", folder / "pipelines/app")


@pytest.fixture(scope="module")
def cloud_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloudRun]:
    """Yield a local Cloud Run whose instances run in a sandbox, where this machine allows it."""
    made = LocalCloudRun(tmp_path_factory.mktemp("systems") / "state")
    put_key(made.url, PROJECT)
    yield made
    made.stop()


def _marks(system: System) -> list[pytest.MarkDecorator]:
    """Return what a system needs: where its port is fixed, two revisions need two networks."""
    needs = [needs_network] if system.is_fixed or system.name == "api" else []
    return [*needs, needs_node] if system.name == "api" else needs


EACH = pytest.mark.parametrize(
    "system", [pytest.param(one, id=one.name, marks=_marks(one)) for one in SYSTEMS.values()]
)


@EACH
@pytest.mark.usefixtures("pypi")
def test_a_system_is_released_rolled_back_and_kept_from_breaking(
    tmp_path: Path, cloud_run: LocalCloudRun, system: System
) -> None:
    fork = Fork(tmp_path / "fork", cloud_run, system)
    if system.name == "hello":
        _fails_as_written(fork)
    if system.name == "api":
        _calls_ai(fork, tmp_path)
    first = fork.commit()
    assert fork.json("doctor")["ok"]
    fork.done("deliver")
    assert fork.shares() == {first: 100}
    system.works(fork.url)

    fork.write(system.file, fork.read(system.file) + system.comment)
    fork.change_manifest(system.second)
    second = fork.commit()
    fork.done("build")
    fork.done("deploy")
    fork.done("promote")
    assert fork.shares() == {first: 90, second: 10}
    fork.done("promote", "--all")
    assert fork.shares() == {second: 100}
    system.works(fork.url)

    fork.done("rollback")
    assert fork.shares() == {first: 100}
    fork.done("resume")

    fork.write(system.file, system.breaks + fork.read(system.file))
    fork.commit()
    broken = fork.ship("deliver")
    assert broken.returncode == 1
    assert "broken on purpose" in broken.stderr
    assert fork.shares() == {first: 100}
    system.works(fork.url)
    assert "broken on purpose" in fork.done("logs")


@pytest.fixture(scope="module")
def in_docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloudRun]:
    """Yield a local Cloud Run whose instances are containers; it leaves no image behind."""
    made = LocalCloudRun(
        tmp_path_factory.mktemp("docker") / "state", "--runtime", "docker", docker=True
    )
    put_key(made.url, PROJECT)
    yield made
    made.stop()
    forget_images(made.url)


@pytest.fixture(scope="module")
def base_images() -> Iterator[BaseImages]:
    """Yield what makes base images available, of this machine's files if there is no other way."""
    with BaseImages() as made:
        yield made


# One shows that it works. All of them take minutes: `nox -s systems`.
IN_DOCKER = list(SYSTEMS.values()) if os.environ.get("SHIPWAY_SYSTEMS") else [SYSTEMS["ai"]]


@pytest.mark.parametrize("system", IN_DOCKER, ids=lambda system: system.name)
@needs_docker
@pytest.mark.usefixtures("pypi")
def test_a_system_is_delivered_with_docker(
    tmp_path: Path,
    in_docker: LocalCloudRun,
    base_images: BaseImages,
    system: System,
    record_property: Callable[[str, object], None],
) -> None:
    fork = Fork(tmp_path / "fork", in_docker, system)
    try:
        stand_ins = base_images.of(fork.read("Dockerfile"))
    except LookupError as image:
        pytest.skip(f"left out: Docker cannot get {image}")
    for image in stand_ins:
        record_property(NOTE, f"{image}: {WHAT}")
    fork.change_manifest(system.second)
    if system.name == "hello":
        fork.write("requirements.txt", fork.read("requirements.txt") + WERKZEUG)
    first = fork.commit()
    fork.done("deliver", "--builder", "docker")
    assert requests.get(fork.url + system.path, timeout=20).status_code == 200
    fork.write(system.file, system.breaks + fork.read(system.file))
    fork.commit()
    broken = fork.ship("deliver", "--builder", "docker")
    assert broken.returncode == 1
    assert "broken on purpose" in broken.stderr
    assert fork.shares() == {first: 100}
    assert "broken on purpose" in fork.done("logs")


def _fails_as_written(fork: Fork) -> None:
    """Show that hello does not start, that the doctor says why, and what fixes it."""
    fork.commit()
    doctor = fork.ship("doctor", "--format", "json")
    assert doctor.returncode == 1
    [wrong] = [one for one in json.loads(doctor.stdout)["findings"] if one["state"] == "wrong"]
    assert wrong["fix"].startswith(f"app/requirements.txt: write a line {WERKZEUG.strip()}")
    failed = fork.ship("deliver")
    assert failed.returncode == 1
    assert "cannot import name 'url_quote'" in failed.stderr
    fork.write("requirements.txt", fork.read("requirements.txt") + WERKZEUG)


def _calls_ai(fork: Fork, folder: Path) -> None:
    """Tell api where ai is, which is delivered unless it was."""
    ai = Fork(folder / "ai", fork.cloud_run, SYSTEMS["ai"])
    if ai.service() is None:
        ai.commit()
        ai.done("deliver")
    address = {"name": "AI_URL", "value": ai.url}
    fork.change_manifest(lambda service: _add(service, address))


def _add(service: Any, variable: dict[str, str]) -> None:
    [container] = service["spec"]["template"]["spec"]["containers"]
    container["env"] = [*container.get("env", []), variable]
