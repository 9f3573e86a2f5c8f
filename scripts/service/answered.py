"""Read what users were answered, from where the environment's file says."""

from __future__ import annotations

from scripts.cloud import metrics
from scripts.cloud.request_log import RequestLog
from scripts.config.formats import Watch
from scripts.config.pipelines import seconds
from scripts.release.watch import Read
from scripts.service.checks import USER_AGENT
from scripts.service.context import Context


class Answered:
    """What users were answered in each region.

    Args:
        context: the call.
        rules: what is watched, and where it is counted.
    """

    def __init__(self, context: Context, rules: Watch) -> None:
        self.rules = rules
        self._context = context
        self._delay = seconds(rules.delay)
        self.has_checks = rules.source == "metrics"
        """Whether answers to smoke checks are among them."""
        self._logs: dict[tuple[str, float], RequestLog] = {}

    def read(self, region: str, start: float) -> Read:
        """Read what was answered in a region since a moment, in seconds since the epoch."""
        google, pipeline = self._context.google, self._context.pipeline
        if self.has_checks:
            now = google.now()
            points = metrics.points(google, pipeline, region, start, max(start, now))
            return Read(points, now - self._delay)
        if (region, start) not in self._logs:
            self._logs[region, start] = RequestLog(
                google, pipeline, region, start=start, delay=self._delay, without=USER_AGENT
            )
        return self._logs[region, start].read()
