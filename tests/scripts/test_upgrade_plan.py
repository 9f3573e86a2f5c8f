"""The plan of an upgrade for each file, as a function of three trees."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.template.owners import Owners
from scripts.upgrade import changelog, plan
from scripts.upgrade.plan import File, Plan

OWNERS = Owners('fork = ["app/"]\nshipway = ["scripts/", "app/schema"]\nshared = [".github/"]')
OURS, SHARED, FORKS = "scripts/a.py", ".github/ci.yml", "app/a.py"
A, B, C, D = (File("100644", letter * 40) for letter in "abcd")


def make(
    path: str, base: File | None, ours: File | None, theirs: File | None, **options: Any
) -> Plan:
    """Plan an upgrade of one file; only the contents in `base` and `theirs` were published."""
    trees = [{path: file} if file else {} for file in (base, ours, theirs)]
    published = {(path, file.blob) for file in (base, theirs) if file}
    settings = {"published": published, "moved": {}, "keep": (), "overwrite": False, **options}
    return plan.make(trees[0], trees[1], trees[2], owner=OWNERS.of, **settings)


def test_the_longest_name_decides_who_owns_a_file() -> None:
    assert OWNERS.of("app/a") == "fork"
    assert OWNERS.of("app/schema") == "shipway"
    assert OWNERS.of("scripts/deep/er/a.py") == "shipway"
    assert OWNERS.of("scriptsx") == OWNERS.of("elsewhere/a") == "fork"
    with pytest.raises(ValueError, match="app/ has two owners"):
        Owners('fork = ["app/"]\nshipway = ["app/"]\nshared = []')


@pytest.mark.parametrize("path", [OURS, SHARED])
def test_a_file_that_the_fork_did_not_change_becomes_the_new_versions(path: str) -> None:
    assert make(path, A, A, B).put == {path: B}
    assert make(path, None, None, B).put == {path: B}, "new"
    assert make(path, A, A, None).put == {path: None}, "deleted"
    assert make(path, A, B, B).put == {}, "already there"
    old = make(path, A, C, B, published={(path, C.blob)})
    assert old.put == {path: B}, "an older version's file is not a change of the fork's"


@pytest.mark.parametrize(("base", "theirs"), [(A, B), (A, None), (None, B), (A, A)])
@pytest.mark.parametrize("ours", [None, C])
def test_what_is_the_forks_stays(base: File | None, ours: File | None, theirs: File | None) -> None:
    assert make(FORKS, base, ours, theirs) == Plan(put={}, merges=[], edited=[], notes=[])
    added = make("scripts/of_the_fork.py", None, C, None)
    assert (added.put, added.edited) == ({}, []), "a file of its own in one of Shipway's folders"


@pytest.mark.parametrize(
    ("base", "ours", "theirs"), [(A, C, B), (A, C, None), (A, C, A), (None, C, B), (A, None, B)]
)
def test_a_changed_file_of_shipways_waits_for_a_decision(
    base: File | None, ours: File | None, theirs: File | None
) -> None:
    undecided = make(OURS, base, ours, theirs)
    assert [(edited.path, edited.is_deleted) for edited in undecided.edited] == [
        (OURS, ours is None)
    ]
    assert undecided.put == {}
    given_up = make(OURS, base, ours, theirs, overwrite=True)
    assert (given_up.put, given_up.edited, given_up.merges) == ({OURS: theirs}, [], [])
    kept = make(OURS, base, ours, theirs, keep={OURS}, overwrite=True)
    assert (kept.put, kept.edited) == ({}, []), "--keep is stronger"


@pytest.mark.parametrize(("path", "keep"), [(SHARED, ()), (OURS, {OURS})])
def test_a_file_that_both_changed_is_merged(path: str, keep: Any) -> None:
    merges = make(path, A, C, B, keep=keep).merges
    assert merges == [plan.Merge(path=path, base=A, ours=C, theirs=B)]
    assert make(path, A, C, A, keep=keep).merges == [], "only the fork changed it"
    both_added = make(path, None, C, B, keep=keep).merges
    assert both_added == [plan.Merge(path=path, base=None, ours=C, theirs=B)]
    deleted = make(path, A, C, None, keep=keep)
    assert (deleted.put, deleted.merges) == ({}, [])
    assert "the new version deletes it" in deleted.notes[0]
    gone = make(path, A, None, B, keep=keep)
    assert (gone.put, gone.merges) == ({}, [])
    assert "you deleted it" in gone.notes[0]
    link = File("120000", "d" * 40)
    linked = make(path, A, link, B, keep=keep)
    assert (linked.put, linked.merges) == ({}, [])
    assert "not a text file" in linked.notes[0]


def test_a_change_follows_a_file_that_moved() -> None:
    new = ".github/new.yml"
    moved = plan.make(
        {SHARED: A}, {SHARED: C}, {new: B}, owner=OWNERS.of, published={(SHARED, A.blob)},
        moved={SHARED: new}, keep=(), overwrite=False,
    )  # fmt: skip
    assert moved.put[SHARED] is None
    assert moved.merges == [plan.Merge(path=new, base=A, ours=C, theirs=B)]
    assert "moves it to .github/new.yml" in moved.notes[0]


def test_a_file_that_moves_to_where_the_fork_has_its_own_does_not_replace_it() -> None:
    new = ".github/new.yml"
    moved = plan.make(
        {SHARED: A}, {SHARED: C, new: D}, {new: B}, owner=OWNERS.of,
        published={(SHARED, A.blob)}, moved={SHARED: new}, keep=(), overwrite=False,
    )  # fmt: skip
    assert moved.merges == [plan.Merge(path=new, base=None, ours=D, theirs=B)]
    assert SHARED not in moved.put
    assert "moves it to .github/new.yml, where you have another file" in moved.notes[0]


@pytest.mark.parametrize(
    ("own", "new"),
    [("scripts/own", "scripts/own/new"), ("scripts/new/own", "scripts/new"),
     (".github/own", ".github/own/a/b"), ("app", "app/schema")],
)  # fmt: skip
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_where_the_new_version_has_a_folder_is_in_the_way(
    own: str, new: str, overwrite: bool
) -> None:
    """Git would delete it without a word."""
    options: Any = {"owner": OWNERS.of, "moved": {}, "keep": (), "overwrite": overwrite}
    made = plan.make({}, {own: C}, {new: B}, published={(new, B.blob)}, **options)
    assert made.blocked == {own: new}
    published = {(own, C.blob), (new, B.blob)}
    gone = plan.make({own: C}, {own: C}, {new: B}, published=published, **options)
    expected = {own: new} if OWNERS.of(own) == "fork" else {}
    assert gone.blocked == expected, "Shipway's own file makes way for its folder"


def test_a_file_that_both_added_is_told_apart_from_a_changed_one() -> None:
    assert make(OURS, None, C, B).edited[0].is_own
    assert not make(OURS, A, C, B).edited[0].is_own


FILES = st.sampled_from([None, A, B, C])
TREES = st.dictionaries(st.sampled_from([OURS, SHARED, FORKS, "scripts/b", ".github/b"]), FILES)


@given(TREES, TREES, TREES, st.booleans())
def test_a_plan_never_loses_a_change_of_the_fork(
    base: Any, ours: Any, theirs: Any, overwrite: bool
) -> None:
    """A file is replaced only where its content was published, or the user dropped the change."""
    trees = [{p: file for p, file in tree.items() if file} for tree in (base, ours, theirs)]
    base, ours, theirs = trees
    published = {(p, file.blob) for tree in (base, theirs) for p, file in tree.items()}
    made = plan.make(base, ours, theirs, owner=OWNERS.of, published=published, moved={},
                     keep=(), overwrite=overwrite)  # fmt: skip
    for path, file in ours.items():
        if path in made.put:
            assert OWNERS.of(path) != "fork"
            dropped = overwrite and OWNERS.of(path) == "shipway"
            assert dropped or (path, file.blob) in published
            assert made.put[path] == theirs.get(path)
    for path in {*theirs} - {*ours} - {*made.put} - {edited.path for edited in made.edited}:
        assert OWNERS.of(path) == "fork" or path in base, "nothing new is left out"


def test_the_changelog_of_several_versions() -> None:
    text = (
        "# Changes\n\nIntro.\n\n## 0.10.0\n\nTen.\n\n## 0.9.0 (2026)\n\nNine.\n\n## 0.1.0\n\nOne.\n"
    )
    assert (
        changelog.between(text, "0.1.0", "0.10.0")
        == "## 0.10.0\n\nTen.\n\n## 0.9.0 (2026)\n\nNine."
    )
    assert changelog.between(text, "0.1.0", "0.9.0") == "## 0.9.0 (2026)\n\nNine."
    assert changelog.between(text, "", "0.1.0") == "## 0.1.0\n\nOne."
    assert changelog.between(text, "0.10.0", "0.10.0") == ""
    assert changelog.between("# Changes\n", "0.1.0", "0.2.0") == ""
    assert changelog.number("v1.2.3") == (1, 2, 3)
    assert changelog.number("1.2") is changelog.number("v1.2.3-rc1") is None
