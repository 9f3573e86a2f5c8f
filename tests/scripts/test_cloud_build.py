"""`builder: cloud-build`: the archive, and a build whose answers are lost."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import requests

from scripts.cloud.google import _refused
from scripts.image.cloud_build import archive
from tests.conftest import LocalCloudRun
from tests.scripts.conftest import Project


def test_the_archive_of_the_same_files_has_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name, mode in (("one", 0o600), ("two", 0o664)):
        folder = tmp_path / name
        (folder / "web").mkdir(parents=True)
        (folder / "web" / "a.py").write_text("a")
        (folder / "web" / "a.py").chmod(mode)
        (folder / "run.sh").write_text("b")
        (folder / "run.sh").chmod(0o755)
        (folder / "link").symlink_to("run.sh")
        made.append(archive({"services/app": folder}))
    assert made[0] == made[1]
    with tarfile.open(fileobj=io.BytesIO(made[0])) as tar:
        modes = {one.name: one.mode for one in tar if one.isreg()}
    assert modes == {"services/app/run.sh": 0o755, "services/app/web/a.py": 0o644}


def test_lost_answers_start_one_build_of_one_source(tmp_path: Path) -> None:
    cloud_run = LocalCloudRun(tmp_path / "state")
    project = Project(tmp_path / "repository", cloud_run, "svc")
    project.commit()
    for path in ("*/builds", "/upload/*"):
        fault = {"name": "lost", "method": "POST", "path": path, "times": 1}
        cloud_run.local("POST", "faults", fault)
        project.done("build")
        cloud_run.local("DELETE", "faults/lost")
        project.commit()
    builds = [*(cloud_run.state / "cloud-builds").glob("*.json")]
    cloud_run.stop()
    assert len(builds) == 2


def test_an_error_of_cloud_storage_has_no_status() -> None:
    answer = requests.Response()
    answer.request = requests.Request("POST", "https://storage.googleapis.com/upload").prepare()
    answer.status_code = 403
    answer._content = b'{"error": {"code": 403, "message": "denied", "errors": []}}'
    assert _refused(answer, "Cloud Storage").message == "POST /upload: 403: denied"
