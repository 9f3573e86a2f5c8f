"""Which services a change touches: since a commit, or since what is live."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import msgspec

from scripts.cloud.cloud_run import CloudRun
from scripts.command.call import Call
from scripts.config import pipelines, relations
from scripts.config.relations import Relations
from scripts.config.sources import SOURCE
from scripts.config.yamlfile import YamlFile
from scripts.errors import ShipError, UsageError
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.release.manifest import commit_of
from scripts.release.state import State
from scripts.service import on_demand
from scripts.several import reads

_NEW = "not delivered yet"


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """The services that a change touches.

    Attributes:
        why: service -> why it is touched, callees before their callers.
        relations: how the services of the commit relate.
        commits: service -> the commit that serves in the environment before it, with the same files
            of this service. Its image is the one to deliver: of the newest commit there is none.
    """

    why: Mapping[str, str]
    relations: Relations
    commits: Mapping[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The services, callees before their callers."""
        return [*self.why]

    def after(self, name: str) -> list[str]:
        """Return the touched services that a service comes after."""
        return nearest(self.relations, name, self.names)


def nearest(relations: Relations, name: str, among: list[str]) -> list[str]:
    """Return those of some services that one calls, itself or through others; sorted."""
    found: set[str] = set()
    for callee in relations.callees(name):
        found |= {callee} if callee in among else {*nearest(relations, callee, among)}
    return sorted(found)


def touched(
    call: Call,
    commit: Commit,
    *,
    since: str | None,
    env: str | None,
    timeout: str,
    yes: bool = False,
) -> Touched:
    """Find the services that a commit touches.

    Args:
        call: the call.
        commit: the commit to deliver.
        since: a commit before it; None to compare with what is live.
        env: the environment; with `since`, None for services of any environment.
        timeout: how long to keep trying while Google fails to answer.
        yes: whether the local Cloud Run is started without a question.

    Raises:
        UsageError: pipelines/services.yaml is wrong.
        ShipError: no service can be read.
    """
    with _files(call.root, commit) as files:
        related = relations.read(files)
        commits: dict[str, str] = {}
        names = pipelines.services(files) if env is None else pipelines.having(files, env)
        changes = _Changes(call.root, commit, files, names, related)
        if since is None:
            assert env is not None
            why = _since_live(call, changes, env, timeout, yes=yes)
            commits = _came_through(call, changes, env, [*why], timeout)
        elif (earlier := git.known(call.root, since)) is not None:
            why = changes.since(earlier)
        else:
            call.progress.line(f"every service: this clone has no commit {since}")
            why = dict.fromkeys(names, f"{since} is unknown here")
        if not why and len(pipelines.services(files)) == 1:
            # Where there is one service, a delivery is of the commit, whatever it changes.
            why = dict.fromkeys(names, "it is the only service")
    return Touched(
        why={name: why[name] for name in related.in_order(why)}, relations=related, commits=commits
    )


class _Changes:
    """What differs between a commit and earlier ones, for each service.

    Args:
        root: the repository.
        commit: the commit.
        files: a folder with its pipelines/ and the folders that services share.
        names: the services.
        related: how they relate.
    """

    def __init__(
        self, root: Path, commit: Commit, files: Path, names: list[str], related: Relations
    ) -> None:
        self.root, self.commit, self.files, self.names = root, commit, files, names
        self._related = related
        self._folders = {name: self._folders_of(name) for name in names}
        self.since = cache(self._since)

    def _folders_of(self, name: str) -> list[str]:
        shared = [folder for folder, users in self._related.shared.items() if name in users]
        return [f"pipelines/{name}", *_sources(self.files, name), *shared]

    def _since(self, earlier: str) -> dict[str, str]:
        """Return the services that differ -> the first reason. A commit that is known here."""
        paths = git.changed(self.root, earlier, self.commit.sha)
        related = self._unlike(earlier) if relations.FILE in paths else {}
        why = {}
        for name, folders in self._folders.items():
            path = next((p for p in paths if any(_is_below(p, f) for f in folders)), None)
            if path is not None:
                why[name] = path
            elif name in related:
                why[name] = related[name]
        return why

    def _unlike(self, earlier: str) -> dict[str, str]:
        """Return the services whose relations differ from those of an earlier commit."""
        try:
            with _files(self.root, git.commit(self.root, earlier)) as files:
                before = relations.read(files)
        except UsageError:
            before = None
        return {
            name: relations.FILE
            for name in self.names
            if before is None or _of(before, name) != _of(self._related, name)
        }


def _of(related: Relations, name: str) -> tuple[object, ...]:
    shared = {folder for folder, users in related.shared.items() if name in users}
    return dict(related.calls.get(name, {})), shared


def _sources(files: Path, name: str) -> list[str]:
    """Return the folders that a service's images are built from."""
    path = Path("pipelines", name, "service.yaml")
    try:
        data = YamlFile(files / path, str(path)).data
        annotations = data["metadata"].get("annotations") or {}
    except (UsageError, TypeError, KeyError, AttributeError):
        annotations = {}  # its own delivery says what is wrong
    named = {key: str(value) for key, value in annotations.items() if _names_source(str(key))}
    return [*{SOURCE: name, **named}.values()]


def _names_source(key: str) -> bool:
    return key == SOURCE or key.startswith(f"{SOURCE}.")


def _is_below(path: str, folder: str) -> bool:
    folder = folder.strip("/").removeprefix("./")
    if folder in ("", "."):  # the whole repository, without what is told apart
        return not path.startswith("pipelines/")
    return path.startswith(f"{folder}/")


@contextmanager
def _files(root: Path, commit: Commit) -> Iterator[Path]:
    """Give a scratch folder with a commit's pipelines/ and the folders that services share."""
    with git.checkout(root, commit, _shared) as files:
        yield files


def _shared(files: Path) -> list[str] | None:
    """Return the folders at the top that hold shared folders; None if that cannot be read."""
    if not (files / relations.FILE).exists():
        return []
    try:
        written = YamlFile(files / relations.FILE).data["shared"]
        return sorted({Path(folder).parts[0] for folder in written})
    except KeyError:
        return []
    except (UsageError, TypeError, IndexError):
        return None


def _since_live(
    call: Call, changes: _Changes, env: str, timeout: str, *, yes: bool
) -> dict[str, str]:
    """Return the services that differ from what is live in an environment -> why."""
    loaded = []
    why = {}
    for name in changes.names:
        found = pipelines.load_each(changes.files, name, [env], checkout=call.root)[env]
        if isinstance(found, UsageError):
            why[name] = found.message  # its own delivery says so
        else:
            loaded.append(found)
    if local := next((pipeline for pipeline in loaded if pipeline.uses_up), None):
        on_demand.bring_up(local, yes=yes)
    regions = reads.regions(loaded, timeout, call.progress.line)
    states = reads.glance(regions, call.progress.line)
    differ = reads.in_threads(
        [_asking(changes, region, state) for region, state in zip(regions, states, strict=True)]
    )
    errors = [one for one in differ if isinstance(one, ShipError)]
    if errors and len(errors) == len(differ):
        raise errors[0]
    for region, one in zip(regions, differ, strict=True):
        if isinstance(one, ShipError):
            why.setdefault(region.name, f"it cannot be read: {one.message}")
        elif one is not None:
            why.setdefault(region.name, one)
    return why


def _asking(
    changes: _Changes, region: CloudRun, state: State | ShipError | None
) -> Callable[[], str | None]:
    return lambda: _differs(changes, region, state)


def _differs(changes: _Changes, region: CloudRun, state: State | ShipError | None) -> str | None:
    """Return why a service differs in a region from the commit; None if it does not."""
    if isinstance(state, ShipError):
        raise state
    if state is None:
        return _NEW
    live = {name for name, share in {**state.served, **state.shares}.items() if share}
    if not live:
        return _NEW
    if not any(map(state.trusts, live)):  # the checks of its first delivery failed
        return f"{min(live)} is not known to be good"
    for name in sorted(live):
        commit = state.commits.get(name)
        if commit is None:
            revision = region.revision(name)
            commit = commit_of(revision) if revision else ""
        if commit == changes.commit.sha:
            continue
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
            return f"{name} names no commit"
        newer = git.is_newer(changes.root, commit, changes.commit.sha)
        if newer is None:
            return f"{commit[:7]}, which is live, is not in this clone (git fetch --unshallow?)"
        if newer:
            continue  # `deliver` would step aside
        if found := changes.since(commit).get(region.name):
            return found
    return None


def _came_through(
    call: Call, changes: _Changes, env: str, names: list[str], timeout: str
) -> dict[str, str]:
    """Return service -> the commit that serves in the environment before, if it is as good.

    It is if no file of the service differs from the newest commit's.
    """
    loaded = []
    for name in names:
        with suppress(UsageError):  # its own delivery says so
            loaded.append(pipelines.load(changes.files, name, env, checkout=call.root))
    regions = reads.regions(pipelines.earlier(loaded), timeout, call.progress.line)
    # All regions of an environment get the same commit: the first one is asked.
    asked = [*{region.name: region for region in reversed(regions)}.values()]
    found = {}
    for region, state in zip(asked, reads.in_threads([one.glance for one in asked]), strict=True):
        if state is None or isinstance(state, ShipError) or not state.known_good:
            continue  # its own delivery says so
        commit = state.commits.get(state.known_good[0], "")
        if git.is_newer(changes.root, changes.commit.sha, commit) and region.name not in (
            changes.since(commit)
        ):
            found[region.name] = commit
    return found
