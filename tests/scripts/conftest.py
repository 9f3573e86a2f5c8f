"""A team's repository with its own service, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import tenacity

from scripts.cloud import patience
from tests import warm
from tests.conftest import ROOT, LocalCloudRun

# Plain sockets: the import of http.server would take longer than the rest of the start.
SERVER = r"""
import json, os, signal, socket, sys, threading

settings = json.load(open("settings.json"))
print("starting", settings["note"], flush=True)
if settings["start"] == "exit":
    sys.exit("no database")
if settings["start"] == "hang":
    signal.pause()


def body():
    return json.dumps({
        "commit": os.environ.get("COMMIT_SHA"),
        "revision": os.environ.get("K_REVISION"),
        "status": settings["health"],
    })


def health():
    return settings["code"], body()


def respond(path):
    return health() if path == "/health" else (200, body())


def answer(connection):
    with connection, connection.makefile("rb") as lines:
        while line := lines.readline():
            while lines.readline().strip():
                pass
            code, text = respond(line.split()[1].decode())
            data = text.encode()
            connection.sendall((
                f"HTTP/1.1 {code} Answer\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\n\r\n"
            ).encode() + data)


server = socket.create_server(("0.0.0.0", int(os.environ["PORT"])), backlog=128)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    threading.Thread(target=answer, args=server.accept()[:1], daemon=True).start()
"""

DOCKERFILE = """
FROM python:3.13-slim-trixie
WORKDIR /srv
COPY server.py settings.json ./
ARG COMMIT_SHA=unknown
ENV COMMIT_SHA=$COMMIT_SHA PYTHONUNBUFFERED=1
CMD ["python", "server.py"]
"""

MANIFEST = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: {name}
spec:
  template:
    spec:
      containers:
        - image: app
          ports:
            - containerPort: 8080
          startupProbe:
            tcpSocket: {{port: 8080}}
            periodSeconds: 1
            failureThreshold: 4
"""

LOCAL = """
project: shipway-local
regions: [us-central1]
registry: us-central1-docker.pkg.dev/shipway-local/services
access: public
endpoint: {endpoint}
credentials: none
builder: cloud-build
platform: host
rollout:
  steps: [10, 50, 100]
"""

SMOKE = """
- name: health
  path: /health
  expect:
    json: {status: ok}
"""


class Project:
    """A git repository that delivers one small service to a local Cloud Run."""

    def __init__(self, folder: Path, cloud_run: LocalCloudRun, name: str) -> None:
        self.folder = folder
        self.cloud_run = cloud_run
        self.name = name
        self.regions = ["us-central1"]
        self.pipeline = folder / "pipelines" / name
        self.pipeline.mkdir(parents=True)
        (folder / name).mkdir()
        (self.pipeline / "service.yaml").write_text(MANIFEST.format(name=name))
        (self.pipeline / "smoke.yaml").write_text(SMOKE)
        (self.pipeline / "local.yaml").write_text(LOCAL.format(endpoint=cloud_run.url))
        (folder / name / "server.py").write_text(SERVER)
        (folder / name / "Dockerfile").write_text(DOCKERFILE)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "test")
        self.git("config", "user.email", "test@localhost")
        self._settings: dict[str, Any] = {
            "note": "first", "start": "listen", "health": "ok", "code": 200,
        }  # fmt: skip

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, **settings: Any) -> str:
        """Commit everything, with these settings of the server; return the full SHA."""
        self._settings = {**self._settings, "note": uuid.uuid4().hex, **settings}
        (self.folder / self.name / "settings.json").write_text(json.dumps(self._settings))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a change")
        return self.git("rev-parse", "HEAD")

    def serve_with(self, code: str) -> None:
        """Give the next commit's server more code, to run before it listens."""
        file = self.folder / self.name / "server.py"
        before, listens, after = SERVER.partition("server = socket")
        file.write_text(f"{before}{code}\n\n{listens}{after}")

    def time(self, commit: str) -> int:
        """Return a commit's time, in Unix seconds."""
        return int(self.git("show", "--no-patch", "--format=%ct", commit))

    def revision(self, commit: str) -> str:
        return f"{self.name}-{commit[:7]}"

    def ship(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository."""
        given = {**os.environ, "SHIPWAY_ACTOR": "tester", **env}
        try:
            return warm.ship(*arguments, cwd=self.folder, env=given)
        except subprocess.TimeoutExpired as stuck:
            told = (stuck.stderr or b"").decode()
            log = self.cloud_run.log.read_text()[-3000:]
            raise AssertionError(f"{arguments} hangs:\n{told}\n{self.service()}\n{log}") from None

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start a command as a process: to watch it, to signal it, to see it in `ps`."""
        return subprocess.Popen(
            [f"{warm.environment()}/bin/python", str(ROOT / "scripts"), *arguments],
            cwd=self.folder, env={**os.environ, "SHIPWAY_ACTOR": "tester", **env},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def done(self, *arguments: str, **env: str) -> Any:
        """Run a command that must succeed; return its JSON document."""
        ended = self.ship(*arguments, "--format", "json", **env)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    @property
    def service_path(self) -> str:
        return self.path_in("us-central1")

    def path_in(self, region: str) -> str:
        return (
            f"{self.cloud_run.url}/v1/projects/shipway-local/locations/{region}"
            f"/services/{self.name}"
        )

    def service(self) -> Any:
        """Return the service as the API answers it, to check the actual state."""
        return requests.get(self.service_path, timeout=10).json()

    def services(self) -> dict[str, Any]:
        """Return the service in each region."""
        return {
            region: requests.get(self.path_in(region), timeout=10).json() for region in self.regions
        }

    def put(self, service: Any, region: str = "us-central1") -> Any:
        """Write the service as another tool would."""
        service.pop("status", None)
        answer = requests.put(self.path_in(region), json=service, timeout=10)
        assert answer.ok, answer.text
        return answer.json()

    def revisions(self) -> list[str]:
        answer = requests.get(
            self.service_path.rpartition("/services/")[0] + "/revisions",
            params={"labelSelector": f"serving.knative.dev/service={self.name}"},
            timeout=10,
        ).json()
        return [item["metadata"]["name"] for item in answer.get("items", [])]

    def shares(self) -> dict[str, int]:
        """Return revision -> percent, as Cloud Run reports it in force."""
        return {
            target["revisionName"]: target["percent"]
            for target in self.service()["status"]["traffic"]
            if target.get("percent")
        }

    def answers(self) -> Any:
        """Return a user's response: the JSON of the service's own URL."""
        return requests.get(self.service()["status"]["url"] + "/version", timeout=10).json()


@pytest.fixture
def project(tmp_path: Path, local_cloud_run: LocalCloudRun) -> Project:
    """Yield a repository with one commit of a service that no other test uses."""
    made = Project(tmp_path / "repository", local_cloud_run, f"svc-{uuid.uuid4().hex[:8]}")
    made.commit()
    return made


class Clock:
    """A clock that only sleeping moves, in place of the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock of all requests that are tried again: their pauses take no time."""
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    monkeypatch.setattr(tenacity.nap, "time", made)
    return made


Lend = Callable[[Callable[[Project], None]], AbstractContextManager[Project]]


@pytest.fixture(scope="session")
def lend(tmp_path_factory: pytest.TempPathFactory, local_cloud_run: LocalCloudRun) -> Lend:
    """Return what lends a project that a function prepared, from one test to the next.

    Each test gets the repository and the service as they were in the beginning: what a test adds is
    deleted after it. A project where that leaves a difference is not lent again.
    """
    kept: dict[Callable[[Project], None], _Kept] = {}

    @contextmanager
    def lent(prepare: Callable[[Project], None]) -> Iterator[Project]:
        if prepare not in kept:
            name = f"svc-{uuid.uuid4().hex[:8]}"
            project = Project(tmp_path_factory.mktemp("lent") / "repository", local_cloud_run, name)
            project.commit()
            prepare(project)
            kept[prepare] = _Kept(project)
        mine = kept.pop(prepare)
        yield mine.project
        if mine.is_restored():
            kept[prepare] = mine

    return lent


class _Kept:
    """A project as it was in the beginning."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._attributes = dict(vars(project))
        self._services = project.services()
        self._revisions = self._list("revisions")
        self._repository = self._read()

    def is_restored(self) -> bool:
        """Delete and undo what a test has done; return whether nothing of it is left."""
        project = self.project
        vars(project).update(self._attributes)
        for path in self._list("services") - {project.path_in(r) for r in project.regions}:
            requests.delete(path, timeout=10)
        for region, now in project.services().items():
            if "error" in now:
                return False
            if now != (service := self._services[region]):
                version = now["metadata"]["resourceVersion"]
                metadata = {**service["metadata"], "resourceVersion": version}
                self._services[region] = project.put({**service, "metadata": metadata}, region)
        for path in self._list("revisions") - self._revisions:
            requests.delete(path, timeout=10)
        if self._read() != self._repository:
            project.git("reset", "--quiet", "--hard", self._repository[0])
            project.git("clean", "--quiet", "-ffdx")
        return (self._list("revisions"), self._read()) == (self._revisions, self._repository)

    def _read(self) -> list[str]:
        """Return what the repository holds, and the images of its commits."""
        project = self.project
        git = (("rev-parse", "HEAD"), ("for-each-ref",), ("status", "--porcelain", "--ignored"))
        tags = f"{project.cloud_run.url}/v2/shipway-local/services/{project.name}/manifests"
        images = (
            requests.head(f"{tags}/{commit}", timeout=10).headers.get("Docker-Content-Digest", "")
            for commit in project.git("rev-list", "HEAD").split()
        )
        return [*(project.git(*words) for words in git), *images]

    def _list(self, kind: str) -> set[str]:
        """Return the URLs of the service, or of its revisions, in all regions."""
        project, found = self.project, set()
        everywhere = f"{project.path_in('-').rpartition('/services/')[0]}/{kind}"
        for item in requests.get(everywhere, timeout=10).json().get("items", []):
            metadata = item["metadata"]
            labels = metadata["labels"]
            service = labels.get("serving.knative.dev/service", metadata["name"])
            if service == project.name:
                region = labels["cloud.googleapis.com/location"]
                there = project.path_in(region).rpartition("/services/")[0]
                found.add(f"{there}/{kind}/{metadata['name']}")
        return found


def deliver_one(project: Project) -> None:
    """Deliver the first commit."""
    project.done("deliver")


def deploy_a_candidate(project: Project) -> None:
    """Deliver the first commit; deploy another one without traffic."""
    deliver_one(project)
    project.commit()
    project.done("build")
    project.done("deploy")


@pytest.fixture
def served(lend: Lend) -> Iterator[Project]:
    """Yield a repository whose first commit is delivered."""
    with lend(deliver_one) as project:
        yield project


@pytest.fixture
def candidate(lend: Lend) -> Iterator[Project]:
    """One revision serves, the next one is deployed without traffic."""
    with lend(deploy_a_candidate) as project:
        yield project
