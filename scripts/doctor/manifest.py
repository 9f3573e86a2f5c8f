"""Checks of the manifest's values, before Cloud Run refuses them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scripts.config import regions as cloud_run_regions
from scripts.config.yamlfile import YamlFile
from scripts.doctor.case import Case
from scripts.doctor.finding import Finding, ok, warning, wrong
from scripts.errors import did_you_mean
from scripts.service import accepted


def findings(case: Case) -> Iterator[Finding]:
    """Check the values of the manifest with the environment's overlay."""
    found = accepted.problems(case.pipeline)
    for one in found:
        yield wrong("manifest", one.found, one.fix)
    if not found:
        yield ok("manifest", f"Cloud Run takes the values of {case.pipeline.where}")
    yield from regions(case)


def regions(case: Case) -> Iterator[Finding]:
    """Warn of regions that are unknown here: a new one may still exist."""
    named = case.environment.regions
    relative = Path("pipelines", case.pipeline.service, f"{case.pipeline.env}.yaml")
    for index, region in enumerate(named):
        if region in cloud_run_regions.KNOWN:
            continue
        file = YamlFile(case.root / relative, str(relative))
        where = f"{file.name}:{file.line(['regions', index])}"
        meant = did_you_mean(region, cloud_run_regions.KNOWN, "known")
        yield warning(
            "manifest",
            f"{where}: {region} is not a region of Cloud Run that this version knows; {meant}",
            f"{where}: correct it, unless https://cloud.google.com/run/docs/locations lists it",
        )
