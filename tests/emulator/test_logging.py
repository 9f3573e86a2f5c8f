"""Cloud Logging's entries.list: containers' lines, requests, and filters."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.errors import ApiError
from emulator.logging import filters, structured
from tests.emulator.cloud_run_help import CloudRun, eventually, service

REQUESTS = "projects/acme/logs/run.googleapis.com%2Frequests"


@pytest.fixture(scope="module")
def url(cloud_run, image) -> str:
    """Return the URL of a service that wrote three lines in three requests."""
    ready = cloud_run.ready(service("chatty", image, "chatty-a"))
    url = ready["status"]["url"]
    for line in ('{"severity":"error","message":"boom"}', "plain", '{"message":"m","n":1}'):
        cloud_run.http.get(f"{url}/log?{line}", headers={"User-Agent": "Lively/2"})
    eventually(lambda: len(found(cloud_run, "chatty")) == 4)
    return url


def found(cloud_run: CloudRun, name: str, more: str = "-logName:requests"):
    mine = f'resource.labels.service_name="{name}" resource.labels.location="us-central1"'
    answer = cloud_run.logs(f"{mine} {more}")
    assert answer.status_code == 200, answer.text
    return answer.json()["entries"]


def test_log_entries_are_filtered_ordered_and_paged(cloud_run, url):
    system, boom, plain, structured = found(cloud_run, "chatty")
    assert "STARTUP TCP probe succeeded after 1 attempt" in system["textPayload"]
    assert (boom["severity"], boom["textPayload"]) == ("ERROR", "boom")
    assert plain["textPayload"] == "plain"
    assert structured["jsonPayload"] == {"message": "m", "n": 1}
    assert plain["resource"]["type"] == "cloud_run_revision"
    assert plain["resource"]["labels"]["revision_name"] == "chatty-a"
    assert found(cloud_run, "chatty", "AND severity>=ERROR") == [boom]
    mine = 'resource.labels.service_name="chatty" -logName:requests'
    later = cloud_run.logs(f'{mine} AND timestamp>"{boom["timestamp"]}"').json()["entries"]
    assert later == [plain, structured]
    for order, expected in (
        ("timestamp desc", [structured, plain, boom, system]),
        ("timestamp asc", [system, boom, plain, structured]),
    ):
        first = cloud_run.logs(mine, orderBy=order, pageSize=3).json()
        assert first["entries"] == expected[:3]
        token = first["nextPageToken"]
        second = cloud_run.logs(mine, orderBy=order, pageSize=3, pageToken=token).json()
        assert second == {"entries": expected[3:]}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('textPayload="PLAIN"', 1),
        ("textPayload:lai", 1),
        ('textPayload=~"^b.+m$"', 1),
        ('textPayload!~"o" NOT textPayload:STARTUP -logName:requests', 2),
        ("textPayload=boom OR textPayload=plain", 2),
        # OR binds tighter than AND.
        ("textPayload=boom OR textPayload=plain AND severity=ERROR", 1),
        ("textPayload=boom OR (textPayload=plain AND severity=ERROR)", 1),
        ("textPayload=plain OR (textPayload=boom AND severity=ERROR)", 2),
        ("NOT (textPayload=boom OR textPayload=plain)\n-logName:requests", 2),
        ("jsonPayload.n=1", 1),
        ("jsonPayload.n>0.5 jsonPayload.n<=1", 1),
        ("jsonPayload.n!=1", 0),  # missing elsewhere: no comparison holds
        ("jsonPayload.other!=1", 0),
        ("NOT jsonPayload.n=1 -logName:requests", 3),
        ("jsonPayload.n:*", 1),
        ('logName="projects/acme/logs/run.googleapis.com%2Frequests"', 3),
        ("log_name:requests http_request.status>=200", 3),
        ("httpRequest.status>=300", 0),
        ('httpRequest.latency>"20s"', 0),
        ('httpRequest.latency<"20s" httpRequest.requestUrl:"/log?plain"', 1),
        ('httpRequest.userAgent="lively/2"', 3),
        ("severity=DEFAULT textPayload=plain", 1),
        (f"logName:requests timestamp<={datetime(2020, 1, 1, tzinfo=UTC).isoformat()}", 0),
        ("resource.type = cloud_run_revision \n AND severity >= DEFAULT \n", 7),
        ('resource.labels.revision_name="CHATTY-A" textPayload=plain', 1),
        ('resource.labels.revision_name="other"', 0),
        ('resource.labels.revision_name="other" OR textPayload=plain', 1),
    ],
)
def test_filters(cloud_run, url, text, count):
    eventually(lambda: len(found(cloud_run, "chatty", "logName:requests")) == 3)
    assert len(found(cloud_run, "chatty", text)) == count


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        ("textPayload:a OR", "OR"),
        ("(textPayload:a", "(textPayload:a"),
        ("textPayload:a)", ")"),
        ("boom", "boom"),
        ("sourceLocation.line=5", "sourceLocation.line=5"),
        ('httpRequest.status="many"', 'httpRequest.status="many"'),
        ('httpRequest.latency>"20 ms"', "20 ms"),
        ('textPayload=~"("', "regular expression"),
        ("severity>=LOUD", "LOUD"),
        ('timestamp>="yesterday"', "yesterday"),
        ('timestamp>="2026-01-01T00:00:00"', "time zone"),
    ],
)
def test_an_unsupported_log_filter_is_refused_and_the_part_is_named(cloud_run, bad, part):
    refused = cloud_run.logs(bad)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert part in refused.json()["error"]["message"]


@pytest.mark.parametrize("body", [{"pageToken": "x"}, {"pageSize": -1}, {"orderBy": "severity"}])
def test_an_invalid_log_query_is_refused(cloud_run, body):
    assert cloud_run.logs("", **body).status_code == 400


def test_a_request_leaves_an_entry_in_cloud_runs_form(cloud_run, image):
    url = cloud_run.ready(service("asked", image, "asked-a"))["status"]["url"]
    before = datetime.now(UTC)
    trace = "b" * 32
    headers = {
        "User-Agent": "Lively/2",
        "Referer": "https://example.com/",
        "X-Cloud-Trace-Context": f"{trace}/1;o=1",
    }
    posted = cloud_run.http.post(f"{url}/a%20b?q=1", data=b"12345", headers=headers)
    (entry,) = found(cloud_run, "asked", "logName:requests")
    moment = datetime.fromisoformat(entry.pop("timestamp"))
    assert before <= moment <= datetime.fromisoformat(entry.pop("receiveTimestamp"))
    assert entry.pop("insertId")
    latency = re.fullmatch(r"(\d+\.\d+)s", entry["httpRequest"].pop("latency"))
    assert latency
    assert 0 < float(latency[1]) < 20
    size = int(entry["httpRequest"].pop("responseSize"))
    assert len(posted.content) + 100 < size < len(posted.content) + 400  # with its headers
    assert entry == {
        "logName": REQUESTS,
        "severity": "INFO",
        "trace": f"projects/acme/traces/{trace}",
        "resource": {
            "type": "cloud_run_revision",
            "labels": {
                "project_id": "acme",
                "location": "us-central1",
                "service_name": "asked",
                "revision_name": "asked-a",
                "configuration_name": "asked",
            },
        },
        "httpRequest": {
            "requestMethod": "POST",
            "requestUrl": f"{url}/a%20b?q=1",
            "requestSize": "5",
            "status": 200,
            "userAgent": "Lively/2",
            "referer": "https://example.com/",
            "remoteIp": "127.0.0.1",
            "protocol": "HTTP/1.1",
        },
    }


def test_the_severity_follows_the_status_and_failures_are_logged(cloud_run, image):
    url = cloud_run.ready(service("failing", image))["status"]["url"]
    cloud_run.http.get(f"{url}/redirect", allow_redirects=False)
    cloud_run.http.get(f"{url}/drop")
    cloud_run.http.get(f"{url}/healthz")  # the front end answers it, no revision is asked
    entries = found(cloud_run, "failing", "logName:requests")
    statuses = [(e["httpRequest"]["status"], e["severity"]) for e in entries]
    assert statuses == [(302, "INFO"), (503, "ERROR")]


def test_a_caller_that_disconnects_is_logged(cloud_run, image):
    url = cloud_run.ready(service("left", image))["status"]["url"]
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as caller:
        caller.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert cloud_run.http.get(f"{url}/waiting").json() == {"waiting": True}
    mine = 'httpRequest.requestUrl:"/wait" -httpRequest.requestUrl:"/waiting"'
    (entry,) = eventually(lambda: found(cloud_run, "left", mine))
    assert (entry["httpRequest"]["status"], entry["severity"]) == (499, "WARNING")
    cloud_run.http.get(f"{url}/release")


def test_a_line_can_set_its_time_and_trace(cloud_run, image):
    url = cloud_run.ready(service("timed", image))["status"]["url"]
    moment = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    line = (
        f'{{"time":"{moment}","message":"early","logging.googleapis.com/trace":"abc",'
        '"logging.googleapis.com/trace_sampled":true}'
    )
    cloud_run.http.get(f"{url}/log", params=line.replace("+", "%2B"))
    (entry,) = eventually(lambda: found(cloud_run, "timed", "textPayload=early"))
    assert datetime.fromisoformat(entry["timestamp"]) == datetime.fromisoformat(moment)
    assert entry["trace"] == "projects/acme/traces/abc"
    assert entry["traceSampled"] is True


def test_a_log_is_bounded_and_keeps_the_newest_entries(fresh_cloud_run, connect):
    """Many concurrent requests lose no entry, and the log survives a kill during a write."""
    client = connect(fresh_cloud_run.url)
    image = client.push()
    url = client.ready(service("busy", image, "busy-a"))["status"]["url"]
    path = "/log?" + "x" * 8000

    def ask(number: int) -> int:
        return client.http.get(f"{url}{path}{number}").status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(200))) == {200}
    newest = client.logs("logName:requests", pageSize=200, orderBy="timestamp desc").json()
    assert len({entry["insertId"] for entry in newest["entries"]}) == 200
    assert "nextPageToken" not in newest
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(200, 1200)))
    last = client.logs("logName:requests", pageSize=1, orderBy="timestamp desc").json()["entries"]
    assert len(last) == 1
    folder = Path(fresh_cloud_run.state) / "logs/acme/us-central1/busy"
    fresh_cloud_run.stop(signal.SIGKILL)
    sizes = [file.stat().st_size for file in folder.iterdir()]
    assert len(sizes) == 4
    assert max(sizes) < 6 * 1024 * 1024
    with (folder / "busy-a.requests.jsonl").open("ab") as file:
        file.write(b'{"receiveTimestamp":"20')
    fresh_cloud_run.start()
    again = connect(fresh_cloud_run.url)
    query = {"pageSize": 1, "orderBy": "timestamp desc"}
    assert again.logs("logName:requests", **query).json()["entries"] == last


@pytest.mark.parametrize(
    "line",
    [
        '{"a":' * 100_000,
        '{"a":' * 600 + "1" + "}" * 600,
        '{"a":"\\ud800"}',
        '{"a":1e999}',
        '{"time":"0001-01-01T00:00:00+14:00"}',
        f'{{"a":{"1" * 4000}}}',
        "\0",
    ],
)
def test_any_line_of_a_container_can_be_written_and_read(line):
    entry = structured.content(line)
    stored = msgspec.json.encode({"written": entry})
    assert json.loads(json.dumps(msgspec.json.decode(stored))) == {"written": entry}


def test_no_regular_expression_holds_up_other_requests(cloud_run, image):
    ready = cloud_run.ready(service("patient", image, "patient-a"))
    cloud_run.http.get(f"{ready['status']['url']}/log?{'a' * 3000}!")
    eventually(lambda: len(found(cloud_run, "patient")) == 2)
    with ThreadPoolExecutor(1) as pool:
        # An engine that tries all ways would never end.
        asked = pool.submit(found, cloud_run, "patient", 'textPayload=~"^(a+)+$"')
        assert requests.get(cloud_run.url, timeout=60).status_code == 200
        assert asked.result(timeout=60) == []
    assert len(found(cloud_run, "patient", r'textPayload=~"^a{9}\\w+!$"')) == 1
    assert len(found(cloud_run, "patient", '-logName:requests textPayload!~"^a"')) == 1


@pytest.mark.parametrize(
    ("filter", "why"),
    [
        ("(" * 9000 + "severity=INFO" + ")" * 9000, "nested"),
        ("NOT " * 4000 + "severity=INFO", "nested"),
        ("-(" * 4000, "nested"),
        ("(" * 100_000, "longer than 20000 characters"),
        ("severity=INFO OR " * 2000, "longer than 20000 characters"),
        ('textPayload=~"(?=a)"', "Unreadable regular expression"),
        ('textPayload=~"(a)\\\\1"', "Unreadable regular expression"),
        ('textPayload=~"(((a{100}){100}){100}){100}"', "Unreadable regular expression"),
        ('timestamp>"0001-01-01T00:00:00+14:00"', "in filter"),
    ],
)
def test_a_filter_that_costs_too_much_is_refused(cloud_run, filter, why):
    answer = cloud_run.logs(filter)
    assert (answer.status_code, why in answer.text) == (400, True), answer.text[:300]


def test_a_filter_as_deep_as_allowed_is_answered(cloud_run):
    assert cloud_run.logs("(" * 49 + "severity=INFO" + ")" * 49).status_code == 200


words = [
    *("severity", "textPayload", "timestamp", "labels.a", "httpRequest.status", "a", "1", "1e999"),
    *("nan", "é", "2026-01-01T00:00:00Z", ">=", "=~", "!~", " AND ", " OR ", "NOT "),
    *'()-:*=."\\',
]
pieces = st.sampled_from(words)


@settings(max_examples=300, deadline=None)
@given(text=st.lists(pieces, max_size=14).map("".join))
def test_any_filter_is_parsed_or_refused(text):
    with contextlib.suppress(ApiError):
        filters.parse(text).matches({"timestamp": "2026-01-01T00:00:00Z", "textPayload": "a"})
