"""People and programs hear of each change of a release, and delay none."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from scripts.config import pipelines
from scripts.release.memory import Event
from scripts.service.notify import Notifier
from tests.scripts.conftest import Project

NOTIFY = """
notify:
  - {{to: {to}, url: $HOOK{key}}}
"""


class Receiver:
    """A web server that keeps what it is sent. `status` is what it answers, None: nothing."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.status: int | None = 200
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.received.append(({k.lower(): v for k, v in self.headers.items()}, body))
                if outer.status is None:
                    outer.released.wait()
                    return
                self.send_response(outer.status)
                self.send_header("Location", "http://169.254.169.254/")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/T0/B0/hook"

    @property
    def messages(self) -> list[Any]:
        return [json.loads(body) for _, body in self.received]

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def notify(project: Project, to: str, key: str = "") -> None:
    file = project.pipeline / "local.yaml"
    file.write_text(file.read_text() + NOTIFY.format(to=to, key=key and f", key: {key}"))


def test_slack_hears_of_each_change_once_and_gets_no_markup(
    project: Project, receiver: Receiver
) -> None:
    notify(project, "slack")
    project.commit()
    project.done("deliver", HOOK=receiver.url)
    receiver.received.clear()
    commit = project.commit()
    project.done("deliver", HOOK=receiver.url)
    texts = [message["text"] for message in receiver.messages]
    revision = project.revision(commit)
    assert sorted(text.partition("\n")[0].partition("tester ")[2] for text in texts) == [
        f"begins the release of {revision}",
        *(f"gives {revision} {percent} % of the traffic" for percent in (10, 100, 50)),
    ]
    assert all(f"./ship rollback {project.name}" in text for text in texts)
    receiver.received.clear()
    project.done("rollback", "--reason", "<!channel> & <http://x|y>", HOOK=receiver.url)
    [message] = receiver.messages
    assert "&lt;!channel&gt; &amp; &lt;http://x|y&gt;" in message["text"]
    assert f"./ship resume {project.name}" in message["text"]


def test_a_program_gets_a_signed_cloud_event(project: Project, receiver: Receiver) -> None:
    notify(project, "cloud-event", "$KEY")
    project.commit()
    project.done("deliver", HOOK=receiver.url, KEY="k" * 32)
    project.done("hold", "--reason", "stop", HOOK=receiver.url, KEY="k" * 32)
    headers, body = receiver.received[-1]
    event = json.loads(body)
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert (event["specversion"], event["type"]) == ("1.0", "dev.shipway.hold")
    assert event["data"]["why"] == "stop"
    signed = f"{event['id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(b"k" * 32, signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert len({json.loads(b)["id"] for _, b in receiver.received}) == len(receiver.received)


@pytest.mark.parametrize(
    ("status", "said"),
    [(None, "ReadTimeout"), (500, "slack answered 500"), (302, "slack answered 302")],
)
def test_a_receiver_that_fails_stops_nothing_and_is_said_once(
    project: Project, receiver: Receiver, status: int | None, said: str
) -> None:
    notify(project, "slack")
    project.commit()
    receiver.status = status
    ended = project.ship("deliver", HOOK=receiver.url)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("note: not everyone was notified") == 1
    assert said in ended.stderr
    assert "/T0/B0/hook" not in ended.stderr


def test_a_rollback_is_done_before_anyone_hears_of_it(project: Project, receiver: Receiver) -> None:
    notify(project, "slack")
    for _ in range(2):
        commit = project.commit()
        project.done("deliver", HOOK=receiver.url)
    receiver.status = None
    with project.start("rollback", HOOK=receiver.url) as process:
        began = time.monotonic()
        while project.shares() == {project.revision(commit): 100}:
            assert time.monotonic() - began < 20
        assert process.poll() is None  # it still waits for the receiver
        receiver.released.set()
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_the_same_change_in_another_region_is_no_second_message(
    project: Project, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify(project, "slack")
    monkeypatch.setenv("HOOK", receiver.url)
    notifier = Notifier(pipelines.load(project.folder, project.name, "local"), print)
    for second in range(2):
        at = f"2026-01-01T00:00:0{second}Z"
        notifier.changed(Event(at=at, by="me", verb="promote", revision="app-1", percent=10))
    notifier.close()
    assert len(receiver.messages) == 1


def test_a_missing_variable_is_said(project: Project) -> None:
    notify(project, "slack")
    project.commit()
    ended = project.ship("deliver")
    assert ended.returncode == 0, ended.stderr
    assert "note: not everyone was notified: $HOOK is not set" in ended.stderr


def test_the_address_of_a_webhook_is_not_written_into_the_file(project: Project) -> None:
    file = project.pipeline / "local.yaml"
    hook = "https://hooks.slack.com/services/T/B/x"
    file.write_text(f"{file.read_text()}notify:\n  - {{to: slack, url: {hook}}}\n")
    project.commit()
    ended = project.ship("status")
    assert ended.returncode == 2
    assert "the address of a slack webhook is a secret" in ended.stderr
    assert hook not in ended.stderr
