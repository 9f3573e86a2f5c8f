"""A folder that several services share: their Dockerfiles copy from it by its name."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from scripts.config import relations
from scripts.image.cloud_build import archive
from tests.scripts.conftest import Project


def share(project: Project, text: str = "from common") -> None:
    """Let the service answer with what a module in a shared folder says."""
    common = project.folder / "libs/Common"
    common.mkdir(parents=True, exist_ok=True)
    (common / "greeting.py").write_text(f"TEXT = {text!r}\n")
    (common / ".dockerignore").write_text("secret.txt\n")
    (common / "secret.txt").write_text("x")
    (project.folder / relations.FILE).write_text(f"shared: {{libs/Common: [{project.name}]}}\n")
    dockerfile = project.folder / project.name / "Dockerfile"
    file = dockerfile.read_text()
    if "--from" not in file:
        dockerfile.write_text(file.replace("ARG", "COPY --from=common . ./common\nARG", 1))
    project.serve_with(
        "from common.greeting import TEXT\nassert not os.path.exists('common/secret.txt')\n"
        "settings['health'] = TEXT"
    )
    (project.pipeline / "smoke.yaml").write_text("- path: /health\n")


def test_a_dockerfile_copies_from_a_shared_folder(project: Project) -> None:
    share(project)
    project.commit()
    doctor = project.ship("doctor")
    assert "dockerfile   wrong" not in doctor.stdout, doctor.stdout
    project.done("deliver")
    assert project.answers()["status"] == "from common"
    # Uncommitted, then committed: a shared folder is delivered as the commit has it.
    share(project, "newer")
    project.done("deliver")
    assert project.answers()["status"] == "from common"
    project.commit()
    project.done("deliver")
    assert project.answers()["status"] == "newer"


def test_a_folder_that_the_service_does_not_share_is_not_there(project: Project) -> None:
    share(project)
    (project.folder / relations.FILE).unlink()
    project.commit()
    ended = project.ship("build")
    assert ended.returncode == 1
    assert "Dockerfile:5: COPY --from=common" in ended.stderr
    assert "there is no stage common above" in ended.stderr


def test_folders_in_an_archive_may_overlap(tmp_path: Path) -> None:
    (tmp_path / "app/lib").mkdir(parents=True)
    (tmp_path / "app/lib/a.txt").write_text("a")
    made = archive({"app": tmp_path / "app", "app/lib": tmp_path / "app/lib"})
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        assert tar.getnames() == ["app/lib", "app/lib/a.txt"]
