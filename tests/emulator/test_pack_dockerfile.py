"""The pack builder's result for each instruction, and its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.builds.errors import Failed, UsageError
from emulator.builds.packing.dockerfile import DockerfileError
from emulator.builds.packing.pack import PackedImage
from tests.emulator.pack_help import config_of, contents, members, packed, write_app


def build(tmp_path: Path, dockerfile: str, files: dict[str, str] | None = None) -> PackedImage:
    app = write_app(tmp_path / "app", dockerfile)
    for path, text in (files or {}).items():
        (app / path).parent.mkdir(parents=True, exist_ok=True)
        (app / path).write_text(text)
    return packed(app, tmp_path / "cache")


def test_env_arg_and_labels(tmp_path: Path) -> None:
    image = build(
        tmp_path,
        "ARG BASE=a\nARG UNUSED\nFROM python:$BASE\nARG BASE\nARG WITH=x-${BASE}\nENV A=$WITH B=1\n"
        'ENV B=2 C="${NONE:-d e}"\nARG B=arg\nENV D=$B\nLABEL one=1 two="$A"\nCMD run it',
    )
    config = config_of(image)["config"]
    assert config["Env"] == ["A=x-a", "B=2", "C=d e", "D=2"]
    assert {"one": "1", "two": "x-a"}.items() <= config["Labels"].items()
    assert config["Cmd"] == ["/bin/sh", "-c", "run it"]
    assert image.layers == ()


def test_commands(tmp_path: Path) -> None:
    image = build(
        tmp_path,
        'FROM x\nCMD ["lost"]\nENTRYPOINT ["python", "-m"]\nCMD ["web"]\nSTOPSIGNAL SIGINT\n'
        "VOLUME /data\nEXPOSE 80 53/udp\nHEALTHCHECK --interval=5s CMD true\nUSER app\n"
        "MAINTAINER nobody",
    )
    config = config_of(image)["config"]
    assert config["Entrypoint"] == ["python", "-m"]
    assert config["Cmd"] == ["web"]
    assert config["StopSignal"] == "SIGINT"
    assert config["Volumes"] == {"/data": {}}
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert config["User"] == "app"


def test_an_entrypoint_drops_an_earlier_command(tmp_path: Path) -> None:
    image = build(tmp_path, 'FROM x\nCMD ["lost"]\nENTRYPOINT ["a"]')
    assert "Cmd" not in config_of(image)["config"]


def test_a_stage_from_a_stage(tmp_path: Path) -> None:
    image = build(
        tmp_path,
        "FROM x AS base\nENV A=1\nWORKDIR /one\nCOPY main.py .\nUSER 5\n"
        'FROM base\nENV B=$A\nWORKDIR two\nCOPY main.py ./other.py\nCMD ["a"]',
    )
    config = config_of(image)["config"]
    assert (config["WorkingDir"], config["User"], config["Env"]) == (
        "/one/two",
        "5",
        ["A=1", "B=1"],
    )
    assert set(members(image)) == {"one", "one/main.py", "one/two", "one/two/other.py"}
    assert len(image.layers) == 2


def test_a_stage_that_the_last_one_does_not_need_is_left_out(tmp_path: Path) -> None:
    image = build(tmp_path, 'FROM x AS tests\nCOPY main.py /\nRUN pytest\nFROM x\nCMD ["a"]')
    assert image.layers == ()
    assert config_of(image)["config"]["Cmd"] == ["a"]


def test_owners_and_modes(tmp_path: Path) -> None:
    image = build(
        tmp_path,
        "FROM x\nUSER 7:8\nCOPY main.py /a\nCOPY --chown=1:2 --chmod=0640 --link main.py /b\n"
        'COPY --chown=3 main.py /c\nCMD ["a"]',
    )
    found = {n: (m.uid, m.gid, m.mode) for n, m in members(image).items()}
    assert found == {"a": (0, 0, 0o644), "b": (1, 2, 0o640), "c": (3, 3, 0o644)}


def test_an_executable_stays_one(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", 'FROM x\nCOPY run main.py /\nCMD ["/run"]')
    (app / "run").write_text("x")
    (app / "run").chmod(0o700)
    found = members(packed(app, tmp_path / "cache"))
    assert {n: m.mode for n, m in found.items()} == {"run": 0o755, "main.py": 0o644}


def test_several_pips_in_one_run_and_a_bind_mount(tmp_path: Path) -> None:
    image = build(
        tmp_path,
        "FROM x AS d\nRUN --mount=type=bind,source=wheels,target=/w python -m pip install "
        "--no-index --find-links /w --no-cache-dir -t /deps 'demo>=1.0' && \\\n"
        "    pip3 install --no-index --find-links=/w --target /tools demo\n"
        'FROM x\nCOPY --from=d / /\nCMD ["a"]',
    )
    names = members(image)
    assert {"deps/demo/__init__.py", "tools/demo/__init__.py"} <= names.keys()
    assert {name.partition("/")[0] for name in names} == {"deps", "tools"}


def test_exec_form_and_user(tmp_path: Path) -> None:
    image = build(
        tmp_path,
        'FROM x\nWORKDIR /work\nCOPY wheels wheels\nUSER 9\nRUN ["pip", "install", "--no-index", '
        '"--find-links=wheels", "--target=deps", "demo"]\nCMD ["a"]',
    )
    installed = members(image)["work/deps/demo/__init__.py"]
    assert (installed.uid, installed.gid) == (9, 0)


NO_SYSTEM = "there is no operating system to run this in"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("RUN make install", f"RUN make install: {NO_SYSTEM}"),
        ("RUN curl -o f https://a.test/f", f"RUN curl -o f https://a.test/f: {NO_SYSTEM}"),
        ("RUN python manage.py collectstatic", NO_SYSTEM),
        ("RUN pip install --target=/d x | tee log", NO_SYSTEM),
        ("RUN pip install --target=/d x>1", NO_SYSTEM),
        ("RUN pip install --target=/d $(cat list)", NO_SYSTEM),
        ('RUN pip install --target=/d "$(cat list)"', NO_SYSTEM),
        ("RUN npx build", NO_SYSTEM),
        ("RUN npm publish", NO_SYSTEM),
        ("RUN pip install --root /d x", "--root has no meaning here"),
        ("RUN pip install -e .", "an editable package points at its source in the build"),
        ("RUN chmod wrong main.py", "wrong is not a mode"),
        ("ADD https://a.test/f /", "only COPY is known: nothing is downloaded or unpacked"),
        ("ADD main.tar.gz /", "only COPY is known: nothing is downloaded or unpacked"),
        ("ONBUILD RUN x", "this cannot be packed"),
        ("COPY missing.py /", "missing.py is not in the build context, or is left out by"),
        ("COPY *.md /", "*.md is not in the build context"),
        ("COPY ../main.txt /", "../main.txt is not in the build context"),
        ("COPY --from=none /a /b", "there is no stage none above"),
        ("COPY --from=python:3.13 /a /b", "and other images are not read"),
        ("COPY --chown=app main.py /", "app is neither created above nor known"),
        ("COPY --chmod=u+x main.py /", "--chmod takes an octal number"),
        ("COPY --parents main.py /", "--parents is not known"),
        ("COPY main.py", "this should read COPY source"),
        ("WORKDIR ${A:?must be set}", "A: must be set"),
        ("USER --x=1 y", "it has no option --x"),
    ],
)
def test_refused_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        build(tmp_path, f'FROM python:3.13\n# why\n{line}\nCMD ["a"]')
    assert caught.value.message.startswith(f"app/Dockerfile:3: {line[:20]}")
    assert message in caught.value.message


def test_files_are_removed(tmp_path: Path) -> None:
    """A layer hides the stage's own files; those of the base image are not in a packed image."""
    lines = 'FROM x\nCOPY main.py requirements.txt /srv/\nRUN {}\nCMD ["a"]'
    plain = build(tmp_path / "a", lines.format("rm -rf /usr/bin/pip* \\\n /usr/lib/*/pip"))
    assert set(members(plain)) == {"srv", "srv/main.py", "srv/requirements.txt"}
    own = build(tmp_path / "b", lines.format("rm -f /srv/*.py"))
    assert set(members(own)) - set(members(plain)) == {"srv/.wh.main.py"}
    all_of_it = build(tmp_path / "c", lines.format("rm -r /srv"))
    assert set(members(all_of_it)) - set(members(plain)) == {".wh.srv"}


def test_compiling_changes_nothing(tmp_path: Path) -> None:
    """A packed image has no library of a base image to compile. The sample's image does this."""
    line = "rm -rf /usr/bin/pip* && python -m compileall -qq /usr/lib/python3*"
    made = build(tmp_path, f'FROM x\nCOPY main.py /srv/\nRUN {line}\nCMD ["a"]')
    assert list(members(made)) == ["srv", "srv/main.py"]


def test_no_command_at_all(tmp_path: Path) -> None:
    with pytest.raises(DockerfileError, match="app/Dockerfile:1: FROM x: this stage has neither"):
        build(tmp_path, "FROM x\nCOPY main.py /")


def test_dependencies_for_another_machine(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app")
    with pytest.raises(DockerfileError, match="not for linux/s390x"):
        packed(app, tmp_path / "cache", platform="linux/s390x")


def test_pip_fails(tmp_path: Path) -> None:
    with pytest.raises(Failed) as caught:
        build(tmp_path, "FROM x\nRUN pip install --no-index --target=/d missing\nCMD a")
    assert caught.value.message.startswith("app/Dockerfile:2: RUN pip install --no-index")
    assert "pip failed with exit code 1" in caught.value.message
    assert "No matching distribution found for missing" in "\n".join(caught.value.evidence)
    assert not list((tmp_path / "cache/runs").iterdir())


def test_pip_gets_no_settings_that_lead_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_ROOT", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PYTHONPATH", "/nonsense")
    image = packed(write_app(tmp_path / "app"), tmp_path / "cache")
    assert b"VERSION" in contents(image, "deps/demo/__init__.py")
    assert not (tmp_path / "elsewhere").exists()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such folder to build from"):
        packed(tmp_path / "none", tmp_path / "cache")
