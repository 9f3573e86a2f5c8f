"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadGroupScheduling

from emulator.front_door import SECRET_FILE, SECRET_HEADER
from emulator.recorder import VARIABLE
from tests import warm
from tests.discovery import Watch
from tests.github_rest import GitHub

# The tests start Python hundreds of times: it need not compile Shipway each time. Nor need each of
# pytest's workers prepare every test module each time, which takes most of the time of their start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# No test asks GitHub, even where someone is logged in: gh finds no login.
os.environ["GH_CONFIG_DIR"] = "/nonexistent"
for _name in ("GH_TOKEN", "GITHUB_TOKEN", "GH_HOST"):
    os.environ.pop(_name, None)

# On a busy machine an example takes as long as it takes. A pull request does not fail by chance:
# its examples are the same each time, and `nox -s torture` draws others.
settings.register_profile(
    "shipway",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="SHIPWAY_TORTURE" not in os.environ,
    database=None,
)
settings.load_profile("shipway")

ROOT = Path(__file__).resolve().parent.parent
# gcloud puts the region before the host of an endpoint, here localhost.
FOR_GCLOUD = ("--allow-host=us-central1-localhost",)
SAMPLE = ROOT / "app"
NO_DOCKER = "tcp://127.0.0.1:1"
_PAGE = SAMPLE / "web/templates/index.html"
needs_sample = pytest.mark.skipif(
    not _PAGE.is_file() or "answering now" not in _PAGE.read_text(),
    reason="left out: app/ is no longer the sample",
)
needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="left out: Node is not installed (apt-get install nodejs)"
)


def share_packed(folder: Path) -> None:
    """Let a copy of this project use the packed layers of this one, which saves a run of pip."""
    (cache := ROOT / ".shipway/cache").mkdir(parents=True, exist_ok=True)
    (folder / ".shipway").mkdir(exist_ok=True)
    (folder / ".shipway/cache").symlink_to(cache)


NOTE = "note"  # a property of a test, whose text the end of the run shows
# Tests that look at an instance's process, or end it, need its number, which differs in a sandbox.
BY_PID = ("--sandbox", "none")


# The keys that the first local Cloud Run of a worker made: to make two takes a tenth of a second.
_KEYS: dict[str, bytes] = {}


class LocalCloudRun:
    """A local Cloud Run in its own process, on a free port, with its state in `state`.

    `arguments` are more command-line arguments. It finds a Docker engine only with `docker`, for
    tests that are about it.
    """

    def __init__(self, state: Path, *arguments: str, docker: bool = False) -> None:
        self.state = state
        self.arguments = arguments
        self.docker = docker
        self.log = state.parent / f"{state.name}.log"
        self.start()

    def start(self) -> None:
        """Start it (again, on the same state) and set `url` to the API's base URL."""
        keys = self.state / "identity/keys"
        if _KEYS and not keys.exists():
            keys.mkdir(parents=True)
            for name, key in _KEYS.items():
                (keys / name).touch(mode=0o600)
                (keys / name).write_bytes(key)
        words = ("--port", "0", "--state", str(self.state), *self.arguments)
        reading, writing = os.pipe()
        env = dict(os.environ)
        if not self.docker:
            env["DOCKER_HOST"] = NO_DOCKER
        with self.log.open("ab") as log, os.fdopen(reading) as output:
            self.process = warm.Process(
                warm.EMULATOR, *words, cwd=ROOT, env=env, stdout=writing, stderr=log.fileno()
            )
            os.close(writing)
            self.url = output.readline().strip()
        assert self.url.startswith("http://"), self.log.read_text()

    @property
    def secret(self) -> dict[str, str]:
        """The header that requests below `/_local/` need."""
        return {SECRET_HEADER: (self.state / SECRET_FILE).read_text()}

    def local(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request below `/_local/`, which must succeed; return its JSON."""
        url = f"{self.url}/_local/{path}"
        answer = requests.request(method, url, json=body, headers=self.secret, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        """Stop it with a signal (SIGKILL for a crash) and wait until it is gone."""
        if self.process.poll() is None:
            os.kill(self.process.pid, with_signal)
        self.process.wait(timeout=60)
        for key in (self.state / "identity/keys").glob("*.pem"):
            _KEYS.setdefault(key.name, key.read_bytes())


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Use three workers for two cores: while one waits for a deadline, another works."""
    cores = yield
    return cores + max(1, cores // 2)


_LONG = {
    "tests/clients/test_gcloud_systems.py",
    "tests/scripts/test_systems.py",
    "tests/torture/test_sample.py",
}


class _ByFile(LoadGroupScheduling):
    """Gives the tests of a file to one worker, which makes what they share only once."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return nodeid.partition("::")[0] if scope == nodeid else scope


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile | None:
    """Hand out whole files, in the order of `pytest_collection_modifyitems`."""
    if config.getoption("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False
    return _ByFile(config, log)


@pytest.hookimpl(tryfirst=True)  # before xdist writes the groups into the tests' names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests of Docker's engine one at a time: there is one, and one test empties its cache.

    Groups and the longest files begin first: else the other workers would wait for them in the end.
    """
    if docker := sys.modules.get("tests.scripts.docker_help"):  # else nothing collected needs it
        for item in items:
            if docker.needs_docker.mark in item.iter_markers("skipif"):
                item.add_marker(pytest.mark.xdist_group("docker-runtime"))
    items.sort(
        key=lambda item: (
            item.get_closest_marker("xdist_group") is None,
            item.nodeid.partition("::")[0] not in _LONG,
        )
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests noted about how they ran, each note once."""
    reports = [*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())]
    noted = {text for one in reports for key, text in one.user_properties if key == NOTE}
    for note in sorted(noted):
        terminalreporter.write_line(note)


@pytest.fixture
def github_com(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """Yield a stand-in for GitHub, at which gh is logged in as an administrator."""
    made = GitHub()
    for name, value in made.env().items():
        monkeypatch.setenv(name, value)
    yield made
    made.stop()


@pytest.fixture(scope="session", autouse=True)
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Record the requests and answers of every local Cloud Run that a worker's tests start."""
    file = tmp_path_factory.mktemp("recorded") / "exchanges.jsonl"
    os.environ[VARIABLE] = str(file)
    watch = Watch(file)
    yield watch
    problems = watch.news()
    assert not problems, "\n".join(["Against Google's discovery documents:", *problems])


@pytest.fixture(autouse=True)
def discovery(recorded: Watch) -> Iterator[None]:
    """Fail the test that makes an exchange which Google's discovery documents do not allow."""
    yield
    problems = recorded.news()
    assert not problems, "\n".join(["Against Google's discovery documents:", *problems])


@pytest.fixture(scope="session")
def local_cloud_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloudRun]:
    """Yield one local Cloud Run for all tests of a worker: use a service name of your own."""
    state = tmp_path_factory.mktemp("cloud-run") / "state"
    allowed = "--allow-host=europe-west1-run.googleapis.com"
    cloud_run = LocalCloudRun(state, *FOR_GCLOUD, allowed, *BY_PID)
    yield cloud_run
    cloud_run.stop()


@pytest.fixture
def fresh_cloud_run(tmp_path: Path) -> Iterator[LocalCloudRun]:
    """Yield a local Cloud Run for one test alone, to kill, restart or inspect."""
    cloud_run = LocalCloudRun(tmp_path / "state", *BY_PID)
    yield cloud_run
    cloud_run.stop()


@pytest.fixture(scope="session")
def pypi(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip the test if pip reaches no package index."""
    folder = tmp_path_factory.mktemp("pypi")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--retries", "0", "--no-deps"]
    asked = [*pip, "--dest", str(folder), "h11==0.16.0"]
    if subprocess.run(asked, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("left out: pip reaches no package index")
