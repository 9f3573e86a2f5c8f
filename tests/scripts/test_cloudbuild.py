"""A rehearsal of Cloud Build files: substitutions, order, variables, volumes, secrets, timeouts.

Each build here is small and runs in a scratch folder; test_cloudbuild_twin.py runs the real ones.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.command.progress import Progress
from scripts.errors import UsageError
from scripts.rehearse import cloudbuild
from scripts.rehearse.cloudbuild import build, runner
from scripts.rehearse.cloudbuild.place import Place
from tests.scripts.docker_help import needs_docker

SHA = "0123456789abcdef0123456789abcdef01234567"
BUILT_IN = {"PROJECT_ID": "acme-ops", "COMMIT_SHA": SHA}
IMAGE = "python:3.13-slim-trixie"
NONE = "registry.invalid/none"


class Lines(Progress):
    """Progress that keeps its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.printed: list[str] = []

    def line(self, text: str) -> None:
        self.printed.append(text)

    def of(self, step: str) -> list[str]:
        """Return the output of a step."""
        start = f"{step}: "
        mine = [line.removeprefix(start) for line in self.printed if line.startswith(start)]
        return [line for line in mine if not line.startswith(("starts: ", "left out: "))]


def load(folder: Path, document: dict[str, Any], **given: str) -> build.Loaded:
    (folder / "build.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return build.load(folder, "build.yaml", BUILT_IN, given)


def run(
    folder: Path,
    document: dict[str, Any],
    *,
    secrets: dict[str, str] | None = None,
    docker: bool = False,
    **given: str,
) -> tuple[dict[str, runner.End], Lines]:
    """Run a build, and return how each step ended and the printed lines."""
    loaded = load(folder, document, **given)
    workspace = folder / "workspace"
    workspace.mkdir()
    place = Place(
        folder / "build", workspace, loaded.build, variables={"FROM_THE_PLACE": "yes"},
        mapped=loaded.variables, secrets=secrets or {}, docker=docker,
    )  # fmt: skip
    lines = Lines()
    return {end.title: end for end in runner.run(loaded.build, place, lines)}, lines


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"name": NONE, "entrypoint": "sh", "args": ["-c", script], **more}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$COMMIT_SHA", SHA),
        ("${COMMIT_SHA}x", f"{SHA}x"),
        ("$_A/${_B}", "a/b"),
        ("$_AB", "default"),  # the longest name that matches
        ("$$_A $${_A} $$$_A", "$_A ${_A} $a"),
        ("$lower $1 $ ${x}", "$lower $1 $ ${x}"),
        ("$SHORT_SHA.", "."),  # a built-in that this build lacks
        ("${_A:0:1}", "${_A:0:1}"),
        ("$_C", "$_A"),  # a substituted text is not substituted again
    ],
)
def test_substitutions(tmp_path: Path, text: str, expected: str) -> None:
    document = {
        "steps": [{"name": NONE, "args": [text, "$_A$_B$_AB$_C"]}],
        "substitutions": {"_AB": "default", "_B": "overridden"},
    }
    made = load(tmp_path, document, _A="a", _B="b", _C="$_A")
    assert made.build.steps[0].args[0] == expected


def test_where_substitutions_are_made_and_where_not(tmp_path: Path) -> None:
    document = {
        "steps": [
            {"name": "x/$_A", "dir": "$_A", "entrypoint": "$_A", "env": ["A=$_A"], "id": "one"},
            {"name": NONE, "script": "echo $_A $NOT_KNOWN"},
        ],
        "serviceAccount": "projects/$PROJECT_ID/serviceAccounts/$_A",
        "images": ["$_A"],
    }
    made = load(tmp_path, document, _A="a").build
    first, second = made.steps
    assert (first.name, first.dir, first.entrypoint, first.env) == ("x/a", "a", "a", ["A=a"])
    assert second.script == "echo $_A $NOT_KNOWN"
    assert made.service_account == "projects/acme-ops/serviceAccounts/a"
    assert made.images == ["a"]


def test_dynamic_substitutions_look_into_each_other(tmp_path: Path) -> None:
    document = {
        "steps": [{"name": NONE, "args": ["$_URL"]}],
        "substitutions": {"_URL": "host/$PROJECT_ID"},
        "options": {"dynamicSubstitutions": True},
    }
    assert load(tmp_path, document).build.steps[0].args == ["host/acme-ops"]


STEP: dict[str, Any] = {"name": NONE, "args": ["true"]}
ONE = {"name": "v1", "path": "/v"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"steps": []}, "no build steps"),
    ({"steps": [{**STEP, "args": ["$_NONE"]}]}, "'_NONE' in the template is not matched"),
    ({"steps": [{**STEP, "args": ["$NONE"]}]}, "not a valid built-in substitution"),
    ({"steps": [STEP], "substitutions": {"_A": "x"}}, "'_A' in the substitution data is not"),
    ({"steps": [STEP], "substitutions": {"A": "x"}}, "a user's substitution is named _"),
    ({"steps": [STEP], "substitutions": {"PROJECT_ID": "x"}}, "substitutions.PROJECT_ID"),
    ({"steps": [STEP], "stepz": []}, "build.yaml:5: stepz: unknown key"),
    ({"steps": [{**STEP, "waitfor": []}]}, "did you mean 'waitFor'"),
    ({"steps": [{**STEP, "waitFor": ["later"]}, {**STEP, "id": "later"}]}, "has not been defined"),
    ({"steps": [{**STEP, "id": "a"}, {**STEP, "id": "a"}]}, "'a' is not unique"),
    ({"steps": [{**STEP, "id": "-"}]}, "'-' is not unique"),
    ({"steps": [{**STEP, "script": "true"}]}, "script excludes args"),
    ({"steps": [{**STEP, "env": ["A"]}]}, "must be of the form KEY=VALUE"),
    ({"steps": [{**STEP, "timeout": "5m"}]}, "is not a duration"),
    ({"steps": [{**STEP, "timeout": "20s"}], "timeout": "10s"}, "longer than the build's"),
    ({"steps": [STEP], "timeout": "86401s"}, "at most 24 hours"),
    ({"steps": [{**STEP, "volumes": [ONE]}]}, "used by one step only"),
    ({"steps": [{**STEP, "volumes": [{**ONE, "path": "/workspace"}]}] * 2}, "not an allowed path"),
    ({"steps": [{**STEP, "secretEnv": ["S"]}]}, "S is not in availableSecrets"),
    ({"steps": [STEP], "availableSecrets": {"secretManager": [
        {"versionName": "projects/p/secrets/s/versions/1", "env": "S"}]}}, "no step uses S"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_cloud_build_would_reject(tmp_path: Path, document: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, document)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_loose_is_loose(tmp_path: Path) -> None:
    document = {
        "steps": [{**STEP, "args": ["<$_NONE>"]}],
        "substitutions": {"_UNUSED": ""},
        "options": {"substitutionOption": "ALLOW_LOOSE"},
    }
    assert load(tmp_path, document).build.steps[0].args == ["<>"]


def test_steps_wait_for_what_they_name_and_run_side_by_side(tmp_path: Path) -> None:
    """Each of the first two waits until the other has begun: in sequence they would never end."""
    meet = "touch $$ME; until [ -e $$OTHER ]; do sleep 0.01; done"
    document = {
        "steps": [
            sh(meet, id="a", env=["ME=a", "OTHER=b"]),
            sh(meet, id="b", env=["ME=b", "OTHER=a"], waitFor=["-"]),
            sh("[ -e a ] && touch c", id="c", waitFor=["a"]),
            sh("[ -e c ] && [ -e b ]", id="all"),
        ],
        "timeout": "20s",
    }
    ends, lines = run(tmp_path, document)
    assert {end.status for end in ends.values()} == {"SUCCESS"}, lines.printed


def test_a_failure_ends_the_build_and_its_parallel_steps(tmp_path: Path) -> None:
    document = {
        "steps": [
            sh("sleep 600 & wait", id="slow"),
            sh("exit 3", id="bad", waitFor=["-"]),
            sh("true", id="later"),
        ]
    }
    started = time.monotonic()
    ends, _ = run(tmp_path, document)
    assert {title: end.status for title, end in ends.items()} == {
        "slow": "CANCELLED", "bad": "FAILURE", "later": "QUEUED",
    }  # fmt: skip
    assert ends["bad"].note == "exit code 3"
    assert cloudbuild._result("build.yaml", [ends["bad"]], {}).code == 1
    assert time.monotonic() - started < 300


def test_allowed_failures(tmp_path: Path) -> None:
    document = {
        "steps": [
            sh("exit 1", id="any", allowFailure=True),
            sh("exit 7", id="seven", allowExitCodes=[7]),
            sh("true", id="on"),
        ]
    }
    ends, _ = run(tmp_path, document)
    assert [end.status for end in ends.values()] == ["FAILURE", "FAILURE", "SUCCESS"]
    assert [end.allowed for end in ends.values()] == [True, True, False]
    assert cloudbuild._result("build.yaml", [*ends.values()], {}).code == 0


@pytest.mark.parametrize("where", ["step", "build"])
def test_time_is_up(tmp_path: Path, where: str) -> None:
    step = sh("sleep 60", id="slow", **({"timeout": "0.5s"} if where == "step" else {}))
    document = {"steps": [step, sh("true", id="later")]}
    if where == "build":
        document["timeout"] = "0.5s"  # type: ignore[assignment]
    ends, _ = run(tmp_path, document)
    assert (ends["slow"].status, ends["later"].status) == ("TIMEOUT", "QUEUED")


def test_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's variables override the build's; of the user's own only PATH gets in."""
    monkeypatch.setenv("OF_THE_USER", "no")
    document = {
        "steps": [
            {"name": NONE, "id": "env", "entrypoint": "env", "env": ["A=step", "C=$_X; $$(id)"]},
            {"name": NONE, "id": "map", "entrypoint": "env", "automapSubstitutions": True},
        ],
        "options": {"env": ["A=build", "B=build"]},
    }
    _, lines = run(tmp_path, document, _X="`id`")
    assert {"A=step", "B=build", "C=`id`; $(id)", "FROM_THE_PLACE=yes"} <= {*lines.of("env")}
    assert not [line for line in lines.of("env") if "OF_THE_USER" in line or line.startswith("_X")]
    assert {"_X=`id`", f"COMMIT_SHA={SHA}", "A=build"} <= {*lines.of("map")}


def test_scripts_folders_and_volumes(tmp_path: Path) -> None:
    shared = {"volumes": [{"name": "vol", "path": "/shared"}]}
    document = {
        "steps": [
            {"name": NONE, "id": "plain", "script": "mkdir sub; echo $0 >/dev/null; ps -p $$"},
            {"name": NONE, "id": "shebang", "script": "#!/usr/bin/env python3\nprint(1 + 1)"},
            sh("pwd > /shared/where; echo kept > $$HOME/file", id="write", dir="sub", **shared),
            sh("cat /shared/where; cat /builder/home/file", id="read", **shared),
            sh("ls /workspace; ls /shared 2>&1", id="without", allowFailure=True),
        ]
    }
    ends, lines = run(tmp_path, document)
    assert any("sh" in line for line in lines.of("plain"))
    assert lines.of("shebang") == ["2"]
    assert lines.of("read") == [str(tmp_path / "workspace/sub"), "kept"]
    assert lines.of("without")[0] == "sub"
    assert ends["without"].status == "FAILURE"


def test_secrets(tmp_path: Path) -> None:
    """Only steps that name a secret get it, and it is never printed."""
    secret = {"versionName": "projects/acme-ops/secrets/s/versions/1", "env": "TOKEN"}
    document = {
        "steps": [
            sh('[ "$$TOKEN" = hunter2 ]', id="with", secretEnv=["TOKEN"]),
            sh('[ -z "$$TOKEN" ]', id="without"),
        ],
        "availableSecrets": {"secretManager": [secret]},
    }
    ends, lines = run(tmp_path, document, secrets={"TOKEN": "hunter2"})
    assert [end.status for end in ends.values()] == ["SUCCESS", "SUCCESS"]
    assert "hunter2" not in "\n".join(lines.printed)


def test_only_the_entry_points_of_googles_builders_are_known(tmp_path: Path) -> None:
    document = {
        "steps": [
            {"name": "gcr.io/cloud-builders/git", "id": "git", "args": ["--version"]},
            {"name": NONE, "id": "none"},
        ]
    }
    ends, lines = run(tmp_path, document)
    assert lines.of("git")[0].startswith("git version")
    assert "its entry point is unknown without the image" in ends["none"].note
    assert ends["git"].where == "its command on this machine, not in its image"


@needs_docker
def test_a_step_runs_in_its_own_image(tmp_path: Path) -> None:
    """It gets workspace, home, volumes and secrets, and leaves nothing in the engine."""
    mine = {"name": IMAGE, "volumes": [{"name": "vol", "path": "/shared"}]}
    document = {
        "steps": [
            {**mine, "id": "script", "script": "#!/usr/bin/env python3\n"
             "import os, pathlib\n"
             "pathlib.Path('/shared/a').write_text(os.getcwd() + os.environ['HOME'])\n"
             "pathlib.Path('made').write_text(os.environ['TOKEN'])", "secretEnv": ["TOKEN"]},
            {**mine, "id": "args", "args": ["cat", "/shared/a", "/workspace/made"]},
            {**mine, "id": "slow", "entrypoint": "sleep", "args": ["60"], "timeout": "2s"},
        ],
        "availableSecrets": {"secretManager": [
            {"versionName": "projects/p/secrets/s/versions/1", "env": "TOKEN"}]},
    }  # fmt: skip
    ends, lines = run(tmp_path, document, docker=True, secrets={"TOKEN": "once"})
    assert lines.of("args") == ["/workspace/builder/homeonce"], lines.printed
    assert ends["args"].where == f"in {IMAGE}"
    assert ends["slow"].status == "TIMEOUT"
    command = ["docker", "ps", "--quiet", "--filter", "name=shipway-rehearsal-"]
    assert subprocess.check_output(command, text=True) == ""
