"""`ship logs`: the output of a service's containers, and their requests."""

from __future__ import annotations

import json
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from tests.emulator.cloud_run_help import eventually
from tests.scripts.conftest import Project


def texts(project: Project, *arguments: str) -> list[str]:
    """Return the text of the entries, or the path of the request."""
    entries = project.done("logs", *arguments)["entries"]
    return [e.get("textPayload") or e["httpRequest"]["requestUrl"] for e in entries]


def ask(project: Project, path: str) -> str:
    url = f"{project.service()['status']['url']}{path}"
    assert requests.get(url, timeout=10).ok
    return url


def test_output_and_requests_oldest_first(served: Project) -> None:
    urls = [ask(served, f"/page?n={n}") for n in range(3)]
    found = texts(served)
    assert any(text.startswith("starting ") for text in found)
    assert found[-3:] == urls
    assert texts(served, "--limit", "2") == urls[1:]
    revision = served.revision(served.git("rev-parse", "HEAD"))
    assert texts(served, "--severity", "error", "--revision", revision) == []

    ended = served.ship("logs")
    assert ended.returncode == 0
    head, *rows = ended.stdout.splitlines()
    assert head.split() == ["TIME", "SEVERITY", "REVISION", "TEXT"]
    assert f"INFO      {revision}  200 GET /page?n=2 in " in rows[-1]


def test_of_one_revision(served: Project) -> None:
    first = served.revision(served.git("rev-parse", "HEAD"))
    ask(served, "/before")
    served.commit()
    served.done("deliver")
    second = served.revision(served.git("rev-parse", "HEAD"))
    ask(served, "/after")
    for revision, path, other in ((first, "/before", "/after"), (second, "/after", "/before")):
        said = " ".join(texts(served, "--revision", revision))
        assert path in said
        assert other not in said


def test_more_than_a_page(served: Project) -> None:
    """Cloud Logging gives 1,000 entries at a time."""
    served.serve_with('for number in range(1100):\n    print("line", number, flush=True)')
    served.commit()
    served.done("deliver")
    eventually(lambda: "line 1099" in texts(served))
    found = texts(served, "--limit", "1003")
    assert len(found) == 1003
    lines = [text for text in found if text.startswith("line ")]
    assert lines == [f"line {number}" for number in range(1100 - len(lines), 1100)]
    assert len(lines) > 990, "the others are the checks' requests"


def test_nothing_in_that_time(project: Project) -> None:
    ended = project.ship("logs", "--since", "10m")
    assert ended.returncode == 0
    assert "no entries in the last 10m" in ended.stdout


def test_bad_usage(project: Project) -> None:
    for arguments in (["--limit", "0"], ["--since", "yesterday"], ["--severity", "loud"]):
        assert project.ship("logs", *arguments).returncode == 2


@contextmanager
def following(project: Project, *arguments: str) -> Iterator[queue.Queue[str]]:
    """Run `ship logs --follow`; yield its lines as they come; end it with Ctrl-C."""
    process = project.start("logs", "--follow", *arguments)
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout])  # type: ignore[union-attr]
    reader.start()
    try:
        yield lines
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        reader.join()
        process.stdout.close()
        process.stderr.close()


def test_follow_shows_each_entry_once(served: Project) -> None:
    ask(served, "/before")
    with following(served, "--format", "json", "--limit", "1") as lines:
        first = json.loads(lines.get(timeout=20))
        assert first["httpRequest"]["requestUrl"].endswith("/before")
        for number in range(3):
            url = ask(served, f"/during?n={number}")
            entry = json.loads(lines.get(timeout=20))
            assert entry["httpRequest"]["requestUrl"] == url
    assert lines.empty()


def test_follow_for_people(served: Project) -> None:
    with following(served) as lines:
        ask(served, "/during")
        while "200 GET /during in" not in lines.get(timeout=20):
            pass
