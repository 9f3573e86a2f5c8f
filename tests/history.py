"""A long history for a service: hundreds of revisions and services, written into the state folder.

Made through the API, a thousand revisions would take minutes: each is started once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_GENERATION = "serving.knative.dev/configurationGeneration"


def _read(state: Path, kind: str, name: str) -> tuple[Path, dict[str, Any]]:
    [file] = (state / "run" / kind).rglob(f"{name}.json")
    return file, json.loads(file.read_text())


def write_history(state: Path, service: str, count: int, year: int = 2020) -> list[str]:
    """Add `count` revisions, made in `year`, to a service of a stopped local Cloud Run.

    They are copies of the newest one, Ready and without traffic; returns their names, oldest first.
    """
    _, known = _read(state, "services", service)
    newest = known["document"]["status"]["latestReadyRevisionName"]
    revision_file, entry = _read(state, "revisions", newest)
    names = [f"{service}-past-{number:05d}" for number in range(count)]
    for number, name in enumerate(names):
        metadata = entry["document"]["metadata"]
        metadata["name"] = name
        metadata["uid"] = f"past-{number}"
        metadata["creationTimestamp"] = f"{year}-01-01T00:{number // 60:02d}:{number % 60:02d}Z"
        metadata["labels"][_GENERATION] = "0"
        entry["key"][2] = name
        (revision_file.parent / f"{name}.json").write_text(json.dumps(entry))
    return names


def write_services(state: Path, service: str, count: int) -> None:
    """Add `count` copies of a service, each with a copy of its newest revision."""
    file, known = _read(state, "services", service)
    newest = known["document"]["status"]["latestReadyRevisionName"]
    revision_file, revision = _read(state, "revisions", newest)
    sources = ((file, json.dumps(known)), (revision_file, json.dumps(revision)))
    for number in range(count):
        other = f"{service}-copy-{number:03d}"
        for source, text in sources:
            made = json.loads(
                text.replace(f'"{newest}"', f'"{other}-r"').replace(f'"{service}"', f'"{other}"')
            )
            made["document"]["metadata"]["uid"] = f"{other}-{source.parent.name}"
            (source.parent / f"{made['key'][2]}.json").write_text(json.dumps(made))
