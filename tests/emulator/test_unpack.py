"""Layers are unpacked to a folder, and nothing is written outside it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.instances.unpack import BadLayer, Limits, unpack
from emulator.instances.unpacked import UnpackedImages

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
    unpack(files, root, Limits())
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
    with pytest.raises(BadLayer):
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


def raw(path: Path, *blocks: bytes) -> Path:
    """Return a compressed tar file of blocks, each filled up to whole blocks of 512 bytes."""
    filled = (block + b"\0" * (-len(block) % 512) for block in blocks)
    path.write_bytes(gzip.compress(b"".join(filled) + b"\0" * 1024, 1))
    return path


def header(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    """Return the header of a file."""
    member = tarfile.TarInfo(name)
    member.type = kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT)


def extended(content: bytes, kind: bytes = tarfile.XHDTYPE) -> list[bytes]:
    """Return an extended header with any content, well-formed or not."""
    return [header("pax", kind, size=len(content)), content]


def record(name: str, value: str) -> bytes:
    """Return a record of an extended header: its own length comes first."""
    rest = f" {name}={value}\n".encode()
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


@pytest.fixture
def root(tmp_path) -> Path:
    """Return the empty folder of an image, beside which nothing may be written."""
    made = tmp_path / "images/root"
    made.mkdir(parents=True)
    return made


def refused(root: Path, *layers: Path, limits: Limits | None = None) -> str:
    """Unpack layers, which takes no time; return why that ends early."""
    began = time.process_time()
    with pytest.raises(BadLayer) as why:
        unpack(layers, root, limits or Limits())
    assert time.process_time() - began < 5
    assert [*root.parent.iterdir()] == [root]
    return str(why.value)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh...", "a/b/.wh..", "a/.wh./"])
def test_a_whiteout_of_a_folder_itself_or_of_the_one_above_is_refused(tmp_path, root, name):
    sibling = root.parent / "kept"
    sibling.mkdir()
    below = layer(tmp_path / "0.tar", ("file", "a/b/c", "c"))
    above = layer(tmp_path / "1.tar", ("file", name, ""))
    with pytest.raises(BadLayer, match="hides no file"):
        unpack([below, above], root, Limits())
    assert sibling.is_dir()
    assert files_of(root) == {"a/b/c": "c"}


def test_a_whiteout_of_a_name_with_three_dots_hides_that_name(tmp_path):
    root = unpacked(tmp_path, [("file", "...", "1"), ("file", "b", "2")], [("file", ".wh....", "")])
    assert files_of(root) == {"b": "2"}


@pytest.mark.parametrize("link", ["", "/", ".", "nothing", "folder", "../../out"])
def test_a_hard_link_to_no_file_is_refused(tmp_path, root, link):
    refused(root, layer(tmp_path / "0.tar", ("dir", "folder", ""), ("hard", "b", link)))


def test_a_hard_link_to_a_link_leads_to_the_same_file(tmp_path):
    root = unpacked(
        tmp_path,
        [("file", "x", "x"), ("dir", "a/b/c", ""), ("link", "a/b/c/l", "/x")],
        [("hard", "l", "a/b/c/l"), ("hard", "d/l", "a/b/c/l")],
    )
    for name in ("l", "d/l"):
        assert (root / name).resolve() == (root / "x").resolve()


@pytest.mark.parametrize("mtime", [2**62, -1, 2**33, -(2**62)])
def test_a_time_that_no_file_can_have_is_left_out(tmp_path, root, mtime):
    unpack([raw(tmp_path / "0.tar", header("a", mtime=mtime))], root, Limits())
    assert (root / "a").stat().st_mtime == 0


@pytest.mark.parametrize("mtime", ["nan", "inf", "1e300", "-5", "x"])
def test_a_time_in_an_extended_header_that_no_file_can_have_is_left_out(tmp_path, root, mtime):
    blocks = [*extended(record("mtime", mtime)), header("a")]
    unpack([raw(tmp_path / "0.tar", *blocks)], root, Limits())
    assert (root / "a").stat().st_mtime == 0


def test_more_bytes_than_the_limit_are_not_unpacked(tmp_path, root):
    zeros = b"\0" * 600_000
    bomb = raw(tmp_path / "0.tar", header("a", size=len(zeros)), zeros)
    assert bomb.stat().st_size < 10_000
    why = refused(root, bomb, limits=Limits(size=500_000))
    assert "larger than 500000 bytes" in why
    assert "--max-image-bytes" in why
    assert sum(path.stat().st_size for path in root.rglob("*")) <= 500_000
    half = Limits(size=1_000_000)
    assert "larger" in refused(root, bomb, bomb, limits=half)  # together
    left = unpack([bomb], root, half)
    with pytest.raises(BadLayer, match="larger than 1000000 bytes"):
        unpack([bomb], root, half, left)


def test_more_files_than_the_limit_are_not_unpacked(tmp_path, root):
    many = layer(tmp_path / "0.tar", *(("file", f"{n}", "") for n in range(30)))
    why = refused(root, many, limits=Limits(files=29))
    assert "more than 29 files" in why
    assert "--max-image-files" in why
    deep = layer(tmp_path / "1.tar", ("file", "b/" * 30 + "a", ""))
    assert "more than 29 files" in refused(root, deep, limits=Limits(files=29))
    again = layer(tmp_path / "2.tar", *(("file", "same", "") for _ in range(30)))
    assert "more than 29 files" in refused(root, again, limits=Limits(files=29))


def test_a_file_that_comes_twice_has_the_later_content_and_kind(tmp_path):
    root = unpacked(
        tmp_path,
        [("file", "a", "1"), ("file", "a", "2"), ("dir", "b", ""), ("file", "b/x", "x")],
        [("link", "b", "a"), ("dir", "c", ""), ("link", "c", "/"), ("file", "c/d", "d")],
    )
    assert files_of(root) == {"a": "2", "b": "2", "c/d": "d", "d": "d"} or files_of(root) == {
        "a": "2", "b": "2", "d": "d",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_what_is_no_file_is_left_out_or_a_plain_file(tmp_path, root, kind):
    blocks = [header("dev", kind, devmajor=1, devminor=3), header("after")]
    unpack([raw(tmp_path / "0.tar", *blocks)], root, Limits())
    assert all(path.is_file() for path in root.iterdir())
    assert (root / "after").exists()


def test_no_file_runs_as_another_user(tmp_path, root):
    unpack([raw(tmp_path / "0.tar", header("su", mode=0o6755))], root, Limits())
    assert (root / "su").stat().st_mode & 0o7777 == 0o755


def test_holes_of_a_sparse_file_count(tmp_path, root):
    records = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")
    records += record("GNU.sparse.name", "big") + record("GNU.sparse.realsize", str(10**13))
    blocks = [*extended(records), header("big", size=512), b"1\n0\n0\n"]
    assert "larger" in refused(root, raw(tmp_path / "0.tar", *blocks))


@pytest.mark.parametrize("size", [-512, -(2**40)])
def test_a_negative_size_ends(tmp_path, root, size):
    for number, kind in enumerate((tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE)):
        refused(root, raw(tmp_path / f"{number}.tar", header("a", kind, size=size), header("b")))
    blocks = [*extended(record("size", str(size))), header("a"), header("b")]
    refused(root, raw(tmp_path / "3.tar", *blocks))


@pytest.mark.parametrize(
    "content",
    [b"\0" * 50_000_000, b"1" * 100_000, b"5 a=1\n" * 100_000, record("path", "a" * 300_000)],
    ids=["zeros", "digits", "records", "path"],
)
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_large_headers_are_refused(tmp_path, root, content, kind):
    assert "headers" in refused(
        root, raw(tmp_path / "0.tar", *extended(content, kind), header("a"))
    )


def test_many_global_headers_are_refused(tmp_path, root):
    blocks = []
    for number in range(200):
        records = b"".join(record(f"k{number}.{n}", "1") for n in range(10))
        blocks += [*extended(records, tarfile.XGLTYPE), header(f"{number}")]
    assert "global headers" in refused(root, raw(tmp_path / "0.tar", *blocks))


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "x/" * 300 + "x", "\0"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, root, name):
    refused(root, raw(tmp_path / "0.tar", *extended(record("path", name)), header("short")))


def test_an_opaque_folder_that_comes_often_takes_no_time(tmp_path, root):
    entries = [("file", f"d/{n}", "") for n in range(2000)]
    entries += [("file", "d/.wh..wh..opq", "")] * 2000
    began = time.process_time()
    unpack([layer(tmp_path / "0.tar", *entries)], root, Limits())
    assert time.process_time() - began < 5
    assert len(files_of(root)) == 2000


parts = st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh.", ".wh...", ".wh..wh..opq", "l"])
paths = st.lists(parts, max_size=5).map("/".join)
some_entry = st.tuples(st.sampled_from(["file", "dir", "link", "hard"]), paths, paths)


@settings(max_examples=150, deadline=None)
@given(layers=st.lists(st.lists(some_entry, max_size=8), max_size=3))
def test_no_layers_write_or_remove_anything_outside(layers):
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        sibling = home / "images/sibling/a"
        sibling.mkdir(parents=True)
        root = home / "images/root"
        root.mkdir()
        made = [layer(home / f"{n}.tar", *entries) for n, entries in enumerate(layers)]
        with contextlib.suppress(BadLayer, OSError):
            unpack(made, root, Limits())
        assert {*(home / "images").iterdir()} == {root, sibling.parent}
        assert [*sibling.parent.iterdir()] == [sibling]
        assert [*sibling.iterdir()] == []
        assert {path.suffix for path in home.iterdir()} <= {"", ".tar"}
        for path in root.rglob("*"):
            assert os.path.realpath(path).startswith(str(root))


@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=1500), at=st.integers(0, 1500), data=st.data())
def test_any_bytes_end_with_a_reason(noise, at, data):
    """A layer with bytes of noise in it is unpacked, or an exception says why not."""
    good = b"".join([header("a", size=3), b"abc".ljust(512, b"\0"), header("d", tarfile.DIRTYPE)])
    changed = good[:at] + noise + good[at + len(noise) :]
    if data.draw(st.booleans()):
        changed = gzip.compress(changed, 1)[: data.draw(st.integers(2, 2000))]
    with tempfile.TemporaryDirectory() as folder:
        file, root = Path(folder, "0.tar"), Path(folder, "root")
        file.write_bytes(changed)
        root.mkdir()
        with contextlib.suppress(Exception):
            unpack([file], root, Limits(size=10**6, files=100))
        assert {*Path(folder).iterdir()} == {file, root}


class _Image:
    config: ClassVar[dict[str, Any]] = {}
    platform = "linux/amd64"

    def __init__(self, digest: str, *layers: Path) -> None:
        self.digest = f"sha256:{digest}"
        self.layers = [*layers]


def test_images_with_the_same_layers_below_share_no_files(tmp_path):
    """An instance may write to the files of its image."""
    below = layer(tmp_path / "0.tar", ("file", "deps/a", "a"), ("file", "app/old", "old"))
    images = [
        _Image(name, below, layer(tmp_path / f"{name}.tar", ("file", f"app/{name}", name)))
        for name in ("one", "two")
    ]
    kept = UnpackedImages(tmp_path / "images", Limits())

    async def both() -> list[Path]:
        first = await kept.of(images[0], "one")
        (first / "deps/a").write_text("changed")
        return [first, await kept.of(images[1], "two")]

    first, second = asyncio.run(both())
    assert files_of(second / "app") == {"old": "old", "two": "two"}
    assert (second / "deps/a").read_text() == "a"
    assert files_of(first / "app") == {"old": "old", "one": "one"}
