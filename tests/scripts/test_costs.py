"""A release leaves nothing behind that costs: instances are counted after several releases."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.config import pipelines
from scripts.doctor.case import Case
from scripts.doctor.costs import findings
from scripts.doctor.finding import Finding
from tests.conftest import ROOT, LocalCloudRun
from tests.emulator.cloud_run_help import eventually
from tests.scripts.conftest import Project


@pytest.fixture
def idle_cloud_run(tmp_path: Path) -> Iterator[LocalCloudRun]:
    """Yield a local Cloud Run that stops an instance after 0.2 s without a request."""
    cloud_run = LocalCloudRun(tmp_path / "state", "--idle", "0.2")
    yield cloud_run
    cloud_run.stop()


def running(service: str) -> dict[str, int]:
    """Return revision -> its instances: the Python processes that were told to be one."""
    found: Counter[str] = Counter()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue  # it has ended, or is someone else's
        variables = dict(one.partition("=")[::2] for one in environment)
        if variables.get("K_SERVICE") == service and Path(command[0].decode()).name[:6] == "python":
            found[variables["K_REVISION"]] += 1
    return dict(found)


def tags(project: Project) -> dict[str, str]:
    traffic = project.service()["spec"]["traffic"]
    return {one["tag"]: one["revisionName"] for one in traffic if one.get("tag")}


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are read from /proc")
def test_only_what_serves_keeps_instances(tmp_path: Path, idle_cloud_run: LocalCloudRun) -> None:
    """I8: the tag of someone else stays through all of it."""
    project = Project(tmp_path / "repository", idle_cloud_run, "costs")
    manifest = project.pipeline / "service.yaml"
    plain = manifest.read_text()
    own = "    metadata: {annotations: {autoscaling.knative.dev/minScale: '1'}}\n"
    manifest.write_text(plain.replace("  template:\n", "  template:\n" + own))
    old = []
    for _ in range(3):
        old.append(project.revision(project.commit()))
        project.done("deliver")
        eventually(lambda: running("costs") == {old[-1]: 1})
    [(own_tag, _)] = tags(project).items()
    assert own_tag == f"sha-{old[-1][-7:]}", "those before it would keep an instance each"

    shared = "  annotations: {run.googleapis.com/minScale: '1'}\n"
    manifest.write_text(plain.replace("  name: costs\n", "  name: costs\n" + shared))
    new = []
    for _ in range(2):
        new.append(project.revision(project.commit()))
        project.done("deliver")
        eventually(lambda: running("costs") == {new[-1]: 1})
    assert set(tags(project).values()) == set(new), "a tag alone starts nothing"

    service = project.service()
    service["spec"]["traffic"].append({"revisionName": old[0], "tag": "beta"})
    project.put(service)
    project.done("rollback", "--no-hold")
    assert tags(project) == {f"sha-{new[0][-7:]}": new[0], "beta": old[0]}
    eventually(lambda: running("costs") == {new[0]: 1, old[0]: 1})

    # It has no tag, and so no URL; it is checked before it gets traffic (I4).
    done = project.ship("rollback", "--to", new[1], "--no-hold")
    assert "1 of 1 checks passed" in done.stderr
    assert project.shares() == {new[1]: 100}
    assert set(tags(project)) == {f"check-{new[1][-7:]}", "beta"}


def test_the_doctor_names_the_line_to_write_instead(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests/pipelines", tmp_path / "pipelines")
    production = tmp_path / "pipelines/app/production.yaml"

    def found() -> list[Finding]:
        return [*findings(Case(tmp_path, pipelines.load(tmp_path, "app", "production")))]

    assert found() == []
    own = '  metadata: {annotations: {autoscaling.knative.dev/minScale: "2"}}'
    text = production.read_text()
    production.write_text(text.replace("    template:\n", f"    template:\n    {own}\n"))
    [one] = found()
    where = "pipelines/app/production.yaml:16"
    assert (one.state, one.found.partition(": ")[0]) == ("warning", where)
    assert one.fix == (
        f"{where}: delete it, and write into overlay.metadata.annotations:"
        ' run.googleapis.com/minScale: "2"'
    )
    production.write_text(text)
    manifest = tmp_path / "pipelines/app/service.yaml"
    manifest.write_text(manifest.read_text().replace("maxScale", "minScale"))
    [one] = found()
    assert one.found.startswith("pipelines/app/service.yaml:12: ")
    assert 'into metadata.annotations: run.googleapis.com/minScale: "10"' in one.fix
