"""Check for what costs more than it seems: a minimum of instances for each revision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.config.yamlfile import YamlFile
from scripts.doctor.case import Case
from scripts.doctor.finding import Finding, warning
from scripts.release.manifest import MINIMUM, REVISION_MINIMUM, own_minimum

_TEMPLATE = ("spec", "template", "metadata", "annotations", REVISION_MINIMUM)


def findings(case: Case) -> Iterator[Finding]:
    """Warn of a minimum at the level of the revision, with the line to write instead.

    Source: https://docs.cloud.google.com/run/docs/configuring/min-instances: it is started for each
    revision with traffic or a tag, and Google recommends the level of the service.
    """
    pipeline = case.pipeline
    folder = Path("pipelines", pipeline.service)
    for file, value, at in (
        (f"{pipeline.env}.yaml", pipeline.overlay, "overlay"),
        ("service.yaml", pipeline.manifest, ""),
    ):
        template: Any = (value.get("spec") or {}).get("template") or {}
        if least := own_minimum(template):
            path: list[str | int] = [*([at] if at else []), *_TEMPLATE]
            relative = str(folder / file)
            where = f"{relative}:{YamlFile(case.root / relative, relative).line(path)}"
            metadata = ".".join([*([at] if at else []), "metadata", "annotations"])
            yield warning(
                "minimum",
                f"{where}: {REVISION_MINIMUM} keeps {least} of each revision with traffic or a tag"
                " running, and billed",
                f'{where}: delete it, and write into {metadata}: {MINIMUM}: "{least}"',
            )
