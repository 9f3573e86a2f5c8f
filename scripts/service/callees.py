"""The services that one calls: their URLs, as Cloud Run reports them in each region."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TypeVar

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import Google
from scripts.command import together
from scripts.config import relations
from scripts.config.pipelines import Pipeline
from scripts.config.relations import Called
from scripts.errors import UsageError
from scripts.release.manifest import Object, image_of

T = TypeVar("T")


class Callees:
    """The services that one calls, each read once for each region.

    Args:
        google: the APIs as the caller's environment reaches them.
        pipeline: the caller's files.
        say: takes lines of progress.
    """

    def __init__(self, google: Google, pipeline: Pipeline, say: Callable[[str], None]) -> None:
        self._google = google
        self._pipeline = pipeline
        self._say = say
        self._services: dict[tuple[str, str], Object | None] = {}

    @cached_property
    def called(self) -> list[Called]:
        """What the files say; raises UsageError if they are wrong."""
        return relations.calls_of(self._pipeline)

    def read_beside(self, read: Callable[[], T]) -> T:
        """Read something, and at the same time every callee; return what was read."""
        places = {
            (one.pipeline.service, one.region(region)): one
            for one in self.called
            for region in self._pipeline.environment.regions
        }
        if not places or self._services:
            return read()
        services = [
            partial(CloudRun(self._google, one.pipeline, region).service)
            for (_, region), one in places.items()
        ]
        found, *callees = self._google.at_once(read, *services)
        self._services = dict(zip(places, callees, strict=True))
        for region in self._pipeline.environment.regions:
            for one in self.called:
                if (elsewhere := one.region(region)) != region:
                    name = one.pipeline.service
                    self._say(
                        f"note: {name} is not in {region}: {self._pipeline.service} there calls"
                        f" {name} in {elsewhere}"
                    )
        result: T = found
        return result

    def urls(self, region: str) -> Mapping[str, str]:
        """Return the URLs that a region of the caller gets: variable → URL.

        Raises:
            UsageError: a callee has not been delivered.
        """
        self.read_beside(lambda: None)
        return {one.variable: self._url(one, one.region(region)) for one in self.called}

    def check(self) -> None:
        """Check that every callee has been delivered; raises UsageError."""
        for region in self._pipeline.environment.regions:
            self.urls(region)

    def _url(self, called: Called, region: str) -> str:
        # Imported here: most services call no other, and verbs start sooner without it.
        from scripts.setup.wanted import PLACEHOLDER

        service = self._services[called.pipeline.service, region] or {}
        url = (service.get("status") or {}).get("url") or ""
        waits = service and str(image_of(service["spec"]["template"])) == PLACEHOLDER
        if not url or waits:
            if self._google.dry_run and called.pipeline.service in together.services():
                return f"(the URL of {called.pipeline.service})"  # the same command delivers it
            caller, callee = self._pipeline, called.pipeline
            raise UsageError(
                f"{caller.service} calls {callee.service}, which has not been delivered to"
                f" {callee.env} ({callee.environment.project}, {region})",
                f"deliver it first: ./ship deliver {callee.where}",
            )
        return str(url)
