"""A server that answers nonsense makes no verb crash, hang, or end without a reason.

The answers are those of the local Cloud Run and its registry, changed. Each command gets one
changed answer, or several.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from tests.conftest import LocalCloudRun
from tests.fuzz import fuzz
from tests.fuzz.changes import Change, Spoiled, as_json, changed, changes, spoil, spoiled
from tests.relay import Answer, Relay
from tests.scripts.conftest import Project

DEADLINE = 60.0  # seconds, for one command
COMMANDS = [
    ["status"], ["status", "--format", "json"], ["history"], ["history", "--changes"], ["plan"],
    ["plan", "--commit", "HEAD"], ["logs"], ["logs", "--format", "json"], ["smoke"],
    ["build", "--dry-run"], ["deploy", "--dry-run"], ["promote", "--dry-run", "--to", "100"],
    ["rollback", "--dry-run"], ["rollout", "--dry-run"], ["hold", "--dry-run", "--reason", "x"],
    ["deliver", "--dry-run"], ["resume", "--dry-run"],
]  # fmt: skip
HEADERS = [
    ("Content-Type", "text/html"), ("Content-Type", "application/json; charset=nonsense"),
    ("Content-Encoding", "gzip"), ("Location", "http://127.0.0.1:1/"), ("Location", "//["),
    ("Retry-After", "-1"), ("Retry-After", "soon"), ("Docker-Content-Digest", "sha256:.."),
    ("Docker-Content-Digest", "sha256:" + "0" * 64), ("Link", "<x"), ("Date", "soon"),
    ("Link", '</v2/x/tags/list?last=a>; rel="next"'), ("Www-Authenticate", "Bearer realm=\"//[\""),
]  # fmt: skip


class Hostile(NamedTuple):
    """What becomes of one answer: the how-manieth, and how it changes."""

    number: int
    status: int | None
    header: tuple[str, str] | None
    body: list[Change]
    text: list[Spoiled]

    def change(self, answer: Answer) -> Answer:
        status, headers, body = answer
        with contextlib.suppress(ValueError):  # a blob
            body = as_json(changed(json.loads(body), self.body)) if self.body else body
        if self.header:
            headers = [one for one in headers if one[0].lower() != self.header[0].lower()]
            headers.append(self.header)
        return self.status or status, headers, spoil(body, self.text[:1])


hostile = st.builds(
    Hostile,
    number=st.integers(0, 8),
    status=st.sampled_from([None, None, None, None, None, None, 200, 204, 302, 400, 404, 409]),
    header=st.one_of(st.none(), st.none(), st.none(), st.sampled_from(HEADERS)),
    body=st.one_of(changes, changes, changes, st.just(list[Change]())),
    text=st.one_of(st.just(list[Spoiled]()), st.just(list[Spoiled]()), spoiled),
)


class Server:
    """A relay to the local Cloud Run that changes answers as `plan` says."""

    def __init__(self, url: str) -> None:
        self.plan: list[Hostile] = []
        self._count = 0
        self._lock = threading.Lock()
        self.relay = Relay(url, change=self._change)

    def start(self, plan: list[Hostile]) -> None:
        self.plan, self._count = plan, 0

    def _change(self, _path: str, answer: Answer) -> Answer:
        with self._lock:
            number, self._count = self._count, self._count + 1
        for one in self.plan:
            if one.number == number:
                answer = one.change(answer)
        return answer


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, local_cloud_run: LocalCloudRun) -> Project:
    """Return a project with a stable revision and a candidate."""
    made = Project(tmp_path_factory.mktemp("fuzz") / "repository", local_cloud_run, "svc-answers")
    made.commit()
    made.done("deliver")
    made.commit()
    made.done("build")
    made.done("deploy")
    return made


@pytest.fixture(scope="module")
def server(local_cloud_run: LocalCloudRun) -> Iterator[Server]:
    made = Server(local_cloud_run.url)
    with made.relay:
        yield made


@fuzz(8, long=200)
@given(command=st.sampled_from(COMMANDS), plan=st.lists(hostile, min_size=1, max_size=3))
def test_nonsense_from_a_server_ends_in_a_result_or_one_error(
    project: Project, server: Server, command: list[str], plan: list[Hostile]
) -> None:
    server.start(plan)
    before = project.service()
    began = time.monotonic()
    ended = project.ship(*command, SHIPWAY_ENDPOINT=server.relay.url)
    note(" ".join(command))
    assert time.monotonic() - began < DEADLINE
    assert ended.returncode in (0, 1, 2, 3, 4), ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    assert "this should not happen" not in ended.stderr, ended.stderr
    assert not any("\x1b" in text or "\x9b" in text for text in (ended.stdout, ended.stderr))
    if ended.returncode in (1, 2, 3):
        assert "ship: " in ended.stderr
    assert project.service() == before
