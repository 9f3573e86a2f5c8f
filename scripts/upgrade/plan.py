"""Decide what an upgrade does with each file. Pure: from three trees to the files to write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec

from scripts.template.owners import Owner


class File(msgspec.Struct, frozen=True):
    """A file in a git tree: its mode, such as "100644", and the id of its blob."""

    mode: str
    blob: str

    @property
    def is_regular(self) -> bool:
        """Whether its text can be merged; a link's and a submodule's cannot."""
        return self.mode.startswith("100")


Tree = Mapping[str, File]


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """A file that both sides changed.

    Attributes:
        path: where the result goes.
        base: the file in the version that the fork was made from; None if it is missing.
        ours: the fork's.
        theirs: the new version's.
    """

    path: str
    base: File | None
    ours: File
    theirs: File


class Edited(msgspec.Struct, frozen=True, kw_only=True):
    """One of Shipway's files that the fork changed or deleted.

    Attributes:
        path: its path.
        is_deleted: whether the fork deleted it.
        is_own: whether the fork and the new version each added a file of this name.
    """

    path: str
    is_deleted: bool
    is_own: bool = False


class Plan(msgspec.Struct, kw_only=True):
    """The plan of an upgrade.

    Attributes:
        put: path -> the file to write, or None to delete it.
        merges: the files to merge.
        edited: Shipway's files that the fork changed and did not decide about.
        blocked: the fork's file -> the new version's, where one needs a folder at the other's path.
        notes: lines for the fork's maintainer.
    """

    put: dict[str, File | None]
    merges: list[Merge]
    edited: list[Edited]
    notes: list[str]
    blocked: dict[str, str] = {}


def make(
    base: Tree,
    ours: Tree,
    theirs: Tree,
    *,
    owner: Callable[[str], Owner],
    published: Collection[tuple[str, str]],
    moved: Mapping[str, str],
    keep: Collection[str],
    overwrite: bool,
) -> Plan:
    """Decide what an upgrade does with each file.

    Args:
        base: the files of the version that the fork was made from.
        ours: the fork's files.
        theirs: the files of the new version.
        owner: who owns a path in the new version.
        published: (path, blob id) of every file in every commit of Shipway up to the new version.
        moved: old path -> new path, of files that moved between `base` and `theirs`.
        keep: Shipway's files in which the fork's changes are merged.
        overwrite: whether the fork's other changes to Shipway's files are given up.
    """
    plan = Plan(put={}, merges=[], edited=[], notes=[])
    for path in sorted({*base, *ours, *theirs}):
        who = owner(path)
        before, here, new = base.get(path), ours.get(path), theirs.get(path)
        if who == "fork" or here == new:
            continue
        if here == before or (here and (path, here.blob) in published):
            plan.put[path] = new  # the fork did not change it
        elif before is None and new is None:
            continue  # the fork's own file in one of Shipway's folders
        elif who == "shipway" and path not in keep:
            if overwrite:
                plan.put[path] = new
            else:
                plan.edited.append(
                    Edited(path=path, is_deleted=here is None, is_own=before is None)
                )
        elif here is None:
            if before != new:
                plan.notes.append(f"{path}: you deleted it, and the new version changes it")
        elif before != new:
            _merge(plan, path, before, here, new, ours=ours, theirs=theirs, moved=moved)
    plan.blocked = _blocked(plan, ours)
    return plan


def _blocked(plan: Plan, ours: Tree) -> dict[str, str]:
    """The fork's files in the way: git would delete a file to make a folder of its name."""
    stay = {path for path in ours if plan.put.get(path, ours[path])}
    written = {path for path, file in plan.put.items() if file}
    written |= {merge.path for merge in plan.merges}
    in_folders = ((folder, path) for path in written for folder in _folders(path))
    found = {folder: path for folder, path in in_folders if folder in stay}
    for path in stay:
        for folder in _folders(path):
            if folder in written:
                found[path] = folder
    return dict(sorted(found.items()))


def _folders(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _merge(
    plan: Plan,
    path: str,
    before: File | None,
    here: File,
    new: File | None,
    *,
    ours: Tree,
    theirs: Tree,
    moved: Mapping[str, str],
) -> None:
    """Plan the merge of one file that the fork and the new version changed."""
    target = path
    if new is None:
        target = moved.get(path, "")
        new = theirs.get(target)
        if new is None:
            plan.notes.append(f"{path}: the new version deletes it; you changed it, so it stays")
            return
        if target in ours:
            plan.notes.append(
                f"{path}: the new version moves it to {target}, where you have another file;"
                " yours is changed, so it stays"
            )
            return
        plan.put[path] = None
        plan.notes.append(f"{path}: the new version moves it to {target}, with your changes")
    if here.is_regular and new.is_regular:
        plan.merges.append(Merge(path=target, base=before, ours=here, theirs=new))
    else:
        plan.notes.append(f"{target}: not a text file, so yours is unchanged")
