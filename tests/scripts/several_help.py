"""A repository with several small services."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from scripts.config import relations
from tests.conftest import LocalCloudRun
from tests.scripts.conftest import Project


class Several:
    """A repository with several services, each with a name that no other test uses.

    Args:
        folder: the repository.
        cloud_run: the local Cloud Run that it delivers to.
        words: what the services are called here; a random prefix makes them unique.
        environments: more environments: name -> the keys that differ from local.yaml.
        calls: who calls whom.
    """

    def __init__(
        self,
        folder: Path,
        cloud_run: LocalCloudRun,
        words: Sequence[str] = ("ai", "api", "web"),
        environments: dict[str, dict[str, str]] | None = None,
        calls: dict[str, list[str]] | None = None,
    ) -> None:
        prefix = f"s{uuid.uuid4().hex[:6]}"
        self.names = {word: f"{prefix}-{word}" for word in words}
        first, *others = self.names.values()
        self.project = project = Project(folder, cloud_run, first)
        self.folder = folder
        local = (project.pipeline / "local.yaml").read_text()
        for env, keys in (environments or {}).items():
            text = local
            for key, value in keys.items():
                lines = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
                text = "\n".join([*lines, f"{key}: {value}", ""])
            (project.pipeline / f"{env}.yaml").write_text(text)
        project.commit()
        for name in others:
            shutil.copytree(folder / first, folder / name)
            shutil.copytree(project.pipeline, folder / "pipelines" / name)
            manifest = folder / "pipelines" / name / "service.yaml"
            manifest.write_text(manifest.read_text().replace(first, name))
        self.relate(calls or {})
        self.commit()

    def relate(
        self, calls: dict[str, list[str]], shared: dict[str, list[str]] | None = None
    ) -> None:
        """Write pipelines/services.yaml."""
        named = {
            self.names[caller]: [self.names[callee] for callee in callees]
            for caller, callees in calls.items()
        }
        users = {
            folder: [self.names[word] for word in words] for folder, words in (shared or {}).items()
        }
        (self.folder / relations.FILE).write_text(json.dumps({"calls": named, "shared": users}))

    def set(self, word: str, **settings: Any) -> None:
        """Change the settings of one service's server; they are always new."""
        file = self.folder / self.names[word] / "settings.json"
        new = {**json.loads(file.read_text()), "note": uuid.uuid4().hex, **settings}
        file.write_text(json.dumps(new))

    def commit(self) -> str:
        """Commit everything; return the full SHA."""
        self.project.git("add", "--all")
        self.project.git("commit", "--quiet", "--allow-empty", "--message", "a change")
        return self.project.git("rev-parse", "HEAD")

    def list(self, *words: str) -> str:
        """Return services as a comma list."""
        return ",".join(self.names[word] for word in words)

    def words(self, names: Any) -> list[str]:
        """Return what services are called here, for their names."""
        by_name = {name: word for word, name in self.names.items()}
        return [by_name[name] for name in names]

    def service(self, word: str) -> Any:
        """Return a service as the API answers it."""
        path = f"{self.project.service_path.rpartition('/')[0]}/{self.names[word]}"
        return requests.get(path, timeout=10).json()

    def shares(self, word: str) -> dict[str, int]:
        """Return revision -> percent, as Cloud Run reports it in force."""
        traffic = self.service(word).get("status", {}).get("traffic", [])
        return {one["revisionName"]: one["percent"] for one in traffic if one.get("percent")}
