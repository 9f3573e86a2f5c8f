"""What a watch costs: the time of a verdict, and its reads in a minute."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scripts import HOME
from scripts.cloud import metrics, request_log
from scripts.config.formats import Watch
from scripts.config.pipelines import ENDPOINT_VARIABLE
from scripts.release.evidence import Window
from scripts.release.watch import Answers, Folds, Seen, see, weigh
from tests.relay import Relay

_WINDOWS = 10_000
_WATCH = """rollout:
  steps: [50, 100]
  bake: 155s
  watch: {{source: {source}, delay: 150s, warm-up: 0s}}
"""
_SECONDS = 125.0  # that a delivery is watched here
_READS = ("timeSeries", "entries:list")


def verdicts(say: Callable[[str, str, str, bool], None]) -> None:
    """Measure a verdict on many windows: the first one, and one more."""
    chance = random.Random(1)
    windows = [
        (60.0 * n, Window(500, chance.randrange(5), 500, chance.randrange(5)))
        for n in range(_WINDOWS + 1)
    ]

    def seen(number: int) -> Seen:
        # As each look makes them: equal, and not the same.
        copies = [(at, Window(*one))
                  for at, one in windows[:number]]  # fmt: skip
        return Seen(candidate=Answers(answers=10**6), stable=Answers(), errors=copies,
                    slow=copies, compared=10**6)  # fmt: skip

    def took(number: int, folds: Folds) -> float:
        given = seen(number)
        began = time.process_time()
        weigh({"one": given}, Watch(), folds=folds)
        return (time.process_time() - began) * 1000

    kept = [Folds() for _ in range(5)]
    first = min(took(_WINDOWS, folds) for folds in kept)
    again = min(took(_WINDOWS + 1, folds) for folds in kept)
    say(f"verdict on {_WINDOWS:,} windows, with nothing known before",
        f"{first:.1f} ms of CPU (with one new window: {again:.1f} ms)", "at most 10 ms",
        first <= 10)  # fmt: skip


def points(say: Callable[[str, str, str, bool], None]) -> None:
    """Measure what 100,000 points take from their JSON to windows."""
    growing = {"numFiniteBuckets": 66, "growthFactor": 1.4, "scale": 1.0}
    spread = {"count": "30", "bucketCounts": ["0"] * 20 + ["10"] * 3,
              "bucketOptions": {"exponentialBuckets": growing}}  # fmt: skip

    def at(minute: int) -> dict[str, Any]:
        begin, end = (
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(60 * n)) for n in (minute, minute + 1)
        )
        interval = {"startTime": begin, "endTime": end}
        return {"interval": interval, "value": {"distributionValue": spread}}

    page = {
        "timeSeries": [
            {
                "resource": {"labels": {"revision_name": f"app-{number % 2}"}},
                "metric": {"labels": {"response_code_class": "2xx" if number < 5 else "5xx"}},
                "points": [at(minute) for minute in range(10_000)],
            }
            for number in range(10)
        ]
    }
    google: Any = SimpleNamespace(get=lambda *_, **__: page)
    pipeline: Any = SimpleNamespace(service="app", environment=SimpleNamespace(project="p"))
    began = time.perf_counter()
    found = metrics.points(google, pipeline, "us-central1", 0, 10**6)
    see(found, "app-0", "app-1", rules=Watch(), since=0, until=10**7)
    took = time.perf_counter() - began
    say(f"{len(found):,} points, read and sorted into windows",
        f"{took:.2f} s", "at most 5 s", took <= 5)  # fmt: skip


def entries(say: Callable[[str, str, str, bool], None]) -> None:
    """Measure what one look at as many entries of the request log takes as it may read."""
    left = request_log.PAGES
    number = 1000 * left

    def page(*_: Any) -> dict[str, Any]:
        nonlocal left
        left -= 1
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(number - 1000 * left))
        found = [
            {
                "insertId": f"{left}-{entry}", "timestamp": at, "receiveTimestamp": at,
                "resource": {"labels": {"revision_name": f"app-{entry % 2}"}},
                "httpRequest": {"status": 200, "latency": f"0.{entry:06}s"},
            }
            for entry in range(1000)
        ]  # fmt: skip
        return {"entries": found, "nextPageToken": "more" if left else ""}

    google: Any = SimpleNamespace(query=page, now=time.time)
    place = SimpleNamespace(project="p", regions=["us-central1"])
    pipeline: Any = SimpleNamespace(service="app", environment=place)
    log = request_log.RequestLog(
        google, pipeline, "us-central1", start=0, delay=30, without="shipway-smoke"
    )
    began = time.process_time()
    found = log.read()
    see(found.points, "app-0", "app-1", rules=Watch(), since=0, until=10**7)
    took = time.process_time() - began
    assert sum(point.answers for point in found.points) == number
    say(f"{number:,} entries of the request log, read and sorted into windows",
        f"{took:.2f} s", "at most 2 s", took <= 2)  # fmt: skip


def reads(
    clone: Path, server: str, commit: Callable[[], str], source: str,
    say: Callable[[str, str, str, bool], None],
) -> None:  # fmt: skip
    """Count the reads of a delivery that is watched, and those of a `status` meanwhile.

    Few are answered: the request log has one page each time.
    """
    file = clone / "pipelines/app/local.yaml"
    before = file.read_text()
    file.write_text(before.partition("rollout:")[0] + _WATCH.format(source=source))
    commit()
    try:
        with Relay(server) as relay, Relay(server) as other:
            env = {**os.environ, "SHIPWAY_VENV": sys.prefix}
            deliver = subprocess.Popen(
                [str(HOME / "ship"), "deliver"], cwd=clone,
                env={**env, ENDPOINT_VARIABLE: relay.url},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while not _of(relay) and deliver.poll() is None:
                time.sleep(0.1)
            began = time.monotonic()
            shown = subprocess.run(
                [str(HOME / "ship"), "status", "--format", "json"], cwd=clone,
                env={**env, ENDPOINT_VARIABLE: other.url},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            [region] = json.loads(shown.stdout)["regions"]
            assert region["watch"], shown.stdout
            extra = sum(_of(other).values())
            time.sleep(max(0, began + _SECONDS - time.monotonic()))
            deliver.send_signal(signal.SIGTERM)
            deliver.wait(timeout=30)
            # The reads at the beginning and at the end belong to two minutes of three.
            found = sum(_of(relay).values())
            rate = (found - 1) / (_SECONDS // 30 * 30) * 60
    finally:
        file.write_text(before)
        commit()
    say(f"reads of a watch in a minute and region, source: {source}",
        f"{rate:.1f} ({dict(_of(relay))} in {_SECONDS:.0f} s)", "at most 2", rate <= 2)  # fmt: skip
    say(
        f"reads of `ship status` for the evidence, source: {source}",
        f"{extra}",
        "at most 2",
        extra <= 2,
    )


def _of(relay: Relay) -> Counter[str]:
    return Counter(name for exchange in relay.exchanges for name in _READS if name in exchange.path)


def measure(
    clone: Path, server: str, commit: Callable[[], str],
    say: Callable[[str, str, str, bool], None],
) -> None:  # fmt: skip
    """Measure all of it.

    Args:
        clone: a repository whose app has been delivered to the local Cloud Run.
        server: its base URL.
        commit: commits a change there.
        say: prints one line of the report.
    """
    verdicts(say)
    points(say)
    entries(say)
    for source in ("metrics", "logs"):
        reads(clone, server, commit, source, say)
