"""Each failure is one clear error with the right exit code, and nothing changes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.conftest import ROOT, LocalCloudRun
from tests.scripts.conftest import Project


def error(ended: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the error that a command ended with: one line and a hint, without a traceback."""
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("ship: ") == 1, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_an_unknown_verb(project: Project) -> None:
    assert "did you mean 'deliver'?" in error(project.ship("delivr"), 2)


def test_an_unknown_option_and_a_missing_value(project: Project) -> None:
    assert "did you mean" not in error(project.ship("deliver", "--fast"), 2)
    for typed, meant in (("--enviroment", "--env"), ("--form", "--format"), ("--sinse", "--since")):
        assert f"did you mean {meant}?" in error(project.ship("logs", typed, "3h"), 2)
    assert project.ship("promote", "--to").returncode == 2


def test_a_percentage_with_a_percent_sign(project: Project) -> None:
    ended = project.ship("promote", "--to= 50 %")
    assert "percentage" not in ended.stderr
    assert "For its first release: ./ship deliver" in ended.stderr


@pytest.mark.parametrize("percent", ["0", "101", "-5", "ten", "3.5"])
def test_a_bad_percentage(project: Project, percent: str) -> None:
    ended = project.ship("promote", f"--to={percent}")
    assert ended.returncode == 2
    assert f"'{percent}' is not a percentage (1 to 100)" in ended.stderr


@pytest.mark.parametrize(
    ("words", "kind", "code", "message"),
    [
        (["promote", "--to", "101"], "usage", 2, "argument --to: '101' is not a percentage"),
        (["status", "--env", "loca"], "usage", 2, "no environment 'loca'"),
        (["delivr"], "usage", 2, "no verb 'delivr'"),
        (["rollback"], "failed", 1, "there is no service"),
    ],
)
def test_a_program_reads_an_error_as_json(
    project: Project, words: list[str], kind: str, code: int, message: str
) -> None:
    """One document on standard output; the text on standard error is the same as always."""
    ended = project.ship(*words, "--format=json")
    document = json.loads(ended.stdout)
    more = ["written", "unknown"] if kind == "failed" else []
    assert list(document) == ["error", *more]
    assert all(document[name] == [] for name in more)
    found = document["error"]
    assert set(found) == {"kind", "message", "hint", "evidence", "exit_code"}
    assert (found["kind"], found["exit_code"], ended.returncode) == (kind, code, code)
    assert message in found["message"]
    assert f"ship: {found['message']}\n" in ended.stderr


def test_a_refusal_and_a_failure_as_json(served: Project) -> None:
    found = json.loads(served.ship("promote", "--format", "json").stdout)["error"]
    assert (found["kind"], found["exit_code"]) == ("nothing to do", 3)
    served.commit(health="broken")
    found = json.loads(served.ship("deliver", "--format", "json").stdout)["error"]
    assert (found["kind"], found["exit_code"]) == ("failed", 1)
    assert any("field status is 'broken'" in line for line in found["evidence"])


@pytest.mark.parametrize("words", [["deliver", "--dry-run"], ["build", "--dry-run"], ["plan"]])
def test_a_commit_is_no_option_of_git(project: Project, words: list[str]) -> None:
    """`git show --output=FILE` would write a file."""
    before = sorted(project.folder.iterdir())
    ended = project.ship(*words, "--commit=--output=stolen")
    assert ended.returncode == 2
    assert "--commit --output=stolen: no such commit here" in ended.stderr
    assert sorted(project.folder.iterdir()) == before


def test_a_result_stays_one_document_if_an_error_follows(project: Project, tmp_path: Path) -> None:
    ended = project.ship("status", "--format=json", GITHUB_OUTPUT=str(tmp_path / "no" / "such"))
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["service"] == project.name


def test_a_bad_duration(project: Project) -> None:
    ended = project.ship("deliver", "--bake", "soon")
    assert ended.returncode == 2
    assert "'soon' is not a duration, such as 90s" in ended.stderr


def test_an_unknown_environment(project: Project) -> None:
    assert "no environment 'loca'" in error(project.ship("status", "--env", "loca"), 2)


def test_a_broken_file_is_named_with_its_line(project: Project) -> None:
    path = project.pipeline / "local.yaml"
    path.write_text(path.read_text().replace("steps:", "stepz:"))
    shown = error(project.ship("status"), 2)
    assert f"pipelines/{project.name}/local.yaml:11: rollout.stepz: unknown key" in shown


def test_a_broken_file_in_the_commit_is_named_too(served: Project) -> None:
    before = served.service()
    path = served.pipeline / "service.yaml"
    path.write_text(path.read_text().replace("containerPort", "containerport"))
    served.commit()
    shown = error(served.ship("deliver"), 2)
    assert f"pipelines/{served.name}/service.yaml:12: " in shown
    assert served.service() == before


def test_an_unknown_commit(project: Project) -> None:
    shown = error(project.ship("deliver", "--commit", "nowhere"), 2)
    assert "--commit nowhere: no such commit here" in shown


def test_not_a_git_repository(project: Project) -> None:
    shutil.rmtree(project.folder / ".git")
    shown = error(project.ship("deliver", GIT_CEILING_DIRECTORIES=str(project.folder.parent)), 2)
    assert "not a git repository" in shown
    assert "git init" in shown


def test_a_repository_without_a_commit(project: Project) -> None:
    shutil.rmtree(project.folder / ".git")
    project.git("init", "--quiet")
    assert "the repository has no commit yet" in error(project.ship("deliver"), 2)


def test_a_commit_without_a_dockerfile(project: Project) -> None:
    (project.folder / project.name / "Dockerfile").unlink()
    project.commit()
    assert f"{project.name}/Dockerfile: no such file in commit" in error(project.ship("deliver"), 2)


def test_a_dockerfile_that_cannot_be_packed_names_its_line(project: Project) -> None:
    path = project.folder / project.name / "Dockerfile"
    path.write_text(path.read_text().replace("WORKDIR /srv", "RUN make all\nWORKDIR /srv"))
    project.commit()
    shown = error(project.ship("deliver"), 1)
    assert "Dockerfile:3: RUN make all" in shown
    assert "start Docker" in shown


def test_the_local_cloud_run_is_not_running(project: Project) -> None:
    port = free_port()
    for verb in ("status", "deliver", "rollback", "promote", "history"):
        ended = project.ship(verb, SHIPWAY_ENDPOINT=f"http://127.0.0.1:{port}")
        shown = error(ended, 2)
        assert f"does not answer at http://127.0.0.1:{port}" in shown
        assert f"./ship up --port {port}" in shown


def test_a_service_that_does_not_exist_yet(project: Project) -> None:
    for verb in ("rollback", "promote", "hold", "resume", "smoke", "history"):
        assert f"./ship deliver {project.name}" in error(project.ship(verb), 1)


def test_a_revision_that_does_not_exist(served: Project) -> None:
    before = served.service()
    shown = error(served.ship("rollback", "--to", "svc-nowhere"), 2)
    assert "--to svc-nowhere: no such ready revision" in shown
    assert "there is no revision" in error(served.ship("smoke", "--revision", "svc-nowhere"), 2)
    assert served.service() == before


def test_nothing_to_roll_back_to(served: Project) -> None:
    before = served.service()
    assert "nothing to roll back to" in error(served.ship("rollback"), 3)
    assert served.service() == before


def test_deploying_what_is_not_built(project: Project) -> None:
    shown = error(project.ship("deploy"), 2)
    assert "has no image of commit" in shown
    assert f"./ship build {project.name}" in shown


def test_an_image_for_another_platform_is_refused_before_a_deploy(project: Project) -> None:
    """I2: the preflight reads the pushed manifest back and compares."""
    project.done("build")
    path = project.pipeline / "local.yaml"
    path.write_text(path.read_text().replace("platform: host", "platform: linux/s390x"))
    project.git("add", "--all")
    project.git("commit", "--quiet", "--amend", "--no-edit")
    # The tag names the commit, so give the new commit the old commit's image.
    _retag(project, project.git("rev-parse", "HEAD@{1}"), project.git("rev-parse", "HEAD"))
    shown = error(project.ship("deploy"), 3)
    assert "local takes linux/s390x" in shown


def _retag(project: Project, old: str, new: str) -> None:
    import requests

    base = f"{project.cloud_run.url}/v2/shipway-local/services/{project.name}/manifests"
    manifest = requests.get(f"{base}/{old}", timeout=10)
    answer = requests.put(
        f"{base}/{new}",
        data=manifest.content,
        headers={"Content-Type": manifest.headers["Content-Type"]},
        timeout=10,
    )
    assert answer.status_code == 201, answer.text


def test_an_environment_that_comes_after_another_takes_only_an_image_that_served_there(
    project: Project,
) -> None:
    local = (project.pipeline / "local.yaml").read_text()
    (project.pipeline / "live.yaml").write_text(
        local.replace("shipway-local\n", "shipway-live\n") + "after: local\n"
    )
    project.commit()
    shown = error(project.ship("deliver", "--env", "live"), 3)
    assert "never builds one" in shown
    assert f"./ship deliver {project.name} --env local" in shown
    project.done("build")
    shown = project.ship("deliver", "--env", "live")
    assert shown.returncode == 3
    assert "has not served in local" in shown.stderr
    digest = project.done("deliver")["digest"]
    assert project.done("deliver", "--env", "live")["digest"] == digest


@pytest.mark.parametrize("verb", ["deliver", "rollback", "hold"])
def test_without_a_terminal_nobody_is_asked(served: Project, verb: str) -> None:
    path = served.pipeline / "local.yaml"
    path.write_text(path.read_text() + "confirm: true\n")
    served.commit()
    assert "Go ahead?" not in served.ship(verb).stderr


def test_in_ci_a_terminal_is_not_asked(served: Project) -> None:
    """Some runners give a job a terminal, where no one can answer."""
    import pty

    path = served.pipeline / "local.yaml"
    path.write_text(path.read_text() + "confirm: true\n")
    master, slave = pty.openpty()
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scripts"), "hold"], cwd=served.folder, stdin=slave,
        env={**os.environ, "CI": "true"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(master)
    os.close(slave)
    assert ended.returncode == 0, ended.stderr


def test_a_terminal_is_asked_once_and_no_means_no(served: Project) -> None:
    import pty

    path = served.pipeline / "local.yaml"
    path.write_text(path.read_text() + "confirm: true\n")
    before = served.service()
    for answer, code in ((b"n\n", 3), (b"\n", 3), (b"y\n", 0)):
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts"), "hold"],
            cwd=served.folder, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "CI": ""}, text=True,
        )  # fmt: skip
        os.write(master, answer)
        _, errors = process.communicate(timeout=60)
        os.close(master)
        os.close(slave)
        assert errors.count("Go ahead?") == 1
        assert process.returncode == code
        assert (served.service() == before) == (code == 3)


def test_a_port_in_use(tmp_path: Path, local_cloud_run: LocalCloudRun) -> None:
    port = local_cloud_run.url.rpartition(":")[2]
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scripts"), "up", "--port", port, "--state", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert port in ended.stderr
    assert "Traceback" not in ended.stderr


def test_up_enforces_iam_when_told_to(tmp_path: Path) -> None:
    words = ["up", "--port", "0", "--iam", "enforce", "--state", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "scripts"), *words], stdout=subprocess.PIPE, text=True
    ) as up:
        try:
            assert up.stdout is not None
            url = up.stdout.readline().strip()
            answer = requests.get(f"{url}/v1/projects/acme", timeout=30)
        finally:
            up.terminate()
    assert answer.status_code == 401


def test_a_traceback_is_shown_only_on_request(project: Project) -> None:
    ended = project.ship("promote", "--debug")
    assert "Traceback" in ended.stderr


@pytest.mark.parametrize(
    "endpoint", ["garbage", "http://", "ftp://x", "http://127.0.0.1:abc", "http://127.0.0.1:1/x"]
)
def test_an_invalid_endpoint(project: Project, endpoint: str) -> None:
    shown = error(project.ship("status", SHIPWAY_ENDPOINT=endpoint), 2)
    assert f"SHIPWAY_ENDPOINT={endpoint}: not an address" in shown


def test_an_endpoint_of_another_server(served: Project) -> None:
    """A 404 of another server does not count as a missing service."""
    url = served.service()["status"]["url"]
    (served.folder / served.name / "settings.json").write_text("{}")
    ended = served.ship("status", SHIPWAY_ENDPOINT=url)
    assert ended.returncode != 0
    assert "its first release" not in ended.stdout


@pytest.mark.parametrize("name", ["", "a b", "x; rm -rf /", "Ünder", "-x"])
def test_a_holds_name_has_no_shell_syntax(project: Project, name: str) -> None:
    assert project.ship("hold", f"--name={name}").returncode == 2


def test_a_reason_is_one_line_of_reasonable_length(served: Project) -> None:
    assert served.ship("hold", "--reason", "x" * 301).returncode == 2
    served.done("hold", "--reason", "red \x1b[31m alert\nsecond line 👩‍💻")
    why = served.done("status")["regions"][0]["hold"]["why"]
    assert why == r"red \x1b[31m alert second line 👩‍💻"


def test_a_tab_in_yaml_is_called_a_tab(project: Project) -> None:
    path = project.pipeline / "local.yaml"
    path.write_text(path.read_text().replace("  steps", "\tsteps"))
    assert "a tab; YAML allows only spaces" in error(project.ship("status"), 2)


def test_a_submodule_is_not_silently_left_out(project: Project) -> None:
    sha = project.git("rev-parse", "HEAD")
    project.git("update-index", "--add", "--cacheinfo", f"160000,{sha},{project.name}/module")
    project.git("commit", "--quiet", "--message", "a module")
    assert f"{project.name}/module" in error(project.ship("deliver"), 2)


_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
HOSTILE_YAML = {
    # name -> contents, the line of the error, a part of it
    "nested": (b"[" * 100_000, 1, "nested more than 100 deep"),
    "nested-mappings": (b"a: " + b"{a: " * 3000 + b"}" * 3000, 1, "nested more than 100 deep"),
    "nested-blocks": (b"a: 1\nb:\n  " + b"- " * 3000, 3, "nested more than 100 deep"),
    "complex-key": (b"a: 1\n? [b]\n: c\n", 2, "a list or mapping cannot be a key"),
    "date": (b"a: 1\nb: 2020-02-30\n", 2, "'2020-02-30' is not a valid timestamp (put it in"),
    "integer": (b"a: 1\nb: " + b"9" * 50_000, 2, "is not a valid int (put it in quotes)"),
    "base-60": (b"a: 1" + b":01" * 200_000, 1, "is not a valid int (put it in quotes)"),
    "no-digits": (b"a: 0x_\n", 1, "'0x_' is not a valid int (put it in quotes)"),
    "bomb": (_BOMB.encode(), 5, "too large: more than 1000000 bytes with its aliases"),
    "long-text": (b"a: &a " + b"x" * 99_999 + b"\nb: [" + b"*a, " * 99 + b"]", 2, "too large"),
    "alias-of-itself": (b"a: &a [*a]\n", 1, "the alias 'a' is inside its own anchor"),
    "anchor-twice": (b"a: &x 1\nb: &x 2\n", 2, "the anchor 'x' appears twice"),
    "tag": (b"a: !!bool x\n", 1, "the tag tag:yaml.org,2002:bool is not supported"),
    "nul": (b"a: 1\nb: \0\n", 2, "the character U+0000 is not allowed"),
    "not-utf-8": (b"a: 1\nb: \xff\n", 2, "not UTF-8 text: byte 0xff"),
    "tab": (b"a:\n\t- b\n", 2, "not valid YAML: a tab; YAML allows only spaces"),
    "100-MB": (b"a: 1\n", 1, "too large: more than 1000000 bytes"),
}
YAML_READERS = {
    "pipelines": ("pipelines/{name}/local.yaml", "status"),
    "workflow": (".github/workflows/bad.yml", "rehearse bad"),
    "build": ("cloudbuild/bad.yaml", "rehearse cloudbuild/bad.yaml"),
}


@pytest.mark.parametrize("reader", YAML_READERS)
@pytest.mark.parametrize("hostile", HOSTILE_YAML)
def test_hostile_yaml(project: Project, hostile: str, reader: str) -> None:
    """A hostile file costs one clear error, whichever part of Shipway reads it."""
    contents, line, message = HOSTILE_YAML[hostile]
    file, command = YAML_READERS[reader]
    path = project.folder / file.format(name=project.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
    if hostile == "100-MB":
        os.truncate(path, 100_000_000)
    place = f"ship: {path.relative_to(project.folder)}:{line}: "
    text = error(project.ship(*command.split()), 2)
    assert text.startswith(place)
    assert message in text


TAGGED = "us-docker.pkg.dev/acme/tools/proxy:1.2"
BY_DIGEST = f"us-docker.pkg.dev/acme/tools/proxy@sha256:{'0' * 64}"
SIDECAR = "        - name: proxy\n          image: '{}'\n"
OVERLAY = """
overlay:
  spec: {{template: {{spec: {{containers: [{{name: proxy, image: '{}'}}]}}}}}}
"""


@pytest.mark.parametrize("image", [TAGGED, "proxy", f"{TAGGED}@sha256:12", f"{BY_DIGEST}0"])
@pytest.mark.parametrize("file", ["service", "local"])
def test_a_sidecar_without_a_digest(project: Project, file: str, image: str) -> None:
    """I2 is for every container of the manifest and of an overlay."""
    path = project.pipeline / f"{file}.yaml"
    added = OVERLAY.format(image) if file == "local" else SIDECAR.format(image)
    path.write_text(path.read_text() + added)
    project.commit()
    ended = project.ship("deploy", "--dry-run")
    line = path.read_text()[: path.read_text().index("name: proxy")].count("\n") + 1
    line += file == "service"  # there the image has a line of its own
    text = error(ended, 2)
    assert text.startswith(f"ship: pipelines/{project.name}/{file}.yaml:{line}: ")
    assert f"the image '{image}' of container 'proxy' is not named by digest" in text


def test_a_sidecar_by_digest(project: Project) -> None:
    path = project.pipeline / "service.yaml"
    path.write_text(path.read_text() + SIDECAR.format(BY_DIGEST))
    project.commit()
    ended = project.ship("build", "--dry-run")
    assert ended.returncode == 0, ended.stderr


def outside(project: Project) -> Path:
    """Make a folder that could be built, beside the repository."""
    folder = project.folder.parent / f"{project.name}-outside"
    (folder / "deeper").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return folder


def name_source(project: Project, source: str) -> str:
    """Name the folder to build; return the place that an error about it names."""
    path = project.pipeline / "service.yaml"
    annotation = f"  annotations: {{shipway/source: '{source}'}}\n"
    path.write_text(path.read_text().replace("spec:\n", f"{annotation}spec:\n", 1))
    return f"pipelines/{project.name}/service.yaml:6: metadata.annotations.shipway/source"


@pytest.mark.parametrize("verb", ["status", "build --dry-run"])
@pytest.mark.parametrize("source", ["{outside}", "../{outside.name}", "x/../../{outside.name}"])
def test_a_source_outside_the_repository(project: Project, source: str, verb: str) -> None:
    named = source.format(outside=outside(project))
    place = name_source(project, named)
    project.commit()
    text = error(project.ship(*verb.split()), 2)
    assert text.startswith(f"ship: {place}: '{named}' is not a folder inside the repository")


@pytest.mark.parametrize(
    ("source", "link"),
    [("link", "link"), ("link/deeper", "link"), ("linked", "linked/Dockerfile")],
)
def test_a_source_that_is_a_link_to_outside(project: Project, source: str, link: str) -> None:
    """The file's line in the working copy; a commit with such a link is not even checked out."""
    folder = outside(project)
    (project.folder / "linked").mkdir()
    (project.folder / link).symlink_to(folder / link.partition("/")[2])
    place = name_source(project, source)
    project.commit()
    text = error(project.ship("status"), 2)
    assert text.startswith(f"ship: {place}: {source}")
    assert "is a link that leads outside the repository" in text
    text = error(project.ship("build", "--dry-run"), 2)
    assert text.startswith("ship: commit ")
    assert f"'{link}' is a link to an absolute path" in text
