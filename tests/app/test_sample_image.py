"""The contents of the image: the files that run, and nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

APP = Path(__file__).resolve().parents[2] / "app"

RUNS = {"gunicorn.conf.py", "requirements.txt", "start.py", "web"}


def test_the_build_context_is_what_runs() -> None:
    rules = [
        line
        for line in (APP / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    assert {rule[1:].rstrip("/") for rule in rules if rule.startswith("!")} == RUNS
    assert all(rule.startswith(("!", "**/")) for rule in rules[1:])
    assert {path.suffix for path in (APP / "web").rglob("*") if path.is_file()} <= {
        ".py",
        ".pyc",
        ".html",
        ".css",
        ".js",
    }


def test_the_dockerfile_keeps_to_its_promises() -> None:
    lines = (APP / "Dockerfile").read_text().splitlines()
    instructions = [line for line in lines if line and not line.startswith(("#", " "))]
    [base] = [line.split()[1] for line in instructions if line.startswith("FROM")]
    assert re.fullmatch(r"python:3\.13-slim-trixie@sha256:[0-9a-f]{64}", base)
    assert "USER 65532:65532" in instructions
    assert any("--only-binary=:all: --require-hashes" in line for line in instructions)
    # One COPY for the code, and only what makes no layer after it.
    copies = [place for place, line in enumerate(instructions) if line.startswith("COPY . ")]
    assert len(copies) == 1
    assert {line.split()[0] for line in instructions[copies[0] + 1 :]} == {
        "USER",
        "ARG",
        "ENV",
        "CMD",
    }
    assert instructions[-1].startswith('CMD ["python", ')
    assert '"start.py", "--config", "gunicorn.conf.py", ' in instructions[-1]


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).parent / "hadolint"
    if not program.exists():
        pytest.skip("left out: hadolint is not installed")
    done = subprocess.run([program, APP / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_cloud_run_sends_as_many_requests_at_once_as_there_are_threads() -> None:
    """More would wait inside of an instance, where Cloud Run cannot see it and start another."""
    # `./ship init` renames the folder, and names app/ in the manifest.
    paths = (APP.parent / "pipelines").glob("*/service.yaml")
    texts = {path.parent.name: path.read_text() for path in paths}
    [text] = [t for name, t in texts.items() if name == "app" or "shipway/source: app" in t]
    manifest = yaml.safe_load(text)
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "--print-config"]
    done = subprocess.run(
        [*command, "web:create_app()"], cwd=APP, capture_output=True, text=True, check=True
    )
    settings = dict(re.findall(r"^(\w+)\s+= (.*)$", done.stdout, flags=re.MULTILINE))
    at_once = int(settings["workers"]) * int(settings["threads"])
    assert manifest["spec"]["template"]["spec"]["containerConcurrency"] == at_once


def test_it_imports_nothing_of_the_rest_of_the_repository() -> None:
    imported: set[str] = set()
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add((node.module or "").split(".")[0])
    ours = {"web", "flask", "werkzeug", "markupsafe", "gunicorn"}
    assert imported - set(sys.stdlib_module_names) <= ours


def test_starting_imports_no_more_than_it_needs() -> None:
    """A user waits for a cold start. These modules are slow to import, and not needed to listen."""
    heavy = ["asyncio", "google.auth", "requests", "urllib.request"]
    code = f"import sys, web; web.create_app(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=APP, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
