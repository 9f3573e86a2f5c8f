"""A place to torture: a local Cloud Run, a repository, and one service in a state that comes back.

Making a service takes a second, so cells share it: before each cell, one write puts the service
back into its state, and the revisions of the last cell are deleted. Images and commits that it
leaves behind have no effect on the next one, which takes a commit of its own.
"""

from __future__ import annotations

import copy
import http.client
import json
import os
import re
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests import warm
from tests.conftest import FOR_GCLOUD, LocalCloudRun
from tests.scripts.conftest import LOCAL, Project

STATES = ("steady", "deployed", "ten", "held", "rolled-back")
FOREIGN = {"tag": "blue", "annotation": "team.example/owner", "label": "team"}
PATIENCE = 20.0
_KEPT = ("v1", "v2", "v3")
_COMMITS = 400  # of one service: its lists of images grow
_SYSTEM = re.compile(r"(run\.googleapis\.com|serving\.knative\.dev)/")
_IDLE = 30.0  # seconds
# The user asks often at first, when most happens, and seldom while a command waits.
_PAUSES = (0.04, 0.6, 1.15)
# A command starts faster with few variables: the HTTP library reads all of them for each request.
_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR")


@dataclass
class Ended:
    """A command that ended: its exit code (negative: a signal), output and duration."""

    code: int
    out: str
    err: str
    seconds: float
    in_time: bool = True


@dataclass
class Facts:
    """What an observer sees of a service.

    Attributes:
        shares: Revision -> percent that is in force.
        planned: Revision -> percent that was asked for.
        written: Everything that a command could have written, to compare.
        service: The service itself.
        revisions: Revision -> whether it is Ready.
    """

    shares: dict[str, int]
    planned: dict[str, int]
    hold: str
    candidate: str
    tags: dict[str, str]
    written: Any
    service: Any
    revisions: dict[str, bool]


class Load:
    """A user who asks the service's URL all the time, and counts the requests that fail."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pause = _PAUSES[0]
        self.asked = 0
        self.failed: list[str] = []
        self.paused = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Ask as often as at the beginning."""
        self.pause = _PAUSES[0]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.wait(self.pause):
            self.pause = min(_PAUSES[1], self.pause * _PAUSES[2])
            if not self.paused:
                connection = connection or http.client.HTTPConnection(
                    urlsplit(self.url).netloc, timeout=15
                )
                problem = _ask(connection)
                if not self.paused:
                    self.asked += 1
                    self.failed += [problem] if problem else []
                    if not problem:
                        continue
            if connection is not None:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


def _ask(connection: http.client.HTTPConnection) -> str:
    """Make one request; return what was wrong with its answer."""
    try:
        connection.request("GET", "/version")
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    return "" if answer.status == 200 else f"{answer.status} {body[:80]!r}"


class Api:
    """A connection to a local Cloud Run, which costs less than one of the library `requests`."""

    def __init__(self, cloud_run: LocalCloudRun) -> None:
        self._cloud_run = cloud_run
        self._secret = cloud_run.secret
        self._connection = self._open()

    def _open(self) -> http.client.HTTPConnection:
        self._asked = time.monotonic()
        return http.client.HTTPConnection(urlsplit(self._cloud_run.url).netloc, timeout=15)

    def close(self) -> None:
        self._connection.close()

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request; return the status and the JSON of the answer."""
        if time.monotonic() - self._asked > _IDLE:  # the server may have closed it
            self.close()
            self._connection = self._open()
        text = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if text else {}
        if path.startswith("/_local/"):
            headers |= self._secret
        try:
            self._connection.request(method, path, text, headers)
            answer = self._connection.getresponse()
            received = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        self._asked = time.monotonic()
        return answer.status, json.loads(received)

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request that must succeed; return its JSON."""
        status, document = self.send(method, path, body)
        if status >= 400:
            raise Broken(f"{method} {path}: {status} {str(document)[:300]}")
        return document


class SamePort(LocalCloudRun):
    """A local Cloud Run that comes back at the same address after a crash."""

    def start(self) -> None:
        super().start()
        if "--port" not in self.arguments:
            self.arguments = (*self.arguments, "--port", str(urlsplit(self.url).port))


@dataclass
class Place:
    """One local Cloud Run with one service, which goes back to a state before each cell.

    Attributes:
        roles: Revision -> what it is: v1, v2, v3 in the order of release; a cell's own, as new.
        commits: Role -> full commit SHA.
    """

    folder: Path
    regions: tuple[str, ...] = ("us-central1",)
    cloud_run: SamePort = field(init=False)
    project: Project = field(init=False)
    load: Load = field(init=False)
    roles: dict[str, str] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cloud_run = SamePort(self.folder / "state", *FOR_GCLOUD)
        self.api = Api(self.cloud_run)
        self._services = 0
        self._saved: dict[str, dict[str, Any]] = {}
        self._made = self._deleted = 0
        self._build()

    # Setting up

    def _build(self) -> None:
        """Make a service, take it through the states, and save each."""
        self._services += 1
        name = f"svc{self._services}"
        self.project = project = Project(self.folder / name, self.cloud_run, name)
        local = LOCAL.format(endpoint=self.cloud_run.url)
        local = local.replace("[us-central1]", f"[{', '.join(self.regions)}]")
        (project.pipeline / "local.yaml").write_text(local)
        self.roles, self.commits, self._saved = {}, {}, {}
        self._made = self._deleted = 0
        self._release("v1")
        project.done("deliver")
        for region in self.regions:
            self._put_foreign(region)
        self._release("v2")
        project.done("deliver")
        self._save("steady")
        self._release("v3")
        project.done("build")
        project.done("deploy")
        self._save("deployed")
        project.done("promote")
        self._save("ten")
        project.done("hold", "--name", "mine")
        self._save("held")
        project.done("resume")
        project.done("rollback")
        self._save("rolled-back")
        self.load = Load(self.service()["status"]["url"])

    def _release(self, role: str) -> None:
        sha = self.project.commit()
        self.commits[role] = sha
        self.roles[self.project.revision(sha)] = role

    def _put_foreign(self, region: str) -> None:
        service = self.service(region)
        meta = service["metadata"]
        meta["annotations"][FOREIGN["annotation"]] = "someone"
        meta["labels"][FOREIGN["label"]] = "red"
        revision = service["spec"]["traffic"][0]["revisionName"]
        service["spec"]["traffic"].append({"revisionName": revision, "tag": FOREIGN["tag"]})
        self.put(service, region)
        self.settled(region)

    def _save(self, state: str) -> None:
        found = {}
        for region in self.regions:
            service = copy.deepcopy(self.settled(region))
            service.pop("status")
            for key in ("resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"):
                service["metadata"].pop(key, None)
            found[region] = service
        self._saved[state] = found

    # Between cells

    def restore(self, state: str) -> None:
        """Put the service back into a state; the clone is at v3, or at the cell's own commit."""
        if self._made > _COMMITS:
            self.load.close()
            self._build()
        self.load.hurry()
        for region in self.regions:
            self._restore(region, state)
        self._forget()
        if state == "steady":
            self.commit("new", self.commits["v3"])
        else:
            self._go_to(self.commits["v3"])

    def commit(self, role: str, parent: str) -> str:
        """Commit on top of another commit, with the same files, and go there; return its SHA."""
        sha = self.project.git(
            "commit-tree", "-p", parent, "-m", uuid.uuid4().hex, f"{parent}^{{tree}}"
        )
        self.commits[role] = sha
        self.roles[self.project.revision(sha)] = role
        self._made += 1
        self._go_to(sha)
        return sha

    def _go_to(self, commit: str) -> None:
        # All commits since v3 have the same files, so git has nothing to do.
        (self.project.folder / ".git/refs/heads/main").write_text(f"{commit}\n")

    def _forget(self) -> None:
        """Delete the revisions of the last cell's own commits: long lists make reads slow."""
        for role in [role for role in self.commits if role not in _KEPT]:
            del self.commits[role]
        self.roles = {name: role for name, role in self.roles.items() if role in _KEPT}
        for region in self.regions if self._made > self._deleted else ():
            for name in self._revisions(region):
                if name not in self.roles:
                    self.api.done("DELETE", f"{self._root(region)}/revisions/{name}")
        self._deleted = self._made

    def _revisions(self, region: str) -> dict[str, Any]:
        selector = f"labelSelector=serving.knative.dev%2Fservice%3D{self.project.name}"
        listed = self.api.done("GET", f"{self._root(region)}/revisions?{selector}")
        return {one["metadata"]["name"]: one for one in listed.get("items", [])}

    def _root(self, region: str) -> str:
        return f"/v1/projects/shipway-local/locations/{region}"

    def _restore(self, region: str, state: str) -> None:
        wanted = self._saved[state][region]
        self.put(copy.deepcopy(wanted), region)
        service = self.settled(region)
        shares = _shares(service["status"].get("traffic", []))
        if not _is_ready(service) or shares != _shares(wanted["spec"]["traffic"]):
            raise Broken(f"{state} did not come back: {service['status']}")

    # Reading and writing as another tool does

    def path(self, region: str = "") -> str:
        return f"{self._root(region or self.regions[0])}/services/{self.project.name}"

    def service(self, region: str = "") -> Any:
        return self.api.done("GET", self.path(region))

    def put(self, service: Any, region: str = "") -> Any:
        service.pop("status", None)
        return self.api.done("PUT", self.path(region), service)

    def settled(self, region: str = "") -> Any:
        """Return the service once Cloud Run has decided about everything that was written."""
        deadline = time.monotonic() + PATIENCE
        while True:
            service = self.service(region)
            kinds = {one["type"]: one["status"] for one in service["status"]["conditions"]}
            if kinds.get("Ready") in ("True", "False") or time.monotonic() > deadline:
                return service
            time.sleep(0.005)

    def facts(self, region: str = "") -> Facts:
        """Observe the service, once it has settled."""
        service = self.settled(region)
        revisions = self._revisions(region or self.regions[0])
        tags = f"/v2/shipway-local/services/{self.project.name}/tags/list"
        images = self.api.send("GET", tags)[1]  # 404: there are none
        metadata = service["metadata"]
        annotations = metadata.get("annotations", {})
        written = {
            "annotations": {k: v for k, v in annotations.items() if not _SYSTEM.match(k)},
            "labels": metadata.get("labels", {}),
            "spec": service["spec"],
            "revisions": sorted(revisions),
            "images": sorted(images.get("tags") or []),
        }
        return Facts(
            shares=_shares(service["status"].get("traffic", [])),
            planned=_shares(service["spec"].get("traffic", [])),
            hold=_hold(annotations.get("shipway/hold", "")),
            candidate=annotations.get("shipway/candidate", ""),
            tags={t["tag"]: t.get("revisionName", "") for t in service["spec"]["traffic"]
                  if t.get("tag")},
            written=written,
            service=service,
            revisions={name: _is_ready(one) for name, one in revisions.items()},
        )  # fmt: skip

    def role(self, revision: str) -> str:
        """Return what a revision is; a second try at a commit counts as the first."""
        short = re.sub(r"-\d+$", "", revision) if revision.count("-") > 1 else revision
        return self.roles.get(short, revision and "other")

    def by_role(self, shares: Mapping[str, int]) -> dict[str, int]:
        return {self.role(name): percent for name, percent in shares.items()}

    # Faults

    def last_call(self) -> int:
        calls = self.calls(0)
        return calls[-1]["number"] if calls else 0

    def calls(self, after: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._local("GET", f"calls?after={after}")["calls"]
        return found

    def start_fault(self, fault: Mapping[str, Any]) -> None:
        self._local("POST", "faults", dict(fault))

    def end_faults(self) -> dict[str, int]:
        """End every fault; return name -> how many calls it struck."""
        struck = {}
        for fault in self._local("GET", "faults")["faults"]:
            struck[fault["name"]] = fault.get("struck", 1)
            self._local("DELETE", f"faults/{fault['name']}")
        return struck

    def struck(self) -> bool:
        """Return whether the active fault has struck."""
        return any(one.get("struck") for one in self._local("GET", "faults")["faults"])

    def _local(self, method: str, path: str, body: Any = None) -> Any:
        return self.api.done(method, f"/_local/{path}", body)

    # Commands

    def start(self, *words: str) -> Running:
        return Running(self.project, words)

    def ship(self, *words: str, limit: float = 65) -> Ended:
        """Run a command to its end, or to its limit."""
        return self.start(*words).wait(limit)

    def crash(self) -> None:
        """Kill the local Cloud Run, and start it again on what it has on disk."""
        self.load.paused = True
        self.cloud_run.stop(signal.SIGKILL)
        self.cloud_run.start()
        self.api.close()
        self.api = Api(self.cloud_run)
        self.settled()
        self.load.paused = False

    def close(self) -> None:
        self.load.close()
        self.api.close()
        self.cloud_run.stop(signal.SIGKILL)


class Broken(Exception):
    """The place itself does not work: no result about Shipway."""


class Running:
    """A command that runs."""

    def __init__(self, project: Project, words: tuple[str, ...]) -> None:
        self._out = tempfile.TemporaryFile()  # noqa: SIM115  (closed in wait)
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self._began = time.monotonic()
        env = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        env["SHIPWAY_ACTOR"] = "tester"
        self.process = warm.Process(
            warm.SHIP, *words, cwd=project.folder, env=env,
            stdout=self._out.fileno(), stderr=self._err.fileno(),
        )  # fmt: skip

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)

    def wait(self, limit: float) -> Ended:
        in_time = self.process._end(limit) is not None
        if not in_time:
            os.kill(self.process.pid, signal.SIGKILL)
        code = self.process.wait(30)
        seconds = time.monotonic() - self._began
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        return Ended(code, texts[0], texts[1], seconds, in_time)


def _shares(targets: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for target in targets:
        if target.get("percent"):
            name = target.get("revisionName", "(latest)")
            found[name] = found.get(name, 0) + target["percent"]
    return found


def _hold(text: str) -> str:
    try:
        return str(json.loads(text)["name"]) if text else ""
    except (ValueError, KeyError, TypeError):
        return "unreadable"


def _is_ready(document: Any) -> bool:
    conditions = document["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
