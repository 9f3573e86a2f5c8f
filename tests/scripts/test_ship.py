"""The launcher: from a fresh clone to the first command, and what can go wrong before it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from scripts.command import verbs
from tests import warm
from tests.conftest import ROOT

# No pip settings of this machine: the tests need a machine without a network.
PLAIN = {
    "PATH": os.environ["PATH"],
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_RETRIES": "0",
}


def cloned(folder: Path) -> Path:
    """Return a fresh clone's launcher and its files, without a virtual environment."""
    folder.mkdir()
    for name in ("ship", "requirements", "scripts", "pipelines"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    return folder


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return cloned(tmp_path / "clone")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone for the tests that only ask for help."""
    return cloned(tmp_path_factory.mktemp("ship") / "clone")


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone whose first set-up failed: its environment has pip, and no packages."""
    made = cloned(tmp_path_factory.mktemp("ship") / "clone")
    ended = ship(made, "status", PYTHON=sys.executable)
    assert_not_set_up(ended)
    return made


def assert_not_set_up(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 2
    assert "ship: setting up its Python packages in" in ended.stderr
    assert "ship: could not install the packages of deliver.txt" in ended.stderr
    assert "check that pip can reach its index" in ended.stderr
    assert "Traceback" not in ended.stderr


def ship(
    clone: Path, *arguments: str, home: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(clone / "ship"), *arguments], cwd=clone,
        env={**PLAIN, "HOME": str(home or clone), **env},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def fake_python(folder: Path, script: str) -> str:
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def without_venv(folder: Path) -> str:
    """Return a Python as Debian's is without python3-venv: every use of venv fails."""
    crippled = folder / "without" / "venv.py"
    crippled.parent.mkdir()
    crippled.write_text("raise SystemExit('ensurepip is not available')")
    return fake_python(folder, f'PYTHONPATH={crippled.parent} exec {sys.executable} "$@"')


def without_packages(clone: Path) -> None:
    """Make the clone's environment, with a pip that finds no index, in a fraction of the time."""
    venv = clone / ".shipway" / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    [packages] = venv.glob("lib/*/site-packages")
    (packages / "pip.py").write_text("if __name__ == '__main__':\n    raise SystemExit('no index')")


def test_help_is_enough_to_begin(unchanged: Path) -> None:
    ended = ship(unchanged, "--help", SHIPWAY_VENV=sys.prefix)
    assert ended.returncode == 0, ended.stderr
    for word in ("demo", "up", "deliver", "promote", "rollback", "status", "Exit codes"):
        assert word in ended.stdout


@pytest.mark.parametrize("verb", [verb.name for verb in verbs.VERBS])
def test_each_verb_has_help(tmp_path: Path, verb: str) -> None:
    ended = warm.ship(verb, "--help", cwd=tmp_path, env=PLAIN)
    assert ended.returncode == 0, ended.stderr
    assert f"usage: ship {verb}" in ended.stdout
    assert "--debug" in ended.stdout


def test_test_hands_everything_on_to_pytest(clone: Path) -> None:
    ended = ship(clone, "test", "--version", "-k", "x", SHIPWAY_VENV=sys.prefix)
    assert ended.returncode == 0, ended.stderr
    assert "pytest" in ended.stdout + ended.stderr


def test_a_python_that_is_too_old(clone: Path, tmp_path: Path) -> None:
    old = fake_python(tmp_path, 'case "$1" in -V) echo Python 3.9.2;; *) exit 1;; esac')
    ended = ship(clone, "status", PYTHON=old)
    assert ended.returncode == 2
    assert ended.stderr.startswith("ship: needs Python 3.11 or newer; found Python 3.9.2\n")
    assert not (clone / ".shipway").exists()


def test_a_python_without_venv(clone: Path, tmp_path: Path) -> None:
    ended = ship(clone, "status", PYTHON=without_venv(tmp_path))
    assert ended.returncode == 2
    assert "cannot make a virtual environment" in ended.stderr
    assert "  | ensurepip is not available" in ended.stderr
    assert "apt-get install python3-venv" in ended.stderr


@pytest.mark.xdist_group("offline")
def test_no_network_for_the_first_set_up(offline: Path) -> None:
    """One clear error, and the next call does not take the remains for an environment."""
    assert_not_set_up(ship(offline, "status", PYTHON=sys.executable))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_set_up_says_so(clone: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [str(clone / "ship"), "status"], cwd=clone, env={**PLAIN, "HOME": str(clone)},
        stderr=subprocess.PIPE, text=True,
    ) as started:  # fmt: skip
        assert started.stderr is not None
        assert "setting up its Python packages" in started.stderr.readline()
        started.send_signal(number)
        said = started.stderr.read()
    assert (started.returncode, said) == (
        130, "\nship: interrupted; the next command sets its packages up\n"
    )  # fmt: skip


@pytest.mark.parametrize("lock_file", ["pip.txt", "deliver.txt"])
def test_no_code_of_a_package_runs_when_it_is_installed(
    clone: Path, tmp_path: Path, lock_file: str
) -> None:
    """A source distribution, with the right hash, whose build leaves a file."""
    ran = tmp_path / "ran"
    files = {
        "pyproject.toml": "[build-system]\nrequires=[]\nbuild-backend='b'\nbackend-path=['.']",
        "b.py": f"open({str(ran)!r}, 'w')",
        "PKG-INFO": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0",
    }
    index = tmp_path / "index"
    index.mkdir()
    with tarfile.open(index / "evil-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"evil-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    digest = hashlib.sha256((index / "evil-1.0.tar.gz").read_bytes()).hexdigest()
    (clone / "requirements/pip.txt").write_text("")
    (clone / "requirements" / lock_file).write_text(f"evil==1.0 --hash=sha256:{digest}\n")
    ended = ship(clone, "--version", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(index))
    assert ended.returncode == 2
    assert "ship: could not install the packages of deliver.txt" in ended.stderr
    assert not ran.exists()


def test_only_what_the_verb_needs_is_installed(clone: Path) -> None:
    without_packages(clone)
    needs = {
        "deliver": ([], ["status"], ["delivr"], ["--version"]),
        "local": (["demo"],),
        "dev": (["test"], ["help", "test"]),
    }
    for lock_file, calls in needs.items():
        for words in calls:
            ended = ship(clone, *words)
            wanted = f"ship: could not install the packages of {lock_file}.txt"
            assert wanted in ended.stderr, words


def test_an_environment_that_holds_more_than_a_verb_needs_is_enough(clone: Path) -> None:
    """With the packages of `dev` nothing is installed for a verb that needs fewer."""
    venv = clone / ".shipway" / "venv"
    venv.mkdir(parents=True)
    for name in ("bin", "lib"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", venv)
    shutil.copy(clone / "requirements" / "dev.txt", venv / "has-dev.txt")
    for words in (["--version"], ["deliver", "--help"], ["test", "--help"]):
        ended = ship(clone, *words)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""


def test_the_version_and_help_for_a_verb(clone: Path) -> None:
    ended = ship(clone, "--version", SHIPWAY_VENV=sys.prefix)
    assert ended.stdout == (ROOT / "scripts/template/VERSION").read_text()
    by_word = ship(clone, "help", "deliver", SHIPWAY_VENV=sys.prefix)
    by_option = ship(clone, "deliver", "--help", SHIPWAY_VENV=sys.prefix)
    assert by_word.returncode == 0
    assert by_word.stdout == by_option.stdout
    assert "usage: ship deliver" in by_word.stdout


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["--help"], {"msgspec", "yaml", "requests", "argparse", "subprocess", "inspect"}),
        (["--version"], {"msgspec", "yaml", "requests", "argparse", "subprocess", "inspect"}),
        (["status"], {"rich", "google.auth", "difflib"}),
    ],
)
def test_only_what_a_command_needs_is_imported(
    clone: Path, words: list[str], heavy: set[str]
) -> None:
    """Start-up is a feature: each of these would take longer than all the rest."""
    ended = ship(clone, *words, SHIPWAY_VENV=sys.prefix, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "scripts.command.verbs" in imported
    assert not imported & heavy


def test_the_reader_of_the_help_may_go_away() -> None:
    """As `./ship --help | head -1` does."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        ended = subprocess.run(
            [sys.executable, str(ROOT / "scripts"), "--help"], stdout=output,
            stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_name_of_a_folder_is_only_text(clone: Path) -> None:
    folder = clone.rename(clone.with_name("clone\x1b[2J\u202e"))
    without_packages(folder)
    ended = ship(folder, "status")
    assert "\x1b" not in ended.stderr
    assert r"clone\x1b[2J\u202e" in ended.stderr


def test_an_environment_whose_python_is_gone_is_made_again(clone: Path, tmp_path: Path) -> None:
    venv = clone / ".shipway" / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/nowhere/python3")
    shutil.copy(clone / "requirements" / "deliver.txt", venv / "has-deliver.txt")
    ended = ship(clone, "status", PYTHON=without_venv(tmp_path))
    assert "setting up its Python packages" in ended.stderr
    assert "cannot make a virtual environment" in ended.stderr, "it tries to"


def test_compiled_files_are_kept_whatever_the_environment_says(clone: Path) -> None:
    """Without them, each start of a command takes half as long again."""
    ended = ship(clone, "--version", SHIPWAY_VENV=sys.prefix, PYTHONDONTWRITEBYTECODE="1")
    assert ended.returncode == 0, ended.stderr
    assert list((clone / "scripts/command").glob("__pycache__/verbs.*.pyc"))


def test_from_another_folder_it_works_on_the_project_there(clone: Path, tmp_path: Path) -> None:
    """The nearest folder upwards that holds pipelines/ counts, else the launcher's own."""
    other = tmp_path / "other" / "deep"
    other.mkdir(parents=True)
    (tmp_path / "other" / "pipelines").mkdir()
    ended = subprocess.run(
        [str(clone / "ship"), "status"], cwd=other, env={**PLAIN, "SHIPWAY_VENV": sys.prefix},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "no pipelines/<service>/service.yaml under" in ended.stderr
    assert str(tmp_path / "other") in ended.stderr


def test_through_a_link_it_finds_itself(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ship").symlink_to("../clone/ship")
    ended = subprocess.run(
        [str(tmp_path / "bin" / "ship"), "--help"], cwd=tmp_path,
        env={**PLAIN, "SHIPWAY_VENV": sys.prefix},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "usage: ./ship VERB" in ended.stdout


def test_a_named_environment_that_does_not_exist(clone: Path) -> None:
    ended = ship(clone, "status", SHIPWAY_VENV="/nowhere")
    assert ended.returncode == 2
    assert "there is no Python in /nowhere" in ended.stderr
