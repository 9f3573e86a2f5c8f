"""What a watch decides on is what gcloud and Google's own client see, at Google's delay.

gcloud has no command for time series, so google-api-python-client reads them.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google.auth.credentials
import pytest
from aiohttp import web
from googleapiclient import discovery

from emulator import routes
from emulator.logging import urls as logging_urls
from emulator.logging.models import Logs
from emulator.monitoring import urls as monitoring_urls
from emulator.monitoring.models import Metrics
from emulator.names import Key
from emulator.served import Served
from scripts.cloud import metrics
from scripts.cloud.google import Google
from scripts.cloud.request_log import RequestLog
from scripts.config import pipelines
from scripts.config.formats import Watch
from scripts.config.pipelines import ENDPOINT_VARIABLE
from scripts.release.watch import Point, see
from tests.clients import test_gcloud_logging
from tests.clients.test_gcloud_logging import gcloud
from tests.conftest import ROOT

pytestmark = test_gcloud_logging.pytestmark
PIPELINE = pipelines.load(ROOT / "tests", "app", "local")
PROJECT, [REGION] = PIPELINE.environment.project, PIPELINE.environment.regions
DELAY = 240.0
NOW = float(int(time.time()) // 60 * 60 - 600)  # a whole minute


class Local:
    """The local Cloud Logging and Cloud Monitoring, which have their own time."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.logs = Logs(folder)
        self.metrics = Metrics(DELAY, lambda: self.now)
        self.url = ""

    def answered(self, revision: str, second: float, status: int) -> None:
        served = Served(
            NOW + second, 0.02, "GET", "app.test", "/", (1, 1), status, None, 9,
            None, None, None, "trace",
        )  # fmt: skip
        for listener in (self.logs.requests, self.metrics.requests):
            listener(Key(PROJECT, REGION, revision), "app", [served])

    @contextmanager
    def served(self) -> Iterator[None]:
        """Answer requests in a thread until the end."""
        ready, ended = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def run() -> None:
            app = web.Application()
            mine = monitoring_urls.routes(self.metrics, lambda: None)
            routes.add(app, [*logging_urls.routes(self.logs, lambda: None), *mine])
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            for second in range(60):  # of a minute: every tenth answer of the candidate is a 503
                self.answered("app-2", second, 503 if second % 10 == 0 else 200)
                self.answered("app-1", second, 200)
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            ready.set()
            await ended.wait()
            await runner.cleanup()

        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            thread = threading.Thread(target=runner.run, args=(run(),))
            thread.start()
            try:
                assert ready.wait(20)
                yield
            finally:
                loop.call_soon_threadsafe(ended.set)
                thread.join()


def counted(points: list[Point]) -> dict[str, tuple[int, int]]:
    """Return the answers of each revision as the watch counts them, and the errors among them."""
    seen = see(points, "app-2", "app-1", rules=Watch(), since=NOW, until=NOW + 10**6)
    both = {"app-1": seen.stable, "app-2": seen.candidate}
    return {name: (one.answers, one.errors) for name, one in both.items()}


def by_googles_client(url: str) -> dict[str, tuple[int, int]]:
    credentials = google.auth.credentials.AnonymousCredentials()
    with discovery.build(
        "monitoring", "v3", credentials=credentials, client_options={"api_endpoint": url}
    ) as service:
        found = service.projects().timeSeries().list(
            name=f"projects/{PROJECT}",
            filter='metric.type="run.googleapis.com/request_count" AND'
            ' resource.labels.service_name="app"',
            interval_startTime=moment(0),
            interval_endTime=moment(600),
        ).execute()  # fmt: skip
    counts: dict[str, tuple[int, int]] = {}
    for series in found.get("timeSeries", ()):
        number = sum(int(point["value"]["int64Value"]) for point in series["points"])
        bad = number if series["metric"]["labels"]["response_code_class"] == "5xx" else 0
        before = counts.get(name := series["resource"]["labels"]["revision_name"], (0, 0))
        counts[name] = before[0] + number, before[1] + bad
    return counts


def by_gcloud(url: str, folder: Path) -> dict[str, tuple[int, int]]:
    client: Any = type("Client", (), {"url": url})
    query = f'logName:"requests" AND resource.labels.service_name=app AND timestamp>="{moment(0)}"'
    command = ("logging", "read", query, "--format=json", f"--project={PROJECT}")
    counts: dict[str, tuple[int, int]] = {}
    for entry in json.loads(gcloud(client, folder, *command)):
        before = counts.get(name := entry["resource"]["labels"]["revision_name"], (0, 0))
        counts[name] = before[0] + 1, before[1] + (entry["httpRequest"]["status"] >= 500)
    return counts


def moment(second: float) -> str:
    return datetime.fromtimestamp(NOW + second, UTC).isoformat()


def test_gcloud_and_googles_client_see_what_a_watch_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, expected = Local(tmp_path / "logs"), {"app-1": (60, 0), "app-2": (60, 6)}
    with local.served():
        monkeypatch.setenv(ENDPOINT_VARIABLE, local.url)
        apis = Google(PIPELINE)
        log = RequestLog(apis, PIPELINE, REGION, start=NOW, delay=0, without="shipway-smoke")
        assert counted(log.read().points) == by_gcloud(local.url, tmp_path) == expected
        for after, visible in ((60 + DELAY - 1, False), (60 + DELAY, True)):
            local.now = NOW + after
            seen = counted(metrics.points(apis, PIPELINE, REGION, NOW, NOW + 600))
            assert seen == (expected if visible else {"app-1": (0, 0), "app-2": (0, 0)})
            assert by_googles_client(local.url) == (expected if visible else {})
