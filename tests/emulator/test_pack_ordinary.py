"""Dockerfiles as people write them: what is packed, what is left out, what is refused."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from emulator.builds.packing.dockerfile import DockerfileError
from emulator.builds.packing.pack import examine
from tests.conftest import ROOT
from tests.emulator.pack_help import PYTHON, config_of, contents, members, packed, write_app
from tests.emulator.pack_help import write_wheel as wheel

SERVICES = sorted(path.parent for path in (ROOT / "tests/services").glob("*/Dockerfile"))
SITE = "usr/local/lib/python3.9/site-packages"
# An old base image; the code before the packages; the commands that systems need.
ORDINARY = """\
FROM python:3.9-slim
WORKDIR /app
RUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*
RUN groupadd -r app && useradd --no-log-init -r -g app app && mkdir -p /data && chown app /data
COPY --chown=app:app . .
RUN python -m pip install --upgrade pip && pip install --no-cache-dir --no-index \\
    -f wheels -r requirements.txt
HEALTHCHECK CMD curl -f http://localhost:8080/
USER app
CMD exec demo-run --bind :$PORT
"""


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_the_services_can_be_packed_as_they_are(service: Path) -> None:
    files = [str(path.relative_to(service)) for path in service.rglob("*") if path.is_file()]
    assert examine((service / "Dockerfile").read_text(), files).problems == []


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_an_ordinary_dockerfile(tmp_path: Path, cache: Path) -> None:
    said: list[str] = []
    app = write_app(tmp_path / "app", ORDINARY)
    wheel(
        app / "wheels", "setuptools", "0.1"
    )  # this machine's Python often has one, which does not count
    (app / "requirements.txt").write_text("demo==1.0\nsetuptools\n")
    image = packed(app, cache, progress=said.append)
    settings = config_of(image)["config"]
    assert settings["Cmd"] == ["/bin/sh", "-c", "exec demo-run --bind :$PORT"]
    assert settings["Labels"]["dev.shipway.python"] == "3.9"
    assert f"PYTHONPATH=/{SITE}" in settings["Env"]
    (path,) = [value for value in settings["Env"] if value.startswith("PATH=")]
    assert "/usr/local/bin" in path.partition("=")[2].split(":")
    names = members(image)
    assert {"data", "app/main.py", f"{SITE}/demo/__init__.py"} <= names.keys()
    assert f"{SITE}/setuptools/__init__.py" in names
    assert not [
        name for name in names if name.startswith((f"{SITE}/pip", "var", "usr/local/lib64"))
    ]
    assert not [name for name in names if "pyvenv" in name or "bin/python" in name]
    script = contents(image, "usr/local/bin/demo-run")
    assert script.startswith(b"#!/usr/bin/env python3\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(script).digest()).decode().rstrip("=")
    record = contents(image, f"{SITE}/demo-1.0.dist-info/RECORD").decode()
    assert f"../../../bin/demo-run,sha256={digest},{len(script)}\n" in record
    notes = [line for line in said if not line.startswith("RUN ")]
    assert len(notes) == 2
    assert notes[0].startswith("app/Dockerfile:1: FROM python:3.9-slim: a process here runs this")
    assert notes[1] == (
        "app/Dockerfile:3: apt-get install -y curl: left out: this machine's own is used"
    )


@pytest.mark.parametrize(("version", "count"), [("3.11", 1), ("3.12", 0)])
def test_the_base_images_setuptools_are_there_before_3_12(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, version: str, count: int
) -> None:
    app = write_app(
        tmp_path / "app",
        f'FROM python:{version}\nWORKDIR /app\nRUN pip install demo\nCMD ["demo-run"]',
    )
    wheel(app / "wheels", "setuptools", "79.0.1")  # the index that pip is told of
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(app / "wheels"))
    names = members(packed(app, cache))
    site = f"usr/local/lib/python{version}/site-packages"
    assert f"{site}/demo/__init__.py" in names
    assert [name for name in names if name.endswith("METADATA") and "setuptools" in name] == [
        f"{site}/setuptools-79.0.1.dist-info/METADATA"
    ] * count


def test_the_same_bytes_from_another_cache(tmp_path: Path, cache: Path) -> None:
    app = write_app(tmp_path / "app", ORDINARY)
    assert packed(app, cache).manifest == packed(app, tmp_path / "cache").manifest


def test_a_newer_package_replaces_the_one_of_an_earlier_layer(tmp_path: Path, cache: Path) -> None:
    lines = f"FROM python:{PYTHON}\nWORKDIR /app\nCOPY wheels wheels\n"
    install = "RUN pip install --no-index -f wheels"
    app = write_app(
        tmp_path / "app", f'{lines}{install} demo==1.0\n{install} -U "demo>1"\nCMD ["demo-run"]'
    )
    wheel(app / "wheels", version="2.0")
    image = packed(app, cache)
    site = f"usr/local/lib/python{PYTHON}/site-packages"
    assert b"2.0" in contents(image, f"{site}/demo/__init__.py")
    assert f"{site}/.wh.demo-1.0.dist-info" in members(image)


def test_environments_move_between_stages(tmp_path: Path, cache: Path) -> None:
    install = "pip install --no-index -f wheels demo"
    image = packed(
        write_app(
            tmp_path / "app",
            f"FROM python:{PYTHON} AS build\nWORKDIR /app\nCOPY wheels wheels\n"
            f"RUN python -m venv /opt/venv && /opt/venv/bin/{install}\n"
            f"RUN {install} --user\n"
            f"FROM python:{PYTHON}\nCOPY --from=build /opt/venv /opt/venv\n"
            "COPY --from=build /root/.local /root/.local\n"
            'ENV PATH=/opt/venv/bin:$PATH\nCMD ["demo-run"]',
        ),
        cache,
    )
    variables = dict(value.split("=", 1) for value in config_of(image)["config"]["Env"])
    assert variables["PATH"].startswith("/opt/venv/bin:/usr/local/bin:")
    places = ("/opt/venv", "/root/.local")
    assert variables["PYTHONPATH"].split(":") == [
        f"{place}/lib/python{PYTHON}/site-packages" for place in places
    ]
    names = members(image)
    for place in places:
        assert f"{place[1:]}/bin/demo-run" in names


def test_code_that_changes_keeps_packages_that_were_installed_after_it(
    tmp_path: Path, cache: Path
) -> None:
    """As in Google's old quickstart: COPY . . comes before pip. A requirement runs pip again."""
    text = "FROM x\nWORKDIR /app\nCOPY . .\nRUN pip install -r requirements.txt\nCMD python main.py"
    app = write_app(tmp_path / "app", text)
    (app / "requirements.txt").write_text("# none yet\n")
    packed(app, cache)
    said: list[str] = []
    (app / "main.py").write_text("print('two')\n")
    packed(app, cache, progress=said.append)
    assert said == []


def test_files_that_commands_make_and_change(tmp_path: Path, cache: Path) -> None:
    image = packed(
        write_app(
            tmp_path / "app",
            "FROM x\nWORKDIR /srv\nADD main.py start.py\n"
            "RUN set -eux; chmod +x start.py; \\\n"
            "  cd /srv && mkdir -m 700 -p logs/old 2>/dev/null || true; \\\n"
            "  cp start.py copy.py && mv copy.py moved.py && ln -s moved.py link.py; touch empty\n"
            "RUN <<EOF\n# a comment\nexport DIR=/made\nmkdir $DIR\nEOF\nCMD ./start.py",
        ),
        cache,
    )
    found = {name: member.mode & 0o777 for name, member in members(image).items()}
    assert found == {
        "srv": 0o755, "srv/start.py": 0o755, "srv/moved.py": 0o755, "srv/link.py": 0o777,
        "srv/empty": 0o644, "srv/logs": 0o755, "srv/logs/old": 0o755, "made": 0o755,
    }  # fmt: skip


BAD = """\
FROM python:3.12
COPY --from=alpine /bin/sh /bin/
ADD https://example.com/model.bin /model/
RUN pip install flask && make install
COPY . .
ONBUILD RUN true
CMD ["python", "main.py"]
"""


def test_all_that_cannot_be_packed_is_said_at_once(tmp_path: Path, cache: Path) -> None:
    app = write_app(tmp_path / "app", BAD)
    (app / ".env").write_text("KEY=1\n")
    with pytest.raises(DockerfileError) as caught:
        packed(app, cache)
    assert caught.value.message == "app/Dockerfile: 5 instructions cannot be packed"
    lines = caught.value.evidence
    assert [line.split(":")[1] for line in lines] == ["2", "3", "4", "5", "6"]
    assert lines[2] == (
        "app/Dockerfile:4: RUN make install: there is no operating system to run this in; write "
        "instead: COPY of its result, which you make before the commit"
    )
    assert "it copies .env: who can read an image reads the secrets in it" in lines[3]
    refused = [problem.line for problem in caught.value.problems if problem.with_docker_too]
    assert refused == [5]


def test_examining_builds_nothing() -> None:
    files = ["main.py", ".env.example", "web/package.json"]
    text = (
        "FROM node:18 AS web\nWORKDIR /web\nCOPY web/ .\nRUN npm ci && npm run build\n"
        "FROM python:3\nCOPY --from=web /web/dist /static\n"
        "COPY --from=ghcr.io/astral-sh/uv:latest /uv /bin/\nCOPY . .\nRUN uv sync --frozen\n"
        "RUN pip wheel -w /wheels . && pip install /wheels/*\nCMD python main.py"
    )
    found = examine(text, files)
    assert found.problems == []
    assert [(note.line, note.kind) for note in found.notes] == [(7, "left-out")]
    (problem,) = examine("FROM x\nCOPY app.py .\nCMD a", files, "api/Dockerfile").problems
    assert (problem.file, problem.line) == ("api/Dockerfile", 2)
    (problem,) = examine("FROM x\nRUNS x", files).problems
    assert problem.reason == "RUNS is not a Dockerfile instruction"


def test_a_variable_that_is_not_set_is_no_word(tmp_path: Path, cache: Path) -> None:
    text = (
        "FROM python:3\nWORKDIR /app\nCOPY main.py .\nRUN mkdir $UNSET a && rm -rf $UNSET\nCMD a\n"
    )
    assert {"app/main.py", "app/a"} <= members(
        packed(write_app(tmp_path / "app", text), cache)
    ).keys()


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ('["uv", "run", "--frozen", "uvicorn", "main:app"]', ["uvicorn", "main:app"]),
        ("uv run --extra web --no-sync -- a --frozen $PORT", ["/bin/sh", "-c", "a --frozen $PORT"]),
        ("exec uv run -m web  'a b'", ["/bin/sh", "-c", "exec python -m web  'a b'"]),
        ('["uv", "run", "main.py"]', ["python", "main.py"]),
    ],
)
def test_uv_run_is_what_it_runs(
    tmp_path: Path, cache: Path, written: str, command: list[str]
) -> None:
    """The packages that `uv sync` installed are found."""
    text = f"FROM python:3\nWORKDIR /app\nCOPY . .\nCMD {written}\n"
    settings = config_of(packed(write_app(tmp_path / "app", text), cache))["config"]
    assert settings["Cmd"] == command
    assert any(value.startswith("PATH=/app/.venv/bin:/usr/local/bin:") for value in settings["Env"])


@pytest.mark.parametrize(
    ("written", "called"),
    [
        ("pip install --system -r pyproject.toml", "pip install {python} -r pyproject.toml"),
        ("pip install -r /x/setup.py", "pip install {python} -r {root}/x/setup.py"),
        ("pip sync --system locked.txt", "pip sync {python} locked.txt"),
        ("export --frozen -o locked.txt", "export --frozen -o locked.txt"),
    ],
)  # fmt: skip
def test_uv_itself_runs_where_pip_cannot(
    tmp_path: Path, cache: Path, written: str, called: str
) -> None:
    """A stand-in for uv, in the image, writes down its command line."""
    text = f"FROM python:3\nWORKDIR /app\nCOPY uv /usr/local/bin/\nRUN uv {written}\nCMD a\n"
    app = write_app(tmp_path / "app", text)
    (app / "uv").write_text('#!/bin/sh\necho "$PWD $*" > called\n')
    (app / "uv").chmod(0o755)
    folder, _, words = contents(packed(app, cache), "app/called").decode().strip().partition(" ")
    root = folder.removesuffix("/app")
    python = f"--python {root}/usr/local/bin/python3"
    assert words == called.format(python=python, root=root)


def test_the_errors_about_uv_and_poetry_name_the_line_to_write() -> None:
    text = (
        "FROM python:3\nWORKDIR /srv\nRUN poetry config virtualenvs.create false"
        " && poetry install --only main --no-root\nRUN poetry export\n"
        "RUN poetry config virtualenvs.in-project true\nCMD uv run --with x main.py\n"
    )
    export, within, command = examine(text, []).problems
    assert (export.line, export.instead) == (4, "poetry install --only main --no-root")
    assert within.instead == "ENV POETRY_VIRTUALENVS_IN_PROJECT=1"
    assert command.reason == "`uv run` is not known with --with"
    assert command.instead == 'CMD without `uv run`, after ENV PATH="/srv/.venv/bin:$PATH"'
