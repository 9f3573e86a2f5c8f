"""Run a verb that writes on several services: a process for each, callees before their callers.

Each process is `./ship VERB SERVICE` with a record, a failure and an exit code of its own.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from scripts.command import options as command_line
from scripts.command import terminal, values, verbs
from scripts.command.call import Call
from scripts.command.options import WritingOptions
from scripts.command.visible import one_line
from scripts.config import pipelines, relations
from scripts.config.pipelines import Pipeline
from scripts.config.relations import Relations
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.service import on_demand
from scripts.service.context import confirm, report_uncommitted
from scripts.several import summary
from scripts.several.child import Child, Ended
from scripts.several.touched import nearest

_AT_ONCE = 4
_LOOK_SECONDS = 0.1  # how late a signal, or the end of a process that left a pipe open, is seen


def drive(
    options: WritingOptions, call: Call, names: list[str], commits: Mapping[str, str] | None = None
) -> int:
    """Run the call's verb on several services; return the exit code.

    Args:
        options: the command line, parsed; the names in it are not used.
        call: the call.
        names: the services.
        commits: service -> the commit to use, where it is not the command line's.

    Raises:
        UsageError: the files of one of them are wrong; nothing was started.
        Refused: the answer to the question was not yes.
    """
    commit = _commit(options, call)
    if commit:  # by its SHA: a commit or a checkout in the meantime changes nothing
        options = msgspec.structs.replace(options, commit=commit.sha)
    with _files(commit, call) as files:
        related = relations.read(files)
        loaded = [pipelines.load(files, name, options.env, checkout=call.root) for name in names]
    words = {name: _words(options, name, names, commits or {}) for name in names}
    _ask(options, call, loaded)
    verb = verbs.find(call.record.verb)
    assert verb is not None
    names = related.in_order(names)
    if verb.order == "callers":
        names.reverse()
    with (
        tempfile.TemporaryDirectory(prefix="shipway-") as folder,
        _Driver(
            call, names, words, Path(folder), related if verb.order == "callees" else None
        ) as driver,
    ):
        ended = _without_callers(driver.run(), related)
        shown = summary.result(call, options, ended, interrupted=driver.signals > 0)
        code = call.show(shown, options.format)
    if code:
        summary.last_line(summary.failure(call, ended))
    return code


def _commit(options: WritingOptions, call: Call) -> Commit | None:
    """Return the commit that the verb is about, if it is about one."""
    reference: str | None = getattr(options, "commit", None)
    if reference is None:
        return None
    commit = git.commit(call.root, reference)
    report_uncommitted(call, commit, git.uncommitted(call.root))
    return commit


def _without_callers(ended: Mapping[str, Ended], related: Relations) -> dict[str, Ended]:
    """Leave those that call a failed service out of the output `services`.

    The next job delivers what a build names there, and a caller may need its callee's new image.
    """
    stopped = {name for name, one in ended.items() if one.code}
    found = {}
    for name in related.in_order(ended):
        one = ended[name]
        if not stopped.isdisjoint(nearest(related, name, [*ended])):
            stopped.add(name)
            outputs = {key: value for key, value in one.outputs.items() if key != "services"}
            one = msgspec.structs.replace(one, outputs=outputs)
        found[name] = one
    return {name: found[name] for name in ended}


@contextmanager
def _files(commit: Commit | None, call: Call) -> Iterator[Path]:
    """Give the folder with the files that the processes will read."""
    if commit is None:
        yield call.root
        return
    with git.checkout(call.root, commit, pipelines.folders) as files:
        yield files


def _ask(options: WritingOptions, call: Call, loaded: list[Pipeline]) -> None:
    """Ask once for all services, and start the local Cloud Run where it is needed."""
    if any(pipeline.environment.confirm for pipeline in loaded) and not (
        options.yes or options.dry_run
    ):
        listed = ", ".join(pipeline.service for pipeline in loaded)
        confirm(f"{call.record.verb.capitalize()} in {options.env}: {listed}.")
    if local := next((pipeline for pipeline in loaded if pipeline.uses_up), None):
        on_demand.bring_up(local, yes=options.yes)


def _words(
    options: WritingOptions, name: str, names: list[str], commits: Mapping[str, str]
) -> list[str]:
    """Return the arguments for one service."""
    own: dict[str, Any] = {"format": "json", "yes": True, "every": options.every}
    if options.takes_every:
        own["every"] = False
    if name in commits:
        own["commit"] = commits[name]
    if (digests := getattr(options, "digest", None)) is not None:
        own["digest"] = values.digests_of(digests, name, names)
    given = msgspec.structs.replace(options, services=(), **own)
    return [name, *command_line.words(given)]


class _Driver:
    """The processes of one call.

    Args:
        call: the call.
        names: the services, in the order in which they begin.
        words: service -> its arguments.
        folder: for what the processes write.
        related: who waits for whom; None if no one does.

    Attributes:
        signals: how many signals asked to end. Each process gets all of them: after the first it
            ends as soon as it can leave nothing behind, after the second at once.
    """

    def __init__(
        self,
        call: Call,
        names: list[str],
        words: dict[str, list[str]],
        folder: Path,
        related: Relations | None,
    ) -> None:
        self.signals = 0
        self._call = call
        self._names = names
        self._words = words
        self._folder = folder
        self._after = {name: nearest(related, name, names) if related else [] for name in names}
        self._ended: dict[str, Ended] = {}
        self._running: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._wide = max(map(len, names))

    def __enter__(self) -> _Driver:
        # The processes notice when this end closes: the death of this process ends them.
        self._alive, self._own = os.pipe()
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._handlers = {number: signal.signal(number, self._stop) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._selector.close()
        os.close(self._alive)
        os.close(self._own)

    def _stop(self, *_: object) -> None:
        self.signals += 1

    def run(self) -> dict[str, Ended]:
        """Run all; return service -> how it ended, in their order."""
        told = 0
        while self._running or self._begin():
            for key, _ in self._selector.select(_LOOK_SECONDS):
                self._read(key.data)
            for child in [child for child in self._running if child.has_ended()]:
                self._finish(child)
            if told < self.signals:
                told += 1
                for child in self._running:
                    child.interrupt()
            self._begin()
        return {name: self._ended[name] for name in self._names}

    def _begin(self) -> bool:
        """Start what may start now; return whether anything runs."""
        for name in self._names:
            if name in self._ended or any(child.name == name for child in self._running):
                continue
            why = "interrupted" if self.signals else self._in_the_way(name)
            if why:
                self._ended[name] = Ended.not_tried(why)
                self._say(name, f"not tried: {why}")
            elif len(self._running) < _AT_ONCE and self._ended.keys() >= {*self._after[name]}:
                child = Child(
                    name, [self._call.record.verb, *self._words[name]], self._call.root,
                    self._folder, self._alive, self._names,
                )  # fmt: skip
                self._running.append(child)
                self._selector.register(child.said, selectors.EVENT_READ, child)
        return bool(self._running)

    def _in_the_way(self, name: str) -> str:
        """Return why a service is not tried; "" if it may be."""
        for callee in self._after[name]:
            if (ended := self._ended.get(callee)) and ended.code:
                return ended.because or f"{callee} {ended.word}"
        return ""

    def _read(self, child: Child) -> None:
        for line in child.lines():
            self._say(child.name, line)

    def _finish(self, child: Child) -> None:
        self._read(child)
        self._selector.unregister(child.said)
        self._running.remove(child)
        ended = self._ended[child.name] = child.end()
        took = f" ({ended.seconds:.1f} s)"
        self._say(child.name, f"{ended.word}{took}")

    def _say(self, name: str, line: str) -> None:
        with suppress(BrokenPipeError):  # no one reads it: the result counts
            terminal.write(sys.stderr, (f"{name:<{self._wide}} | ", "2"), one_line(line))
