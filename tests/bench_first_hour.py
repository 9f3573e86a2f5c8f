"""Measure from `git clone` to the first local 200 of each service, for tests/bench.py.

Each system of tests/services takes the place of the sample in a fork, with the commands of
docs/fork.md and an empty HOME; in the last row, two services that call each other share a fork.
No Docker engine is used, except where Docker builds and runs the image. Beside it: `gcloud run
deploy --source` of the same folder to the same local Cloud Run, which then is already up. The table
of docs/your-service.md is written from the figures.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import requests

from scripts import HOME
from scripts.config.pipelines import ENDPOINT_VARIABLE
from tests.conftest import NO_DOCKER
from tests.scripts import docker_help
from tests.stand_in import WHAT, BaseImages
from tests.systems import SYSTEMS

PAGE = HOME / "docs/your-service.md"
_TABLE = re.compile(r"(<!-- nox -s bench -- first-hour -->\n).*?(<!-- end -->)", re.DOTALL)
_LIMIT = 60.0  # seconds, cold
_COMMANDS = 5  # for one service; one more for each further one
_TOGETHER = "ai + api"
_PORTS = {"ai": "8081"}  # what gcloud has to be told; `init` reads it from the Dockerfile
# What Cloud Run would not run either: Flask 2.0.3 fails with the Werkzeug that pip chooses.
_EDITS = {"hello": {"requirements.txt": "Flask==2.0.3\nWerkzeug<3\ngunicorn==20.1.0\n"}}
_INIT = (
    "./ship init {name} --repository acme/systems --region us-central1 --yes"
    " --project staging=acme-staging --project production=acme-production"
)
_DELIVER = "./ship deliver --yes"


@dataclass
class _Row:
    """The figures of one service: seconds, and None for what could not be done."""

    name: str
    cold: float | None = None
    warm: float | None = None
    docker: float | None = None
    gcloud: float | None = None
    commands: int = 0
    edited: list[str] = field(default_factory=list)


def _lines(name: str) -> list[str]:
    """Return the commands from `git clone` to the delivered system."""
    services = HOME / "tests/services"
    if name == _TOGETHER:
        copy = f"rm -r app && cp -r {services}/ai {services}/api ."
        init = [_INIT.format(name="ai") + " --source ai", "./ship init --add api --calls ai --yes"]
        deliver = f"{_DELIVER} --all"
    else:
        copy = f"rm -r app && cp -r {services / name} app"
        init = [_INIT.format(name=name)]
        deliver = _DELIVER
    return [
        f"git clone --quiet {HOME.as_uri()} fork",
        copy,
        *init,
        "git add -A && git commit --quiet -m 'Make it ours'",
        deliver,
    ]


class _Fork:
    """A fork of this repository in which a system takes the place of the sample."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        place = folder / name.replace(" ", "")
        self.path = place / "fork"
        self.home = place / "home"
        self.home.mkdir(parents=True)
        people = {f"GIT_{who}_{what}": "bench@localhost" for who in ("AUTHOR", "COMMITTER")
                  for what in ("NAME", "EMAIL")}  # fmt: skip
        kept = {k: v for k, v in os.environ.items()
                if k not in (ENDPOINT_VARIABLE, "SHIPWAY_VENV", "VIRTUAL_ENV", "CI")}  # fmt: skip
        self.environment = {**kept, **people, "HOME": str(self.home), "DOCKER_HOST": NO_DOCKER,
                            "PYTHON": getattr(sys, "_base_executable", sys.executable)}  # fmt: skip

    def type(self, line: str, *, where: Path | None = None) -> str:
        """Type one command; return its output.

        Raises:
            RuntimeError: it fails; with its last lines.
        """
        done = subprocess.run(
            ["sh", "-c", line], cwd=where or self.path, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{self.name}: {line}\n{(done.stdout + done.stderr)[-2000:]}")
        return done.stdout

    def first_200(self, row: _Row, by: str = "") -> float:
        """Go from `git clone` to an answer of the delivered system; return the seconds.

        Args:
            row: what is learned on the way.
            by: more options for `deliver`.
        """
        lines = _lines(self.name)
        lines[-1] += by
        kept = self.path.with_name("kept")  # of the first round: packages, layers
        started = time.perf_counter()
        for number, line in enumerate(lines):
            self.type(line, where=None if number else self.path.parent)
            if number == 0 and kept.exists():
                kept.rename(self.path / ".shipway")
            if number == 1:
                row.edited = [self._write(*edit) for edit in _EDITS.get(self.name, {}).items()]
        self.answers()
        row.commands = len(lines)
        return time.perf_counter() - started

    def _write(self, file: str, text: str) -> str:
        (self.path / "app" / file).write_text(text)
        return file

    def answers(self) -> None:
        """Check that the system answers 200; of two services, that one calls the other."""
        together = self.name == _TOGETHER
        shown = self.type("./ship status api" if together else "./ship status")
        found = re.search(r"http://[\w.:]+", shown)
        assert found, shown
        if together:
            answer = requests.post(f"{found[0]}/analyze", json={"text": "good"}, timeout=30)
        else:
            answer = requests.get(found[0] + SYSTEMS[self.name].path, timeout=30)
        assert answer.status_code == 200, (answer.url, answer.status_code)

    def start_again(self) -> None:
        """Delete the fork, but keep what a second one on this machine would find."""
        self.type("./ship up --stop")
        shutil.rmtree(self.path / ".shipway/cloud-run")
        (self.path / ".shipway").rename(self.path.with_name("kept"))
        shutil.rmtree(self.path)

    def with_docker(self, row: _Row) -> float:
        """Go the same way in another fork, with images that Docker builds and runs."""
        self.start_again()
        del self.environment["DOCKER_HOST"]
        # Docker's plugins may be in the real home folder.
        self.environment.setdefault("DOCKER_CONFIG", str(Path.home() / ".docker"))
        seconds = self.first_200(row, " --builder docker")
        url = json.loads((self.path / ".shipway/up.json").read_text())["url"]
        self.type("./ship up --stop")
        docker_help.forget_images(url)
        return seconds

    def by_gcloud(self) -> float:
        """Deploy the same folder with gcloud, without layers of earlier builds."""
        self.type("./ship up --stop")
        for name in ("cloud-run", "cache"):
            shutil.rmtree(self.path / ".shipway" / name, ignore_errors=True)
        self.type("./ship up --background")
        port = f" --port {_PORTS[self.name]}" if self.name in _PORTS else ""
        started = time.perf_counter()
        self.type(
            'eval "$(./ship up --env-gcloud)" && gcloud run deploy --quiet --source app'
            f" --allow-unauthenticated{port} {self.name}"
        )
        self.answers()
        return time.perf_counter() - started


def measure(folder: Path, say: Callable[[str, str, str, bool], None]) -> None:
    """Measure every service and write the table.

    Args:
        folder: for the forks.
        say: of tests/bench.py.
    """
    with BaseImages() as images:
        rows, stand_ins, load = _measure(folder, images, say)
    text = PAGE.read_text()
    table = _table(rows, stand_ins, load)
    PAGE.write_text(_TABLE.sub(lambda match: match[1] + table + match[2], text))


def _measure(
    folder: Path, images: BaseImages, say: Callable[[str, str, str, bool], None]
) -> tuple[list[_Row], set[str], float]:
    """Return the rows, the base images that were stand-ins, and the machine's load."""
    load = os.getloadavg()[0]
    rows = []
    stand_ins: set[str] = set()
    for name in (*SYSTEMS, _TOGETHER):
        row = _Row(name)
        rows.append(row)
        fork = _Fork(folder, name)
        try:
            row.cold = fork.first_200(row)
            fork.start_again()
            row.warm = fork.first_200(row)
            if shutil.which("gcloud") and name != _TOGETHER:
                row.gcloud = fork.by_gcloud()
            if name != _TOGETHER and docker_help.missing() is None:
                dockerfile = HOME / "tests/services" / name / "Dockerfile"
                stand_ins.update(images.of(dockerfile.read_text()))
                row.docker = fork.with_docker(row)
        except (RuntimeError, AssertionError, LookupError) as error:
            print(error, flush=True)
        finally:
            if fork.path.exists():
                fork.type("./ship up --stop || true")
            shutil.rmtree(fork.path.parent, ignore_errors=True)
        most = _COMMANDS + (name == _TOGETHER)
        good = row.cold is not None and row.cold <= _LIMIT and row.commands <= most
        say(f"{name}, from git clone to the first 200: cold, warm, with Docker, gcloud",
            ", ".join(_shown(one) for one in (row.cold, row.warm, row.docker, row.gcloud)),
            f"cold at most {_LIMIT:.0f} s, {most} commands", good)  # fmt: skip
    return rows, stand_ins, max(load, os.getloadavg()[0])


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.0f} s"


def _table(rows: list[_Row], stand_ins: set[str], load: float) -> str:
    """Return the table as Markdown, with the conditions of the figures."""
    cpus = os.cpu_count() or 1
    busy = f"busy with other work (load {load:.0f})" if load > 2 * cpus else "idle otherwise"
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    base = f"; with Docker on {WHAT}" if stand_ins else ""
    lines = [
        f"On a machine with {cpus} CPUs, {busy}; Python {python}{base}:",
        "",
        "| Service | Cold | Warm | With Docker | Commands | Files edited"
        " | `gcloud run deploy --source` |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            " + ".join(f"[{name}](../tests/services/{name})" for name in row.name.split(" + ")),
            _shown(row.cold), _shown(row.warm), _shown(row.docker),
            str(row.commands or "-"), ", ".join(f"`{name}`" for name in row.edited) or "0",
            _shown(row.gcloud),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
