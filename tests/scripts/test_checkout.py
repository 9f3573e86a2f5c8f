"""The files of a commit that a delivery writes out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from scripts.config import pipelines
from scripts.errors import UsageError
from scripts.machine import git

FILES = {
    "pipelines/app/service.yaml": "metadata:\n  name: app\n",
    "app/Dockerfile": "FROM scratch\n",
    "docs/long.md": "long\n",
    "top.txt": "top\n",
}


def written(repository: Path, root: Path, **changes: str) -> set[str]:
    """Commit FILES with `changes`, below `root`; return the top of what is written out."""
    for name, text in FILES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + changes.get(file.name.partition(".")[0], ""))
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    with git.checkout(root, git.commit(root), pipelines.folders) as files:
        return {path.name for path in files.iterdir()}


ALL = {"app", "docs", "pipelines", "top.txt"}


@pytest.mark.parametrize("below", ["", "a/b"])
def test_only_what_a_delivery_reads(tmp_path: Path, below: str) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/other.txt").write_text("another project's\n")
    assert written(tmp_path, tmp_path / below) == {"app", "pipelines"}


@pytest.mark.parametrize("line", ["  annotations: {shipway/source: docs}", "trust: docs/long.md"])
def test_all_files_where_a_file_may_name_any(tmp_path: Path, line: str) -> None:
    assert written(tmp_path, tmp_path, service=line) == ALL


def test_all_files_where_services_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/services.yaml").write_text("calls: {}\n")
    assert written(tmp_path, tmp_path) == {"app", "pipelines"}
    (tmp_path / "pipelines/services.yaml").write_text("shared: {docs: [app]}\n")
    assert written(tmp_path, tmp_path) == ALL


def test_all_files_where_a_link_may_lead_to_any(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/link").symlink_to("../top.txt")
    assert written(tmp_path, tmp_path) == ALL


def test_all_files_where_a_service_has_no_folder(tmp_path: Path) -> None:
    (tmp_path / "pipelines/gone").mkdir(parents=True)
    (tmp_path / "pipelines/gone/service.yaml").touch()
    assert written(tmp_path, tmp_path) == ALL


def test_a_reference_names_one_commit(tmp_path: Path) -> None:
    written(tmp_path, tmp_path)
    who = ("-c", "user.name=a committer <", "-c", "user.email=a@example.com")
    message = "\n  Two\nlines\n\ncommitter a <a> 1 +0000\n"
    command = ["git", *who, "commit", "--allow-empty", "--cleanup=verbatim", "-qm", message]
    dated = {"GIT_COMMITTER_DATE": "1700000000 +0200", "PATH": os.environ["PATH"]}
    subprocess.run(command, cwd=tmp_path, check=True, env=dated)
    found = git.commit(tmp_path, "HEAD~0")
    assert (found.time, found.subject) == (1700000000, "Two lines")
    for reference in ("HEAD~1..HEAD", "--all", "HEAD\nHEAD", "HEAD:app", ""):
        with pytest.raises(UsageError, match="no such commit here"):
            git.commit(tmp_path, reference)
