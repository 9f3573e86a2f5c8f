"""The demo's stage: a scratch clone, a scratch Cloud Run, a load, and the commands."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
import requests

from scripts.command import terminal
from scripts.command.tables import Table, plain_table, rich_table
from scripts.command.terminal import styled
from scripts.config import pipelines
from scripts.config.pipelines import ENDPOINT_VARIABLE
from scripts.demo.load import HEAVY, LIGHT, Answer, Load, observed
from scripts.errors import UsageError
from scripts.machine import scratch
from scripts.machine.scratch import local_cloud_run
from scripts.release import traffic

if TYPE_CHECKING:
    from rich.text import Text

_SETTLING_SECONDS = 0.1
_STYLES = {"ship:": "bold red", "  |": "red", "  ->": "yellow"}
_DONE = re.compile(r"(\w+ +.*) \((\d+\.\d s)\)")


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A finished command: its text, exit code, time and duration, and the load meanwhile."""

    command: str
    code: int
    started: float
    seconds: float
    answers: list[Answer]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A traffic plan that was in force for a while: its percentages, and the load meanwhile."""

    shares: dict[str, int]
    answers: list[Answer]


class Stage:
    """Where the demo runs.

    Args:
        root: the repository to clone.
        folder: a scratch folder.

    Raises:
        UsageError: `root` is not a git repository with a commit.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.clone = folder / "clone"
        self.state = folder / "cloud-run"
        self.terminal = terminal.is_terminal(sys.stdout)
        self._root = root
        self._stack = ExitStack()
        self._load: Load | None = None
        self._console: Any = None
        self._changes: list[tuple[float, dict[str, int]]] = []
        if self.terminal:
            self._console = terminal.console(sys.stdout)

    def __enter__(self) -> Stage:
        self._clone()
        self.cloud_run = self._stack.enter_context(local_cloud_run(self.state))
        self.url = self.cloud_run.url
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _clone(self) -> None:
        from scripts.machine import git

        git.commit(self._root)
        differ = git.uncommitted(self._root)
        if differ:
            self.say(f"note: {differ} uncommitted changes are left out: the demo delivers commits")
        source = self._root.resolve().as_uri()
        scratch.git("clone", "--quiet", "--depth", "1", source, str(self.clone))
        pipeline = pipelines.load(self.clone, None, pipelines.DEFAULT_ENV)
        where = pipeline.environment
        self._service, self._source = pipeline.service, pipeline.source
        self._path = (
            f"/v1/projects/{where.project}/locations/{where.regions[0]}/services/{self._service}"
        )

    def expect(self, file: str, text: str) -> str:
        """Return the contents of a file of the sample app, with a text that they must have.

        Raises:
            UsageError: the sample app is not the one that the demo knows.
        """
        path = self._source / file
        contents = path.read_text() if path.is_file() else ""
        if text not in contents:
            raise UsageError(
                f"{self._source.name}/{file} does not contain {text!r}:"
                " the demo needs the sample app",
                "to deliver your own app: ./ship deliver --yes",
            )
        return contents

    def commit(self, subject: str, file: str, old: str, new: str) -> None:
        """Change one file of the sample app, and commit the change.

        Raises:
            UsageError: the sample app is not the one that the demo knows.
        """
        contents = self.expect(file, old)
        (self._source / file).write_text(contents.replace(old, new, 1))
        scratch.git("commit", "--quiet", "--all", "--message", subject, cwd=self.clone)

    def revert(self, file: str) -> None:
        """Undo the last change of one file; the next commit includes that."""
        scratch.git("checkout", "--quiet", "HEAD~1", "--", str(self._source / file), cwd=self.clone)

    def revision(self) -> str:
        """Return the name of the newest commit's revision."""
        return f"{self._service}-{scratch.git('rev-parse', 'HEAD', cwd=self.clone)[:7]}"

    @contextmanager
    def load(self) -> Iterator[None]:
        """Send a light load to the service, and watch its traffic plan meanwhile."""
        service = requests.get(self.url + self._path, timeout=10).json()
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,), daemon=True)
        with Load(service["status"]["url"], LIGHT) as self._load:
            watcher.start()
            try:
                yield
            finally:
                stop.set()
                watcher.join()

    @contextmanager
    def heavy_load(self) -> Iterator[None]:
        """Send more requests for a while: to see small shares of them precisely."""
        assert self._load
        self._load.set_rate(HEAVY)
        try:
            yield
        finally:
            self._load.set_rate(LIGHT)

    def _watch(self, stop: threading.Event) -> None:
        """Note when each traffic plan comes into force."""
        with requests.Session() as http:
            while not stop.wait(0.05):
                with suppress(requests.RequestException, ValueError, KeyError):
                    service = http.get(self.url + self._path, timeout=10).json()
                    shares = traffic.shares(service["status"]["traffic"])
                    if not self._changes or self._changes[-1][1] != shares:
                        self._changes.append((time.monotonic(), shares))

    def plans(self, since: float, until: float) -> list[Plan]:
        """Return the traffic plans that came into force in a span, each with the load meanwhile."""
        assert self._load
        inside = [(at, shares) for at, shares in self._changes if since <= at < until]
        ends = [*(at for at, _ in inside[1:]), until]
        return [
            Plan(
                shares=shares,
                answers=self._load.answers(at + _SETTLING_SECONDS, end - _SETTLING_SECONDS),
            )
            for (at, shares), end in zip(inside, ends, strict=True)
        ]

    def ship(self, *arguments: str) -> Ended:
        """Run one command in the clone, and show it and its output."""
        command = "./ship " + " ".join(f"'{word}'" if " " in word else word for word in arguments)
        self._print(f"$ {command}", "bold cyan")
        started = time.monotonic()
        with scratch.ship(
            *arguments, cwd=self.clone, url=self.url, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout
            with self._live(started):
                self._copy(process.stdout)
                code = process.wait()
        seconds = time.monotonic() - started
        answers = self._load.answers(started, started + seconds) if self._load else []
        return Ended(command=command, code=code, started=started, seconds=seconds, answers=answers)

    def _copy(self, lines: IO[str]) -> None:
        for line in lines:
            style = next((style for start, style in _STYLES.items() if line.startswith(start)), "")
            done = _DONE.fullmatch(line.rstrip())
            if self.terminal and done:
                self._console.print(styled("  ", ("✓", "green"), f" {done[1]} ", (done[2], "dim")))
            else:
                self._print(f"  {line.rstrip()}", style)

    @contextmanager
    def _live(self, started: float) -> Iterator[None]:
        """On a terminal, show a bar with the revisions that answered in the last second."""
        if not self.terminal or self._load is None:
            yield
            return
        load = self._load

        class Split:
            def __rich__(self) -> Text:
                now = time.monotonic()
                answers = load.answers(now - 1.0)
                return bar(observed(answers), len(load.answers(started)))

        with terminal.live(self._console, Split(), per_second=8, transient=True):
            yield

    def chapter(self, number: str, title: str) -> None:
        """Print a heading."""
        self._print("")
        self._print(f"{number}. {title}", "bold")

    def say(self, text: str) -> None:
        """Print one line."""
        self._print(f"  {text}")

    def show(self, table: Table) -> None:
        """Print a table."""
        self._print("")
        if self.terminal:
            self._console.print(rich_table(table, self._console.width), soft_wrap=True)
        else:
            print(plain_table(table), flush=True)

    def _print(self, text: str, style: str = "") -> None:
        if self.terminal:
            self._console.print(text, style=style or None)
        else:
            print(text, flush=True)

    def wait_for_visitor(self) -> None:
        """On a terminal, keep the local Cloud Run running until Ctrl-C."""
        if not self.terminal:
            return
        service = requests.get(self.url + self._path, timeout=10).json()
        self._print("")
        self._print(f"The service is up: {service['status']['url']}", "bold green")
        self._print(f"In another terminal: {ENDPOINT_VARIABLE}={self.url} ./ship status --watch")
        self._print("Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):
            self.cloud_run.wait()


_COLORS = ("blue", "magenta", "cyan", "yellow", "green")


def bar(shares: dict[str, float], total: int, width: int = 50) -> Text:
    """Return a bar of the revisions that answer: each in a color that stays the same."""
    parts: list[tuple[str, str]] = []
    names: list[str | tuple[str, str]] = []
    for name in sorted(shares):
        color = _COLORS[sum(name.encode()) % len(_COLORS)]
        parts.append(("█" * round(width * shares[name] / 100), color))
        names += ["  ", (f"{name} {shares[name]:.0f} %", color)]
    return styled("  ", *parts, "\n", *names, "  ", (f"{total} requests", "dim"))
