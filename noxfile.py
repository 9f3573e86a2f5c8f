"""Sessions for developers of Shipway. `nox -l` lists them. `./ship test` needs none of them."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
TORTURE_MINUTES = 28  # the last cells, which then still run, take up to 75 seconds more
FASTAPI = "tests/services/fastapi/requirements"  # a service that the tests deliver


def _install(session: nox.Session) -> None:
    if session.virtualenv.is_sandboxed:  # `./ship check` runs in an environment that has everything
        session.install("--quiet", "--require-hashes", "-r", "requirements/dev.txt")


def _files() -> list[str]:
    """Return the files to check: everything, or only Shipway's Python files in a fork."""
    sys.path.insert(0, str(Path.cwd()))
    from scripts.template import owners, record

    if record.read(Path.cwd()) is None:
        return ["."]
    rules = owners.current()
    listed = subprocess.check_output(["git", "ls-files", "-z", "--", "*.py"], text=True)
    return [n for n in listed.split("\0") if n and Path(n).exists() and rules.of(n) == "shipway"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the test suite on each Python that the machine has."""
    _install(session)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and common mistakes. `-- --fix` fixes what ruff can fix."""
    _install(session)
    listed = Path(session.create_tmp()) / "files"  # nox prints every argument, and these are many
    listed.write_text("\n".join(_files()))
    session.run("ruff", "check", *session.posargs, f"@{listed}")
    session.run("ruff", "format", *([] if session.posargs else ["--check"]), f"@{listed}")


@nox.session
def types(session: nox.Session) -> None:
    """Check static types, strictly."""
    _install(session)
    session.run("mypy")


@nox.session
def security(session: nox.Session) -> None:
    """Check workflows, shell scripts and Dockerfiles, and look for secrets in the history."""
    _install(session)
    session.run("python", "-m", "pytest", "tests/test_workflows.py", *session.posargs)
    session.run("python", "-m", "tests.secret_scan")


@nox.session
def audit(session: nox.Session) -> None:
    """Ask PyPI which pinned packages have known vulnerabilities."""
    _install(session)
    for name in ("requirements/dev.txt", "app/requirements.txt"):
        if Path(name).is_file():
            # The lock files name every package with its hash: nothing is installed to find out.
            session.run("pip-audit", "--strict", "--disable-pip", "--require-hashes", "-r", name)


@nox.session
def systems(session: nox.Session) -> None:
    """Deliver each system of tests/services with Docker, which takes minutes."""
    _install(session)
    tests = "tests/scripts/test_systems.py::test_a_system_is_delivered_with_docker"
    session.run("python", "-m", "pytest", tests, *session.posargs, env={"SHIPWAY_SYSTEMS": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed beside other tools. `-- first-hour`, `-- several`: that part alone."""
    _install(session)
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session
def torture(session: nox.Session) -> None:
    """Attack for half an hour with hostile input, faults, kills and races. `-- --help`: options."""
    _install(session)
    options = session.posargs  # of the faults, kills and races alone
    if not options:
        end = time.monotonic() + TORTURE_MINUTES * 60
        seed = f"--hypothesis-seed={secrets.randbelow(2**32)}"  # nox prints the command
        session.run("python", "-m", "pytest", "tests/fuzz", seed, env={"SHIPWAY_TORTURE": "1"})
        options = ["--minutes", f"{(end - time.monotonic()) / 60:.1f}"]
    session.run("python", "-m", "tests.torture", *options)


@nox.session
def simulate(session: nox.Session) -> None:
    """Simulate rollouts, good and bad. `-- --write` writes docs/simulation.md."""
    _install(session)
    session.run("python", "-m", "tests.simulate", *session.posargs)


@nox.session
def schema(session: nox.Session) -> None:
    """Write the schemas in pipelines/ and the tables of docs/security.md."""
    _install(session)
    code = "import json; from scripts.config.formats import schemas; print(json.dumps(schemas()))"
    made = session.run("python", "-c", code, silent=True)
    for file, schema in json.loads(str(made)).items():
        Path("pipelines", file).write_text(json.dumps(schema, indent=2) + "\n")
    session.run("python", "-m", "tests.security_page")


@nox.session
def lock(session: nox.Session) -> None:
    """Write the lock files from the .in files. `-- --upgrade` takes the newest versions."""
    session.install("--quiet", "uv")
    for name in (
        "requirements/pip",
        "requirements/deliver",
        "requirements/verify",
        "requirements/local",
        "requirements/dev",
        "app/requirements",
        FASTAPI,
    ):
        if not Path(f"{name}.in").is_file():
            continue  # a fork's app/ may have no such file
        session.run(
            "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
            "--generate-hashes", "--no-strip-extras", *session.posargs,
            "--custom-compile-command", "nox -s lock",
            f"{name}.in", "-o", f"{name}.txt",
        )  # fmt: skip


@nox.session
def pin(session: nox.Session) -> None:
    """Move pinned images to their current digests. `-- --check` reports those that are behind."""
    _install(session)
    session.run("python", "-m", "tests.pins", *session.posargs)


@nox.session
def clean(session: nox.Session) -> None:
    """Remove Shipway's environments, caches and local Cloud Run from this folder."""
    for name in (".shipway", ".nox", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"):
        session.log(f"removing {name}")
        shutil.rmtree(name, ignore_errors=True)
