"""Take a newer version of Shipway into a fork, as one commit on a separate branch.

Replaces Shipway's files, merges files that both sides change, and does not change the fork's files
(scripts/template/owners.toml lists the owners). Your branch and your work tree do not change. The
result is the branch shipway-upgrade-VERSION, for you to review and merge.

examples:
  ./ship upgrade --check             # is there a newer version, and what changes?
  ./ship upgrade                     # the newest version
  ./ship upgrade --keep ship         # you changed that file: merge your change, now and later
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import msgspec

from scripts.command import options as shared
from scripts.command.call import Call
from scripts.command.options import option
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.errors import Refused, UsageError
from scripts.template import owners, record
from scripts.template.owners import Owner, Owners
from scripts.template.record import Record
from scripts.upgrade import changelog, plan, scratch
from scripts.upgrade.fork import Fork
from scripts.upgrade.plan import Edited, File, Plan

_DIFFERENCES = 4
_FEW = 3


class Options(shared.Options, frozen=True, kw_only=True):
    """What to take, and what happens to Shipway's files that the fork changed."""

    to: Annotated[
        str | None, option("--to", metavar="VERSION", help="the version (default: the newest)")
    ] = None
    check: Annotated[
        bool, option("--check", help="only report whether there is a newer version; 4 if so")
    ] = False
    source: Annotated[
        str | None,
        option(
            "--from", metavar="URL",
            help="Shipway's git repository; needed once, then recorded in .shipway.toml",
        ),
    ] = None  # fmt: skip
    keep: Annotated[
        tuple[str, ...],
        option(
            "--keep", metavar="FILE",
            help="merge your changes to this file of Shipway's; recorded in .shipway.toml",
        ),
    ] = ()  # fmt: skip
    overwrite: Annotated[
        bool, option("--overwrite", help="drop your changes to Shipway's files, except --keep")
    ] = False
    unchecked: Annotated[
        bool, option("--unchecked", help="do not run ./ship check on the result")
    ] = False
    format: shared.Format = "table"


def run(options: Options, call: Call) -> int:
    with scratch.alone(call.root) as folder:
        fork = Fork.read(call.root, folder, options.source)
        new = fork.newer(options.to)
        if new is None:
            return call.show(_versions(fork, ["already up to date"]), options.format)
        fork.fetch(new)
        if options.check:
            return call.show(_news(fork, new), options.format)
        branch = _branch(new)
        if deletions := _deletions(fork, branch):
            again = " && ".join([*deletions, _command(fork)])
            notes = [f"the branch {branch} already exists; nothing changed",
                     f"To make it again: {again}"]  # fmt: skip
            return call.show(_versions(fork, notes), options.format)
        return _upgrade(call, options, fork, new, folder)


def _deletions(fork: Fork, branch: str) -> list[str]:
    """Return the commands that delete a branch, here and at origin."""
    repository = fork.repository
    return [
        *([f"git branch -D {branch}"] if repository.has_branch(branch) else []),
        *(
            [f"git push origin --delete {branch}"]
            if repository.has_branch_at_origin(branch)
            else []
        ),
    ]


def _versions(fork: Fork, notes: list[str], code: int = 0, **data: str) -> Result:
    """Return the current version and the newest one."""
    newest = [*fork.versions][-1]
    return Result(
        data={"version": fork.version, "newest": newest, **data},
        table=Table(columns=["HERE", "NEWEST"], rows=[[fork.version, newest]], notes=notes),
        code=code,
    )


def _command(fork: Fork) -> str:
    """Return the command that upgrades. It names the URL until the URL is recorded."""
    is_recorded = fork.record is not None and fork.record.source == fork.url
    return "./ship upgrade" + ("" if is_recorded else f" --from {shlex.quote(fork.url)}")


def _news(fork: Fork, new: str) -> Result:
    """Return the changes in a newer version."""
    changes = fork.changes(new)
    notes = ["", *changes.splitlines(), "", f"To upgrade: {_command(fork)}"]
    return _versions(fork, notes, _DIFFERENCES, changes=changes)


def _upgrade(call: Call, options: Options, fork: Fork, new: str, folder: Path) -> int:
    """Make the branch with the new version."""
    repository, target = fork.repository, fork.versions[new]
    repository.check_name()
    rules = _owners(fork, target)
    base = fork.base(target)
    call.progress.line(f"from {fork.version} ({base.how}) to {new}")
    old, theirs = repository.tree(base.commit), repository.tree(target)
    ours = repository.tree(repository.head)
    keep = _kept(fork.record, options.keep, rules, {*ours, *old, *theirs})
    moved = repository.moved(base.commit, target)

    def owner(path: str) -> Owner:
        # A file that the new version's list does not cover was once Shipway's, and was removed.
        return "shared" if path in old and rules.name_for(path) is None else rules.of(path)

    made = plan.make(
        old,
        ours,
        theirs,
        owner=owner,
        published=repository.published(target, base.commit),
        moved=moved,
        keep=keep,
        overwrite=options.overwrite,
    )
    if made.blocked:
        raise _blocked(made)
    if made.edited:
        raise _edited(made)
    conflicts = _merge(fork, new, made)
    files = record.fingerprint(((f.mode, f.blob, path) for path, f in theirs.items()), rules)
    kept = sorted(moved[p] if p in moved and p in made.put else p for p in keep)
    known = fork.record or Record(version=fork.version)
    text = record.render(
        msgspec.structs.replace(
            known, version=new, files=files, source=fork.url, commit=target, keep=kept
        )
    )
    made.put[record.FILE] = File("100644", repository.write(text))
    commit = repository.commit(made.put, _message(fork, new, made, conflicts))
    problem: list[str] = []
    if not options.unchecked:
        with call.progress.step("check", "running ./ship check on the result") as step:
            problem = scratch.check(repository, folder, commit)
            step.done("failed" if problem else "passed")
    branch = _branch(new)
    repository.make_branch(branch, commit)
    if not repository.is_clean():
        call.progress.line("note: uncommitted changes are not part of the branch")
    return call.show(_result(fork, new, made, conflicts, problem), options.format)


def _branch(version: str) -> str:
    return f"shipway-upgrade-{version}"


def _owners(fork: Fork, target: str) -> Owners:
    """Return the owners in the new version, whose list covers its own files."""
    text = fork.repository.text(target, owners.PATH)
    return Owners(text) if text else owners.current()


def _kept(
    recorded: Record | None, asked: tuple[str, ...], rules: Owners, files: Collection[str]
) -> set[str]:
    """Return Shipway's files in which the fork keeps its changes."""
    for path in asked:
        if path not in files:
            raise UsageError(
                f"--keep {path}: there is no such file", "name it from the top of the repository"
            )
        if rules.of(path) != "shipway":
            raise UsageError(
                f"--keep {path}: not one of Shipway's files, so an upgrade does not replace it"
            )
    return {*(recorded.keep if recorded else ()), *asked}


def _blocked(made: Plan) -> Refused:
    return Refused(
        f"files of this repository are in the way ({len(made.blocked)}): nothing was upgraded",
        "rename them, commit, and upgrade again",
        evidence=[f"{own}: the new version has {new}" for own, new in made.blocked.items()],
    )


def _edited(made: Plan) -> Refused:
    return Refused(
        f"this repository changed {len(made.edited)} of Shipway's files: nothing was upgraded",
        "--keep FILE merges your change to a file, now and in later upgrades;"
        " --overwrite drops the changes to all others",
        evidence=[f"{_how(file)}: {file.path}" for file in made.edited],
    )


def _how(file: Edited) -> str:
    if file.is_deleted:
        return "deleted"
    return "added by you, and by the new version" if file.is_own else "changed"


def _merge(fork: Fork, new: str, made: Plan) -> dict[str, int]:
    """Put the merged files into the plan; return path -> the number of conflicts in the file."""
    conflicts = {}
    labels = ("this repository", f"Shipway {fork.version}", f"Shipway {new}")
    for merge in made.merges:
        merged = fork.repository.merge(merge.base, merge.ours, merge.theirs, labels)
        if merged is None:
            made.notes.append(f"{merge.path}: a binary file, so yours is unchanged")
            made.put[merge.path] = merge.ours
            continue
        made.put[merge.path], count = merged
        if count:
            conflicts[merge.path] = count
    return conflicts


def _message(fork: Fork, new: str, made: Plan, conflicts: dict[str, int]) -> str:
    """Return the message of the commit, which is the text of a pull request as well."""
    changes = re.sub(r"(?m)^#+ (.*)$", r"**\1**", fork.changes(new))
    lines = [f"Upgrade Shipway from {fork.version} to {new}", "", changes]
    if conflicts:
        lines += ["", "Conflicts are marked in these files:", *(f"- {path}" for path in conflicts)]
    if made.notes:
        lines += ["", "To review:", *(f"- {note}" for note in made.notes)]
    return "\n".join(lines).strip() + "\n"


def _result(
    fork: Fork, new: str, made: Plan, conflicts: dict[str, int], problem: list[str]
) -> Result:
    """Return the result, and the steps that are left."""
    before = fork.repository.tree(fork.repository.head)
    merged = [merge.path for merge in made.merges]
    put = {path: file for path, file in made.put.items() if path not in merged}
    rows = [
        ["added", _files([p for p, file in put.items() if file and p not in before])],
        ["replaced", _files([p for p, file in put.items() if file and p in before])],
        ["deleted", _files([p for p, file in put.items() if file is None])],
        ["merged", ", ".join(path for path in merged if path not in conflicts)],
        ["conflicts", ", ".join(f"{path} ({count})" for path, count in conflicts.items())],
    ]
    branch = _branch(new)
    errors = []
    if conflicts:
        errors.append(f"conflicts to resolve: {', '.join(conflicts)}")
    if problem:
        errors.append("./ship check fails on the branch")
    notes = [
        *(f"note: {note}" for note in made.notes),
        *(f"  | {line}" for line in problem),
        *errors,
        f"The branch {branch} has the new version. To review it: git switch {branch}",
        f"Its changes, and what you must do: {changelog.PATH}",
    ]
    data = {
        "from": fork.version, "version": new, "branch": branch, "conflicts": [*conflicts],
        "errors": errors, "notes": made.notes,
    }  # fmt: skip
    return Result(
        data=data,
        table=Table(columns=["CHANGE", "FILES"], rows=[row for row in rows if row[1]], notes=notes),
        code=1 if errors else 0,
    )


def _files(paths: list[str]) -> str:
    """Return the names of a few files, or the number of many."""
    return ", ".join(paths) if len(paths) <= _FEW else f"{len(paths)} files"
