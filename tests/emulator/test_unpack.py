"""Layers are unpacked to a folder, and nothing is written outside it."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from emulator.instances.unpack import UnsafeLayer, unpack

Entry = tuple[str, str, str]


def layer(path: Path, *entries: Entry) -> Path:
    """Return a tar file of (type, name, content or link target)."""
    kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "dir": tarfile.DIRTYPE}
    with tarfile.open(path, "w:gz") as archive:
        for kind, name, content in entries:
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if kind == "file":
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
            else:
                member.type, member.linkname = kinds[kind], content
                archive.addfile(member)
    return path


def unpacked(tmp_path: Path, *layers: list[Entry]) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    files = [layer(tmp_path / f"{n}.tar", *entries) for n, entries in enumerate(layers)]
    unpack(files, root)
    return root


def files_of(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }


def test_later_layers_win_and_whiteouts_hide(tmp_path):
    root = unpacked(
        tmp_path,
        [("file", "a/one", "1"), ("file", "a/two", "2"), ("file", "b/x", "x"), ("file", "c", "c")],
        [("file", "a/one", "new"), ("file", "a/.wh.two", ""), ("file", "b/y", "y")],
        [("file", "b/z", "z"), ("file", "b/.wh..wh..opq", ""), ("dir", "c", "")],
    )
    assert files_of(root) == {"a/one": "new", "b/z": "z"}
    assert (root / "c").is_dir()
    assert os.access(root / "a/one", os.X_OK)


def test_hard_links_stay_inside(tmp_path):
    root = unpacked(tmp_path, [("file", "a", "1"), ("hard", "b", "/a")])
    assert files_of(root) == {"a": "1", "b": "1"}


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/../out"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    with pytest.raises(UnsafeLayer):
        unpacked(tmp_path, [("file", name, "x")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["/", "..", "../../../../../..", "/etc", "d/../../.."])
def test_a_link_that_leaves_the_folder_is_rewritten(tmp_path, target):
    outside = tmp_path / "etc"
    outside.mkdir()
    root = unpacked(
        tmp_path,
        [("dir", "d", ""), ("dir", "etc", ""), ("link", "d/link", target)],
        [("file", "d/link/planted", "x")],
    )
    assert root in (root / "d/link").resolve().joinpath("x").parents
    assert list(outside.iterdir()) == []
    assert sum(name.endswith("planted") for name in files_of(root)) >= 1


def test_a_chain_of_links_stays_inside(tmp_path):
    root = unpacked(
        tmp_path,
        [("dir", "a/b/c", ""), ("link", "s", "a/b/c"), ("link", "s/t", "../../../../../out")],
        [("file", "s/t", "x"), ("link", "u", "s/../../../../out"), ("file", "v", "y")],
    )
    assert not (tmp_path / "out").exists()
    assert root in (root / "u").resolve().parents


def test_an_absolute_link_points_into_the_image(tmp_path):
    root = unpacked(tmp_path, [("file", "opt/tool", "tool"), ("link", "bin/tool", "/opt/tool")])
    assert (root / "bin/tool").read_text() == "tool"
    moved = root.rename(tmp_path / "moved")
    assert (moved / "bin/tool").read_text() == "tool"
