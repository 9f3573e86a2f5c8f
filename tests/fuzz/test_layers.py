"""Layers are unpacked within their limits, and a Dockerfile is packed, or an error says why not."""

from __future__ import annotations

import contextlib
import gzip
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from emulator.builds.errors import UsageError
from emulator.instances.unpack import Limits, unpack
from tests.emulator.pack_help import DOCKERFILE, members, packed
from tests.emulator.test_unpack import extended, header, record
from tests.fuzz import fuzz
from tests.fuzz.changes import Spoiled, spoil, spoiled, texts

LIMITS = Limits(size=300_000, files=200)


class Member(NamedTuple):
    """An entry of a layer: its header, its content, and extended headers before it."""

    name: str
    kind: bytes
    link: str
    size: int | None
    mode: int
    mtime: int
    content: bytes
    extended: list[tuple[str, str]]


names = st.one_of(
    st.sampled_from(["a", "a/b", "a/./b", ".wh.a", "a/.wh..wh..opq", "../a", "/a", "l", "l/a"]),
    st.sampled_from(["a/" * 60, "x" * 99]),
    texts.map(lambda text: text.encode("utf-8", "replace").decode()[:90].replace("\0", "0")),
)
kinds = st.sampled_from([bytes([n]) for n in b"01234567xgLKSZ\0"])
members_ = st.builds(
    Member,
    name=names,
    kind=st.one_of(st.just(tarfile.REGTYPE), kinds),
    link=names,
    size=st.one_of(st.none(), st.sampled_from([0, 1, 512, 10**6, 2**33, -1, 2**62])),
    mode=st.sampled_from([0o644, 0o6777, 0, 0o177777]),
    mtime=st.sampled_from([0, -1, 2**31, 2**40]),
    content=st.one_of(st.binary(max_size=20), st.sampled_from([b"\0" * 70_000, b"x" * 400_000])),
    extended=st.lists(
        st.tuples(
            st.sampled_from(
                ["path", "linkpath", "size", "mtime", "GNU.sparse.map", "GNU.sparse.realsize",
                 "GNU.sparse.major", "hdrcharset", "uid", "SCHILY.xattr.user.a", "charset"]
            ),
            texts.map(lambda text: text.encode("utf-8", "replace").decode()),
        ),
        max_size=2,
    ),
)  # fmt: skip


def written(member: Member) -> bytes:
    fields: dict[str, Any] = {"linkname": member.link, "mode": member.mode, "mtime": member.mtime}
    size = len(member.content) if member.size is None else member.size
    pieces: list[bytes] = []
    if member.extended:
        pieces += extended(b"".join(record(name, value) for name, value in member.extended))
    pieces += [header(member.name, member.kind, size=size, **fields), member.content]
    return b"".join(piece + b"\0" * (-len(piece) % 512) for piece in pieces)


def size_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@fuzz(40, long=3000)
@given(
    layers=st.lists(
        st.tuples(st.lists(members_, max_size=6), spoiled, st.booleans()), min_size=1, max_size=3
    )
)
def test_no_layer_leaves_its_folder_or_its_limits(
    layers: list[tuple[list[Member], list[Spoiled], bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, sibling = Path(folder, "images/root"), Path(folder, "images/sibling")
        for made in (root, sibling):
            made.mkdir(parents=True)
        files = []
        for number, (entries, changes, compressed) in enumerate(layers):
            content = b"".join(map(written, entries)) + b"\0" * 1024
            content = gzip.compress(content, 1) if compressed else content
            files.append(Path(folder, f"{number}.tar"))
            files[-1].write_bytes(spoil(content, changes[:1]))
        began = time.thread_time()
        with contextlib.suppress(Exception):  # tarfile, gzip and zlib raise many types
            unpack(files, root, LIMITS)
        assert time.thread_time() - began < 5  # of work
        assert {*Path(folder, "images").iterdir()} == {root, sibling}
        assert not [*sibling.iterdir()]
        assert {*Path(folder).iterdir()} == {root.parent, *files}
        assert size_below(root) <= LIMITS.size
        assert len([*root.rglob("*")]) <= LIMITS.files
        for path in root.rglob("*"):
            # Not Path.resolve: before Python 3.13 it raises for a link to itself.
            assert Path(os.path.realpath(path)).is_relative_to(root.resolve()), path


INSTRUCTIONS = [
    b"COPY ../../etc/passwd /x\n", b"COPY / /\n", b"COPY --from=99 /a /b\n", b"ADD http://x/y /\n",
    b"COPY [\"a\"]\n", b"COPY --chown=99999999999999999999:x main.py /\n",
    b"COPY --chmod=9 main.py /\n",
    b"WORKDIR ../../..\n", b"ENV A=${A}\n", b"ENV A=${A:-${B:-${C:-${D}}}}\n", b"ENV =\n",
    b"ARG\n",
    b"FROM x AS x\n", b"FROM ${NONE}\n", b"FROM 0\n", b"USER $\n", b"USER :5\nRUN rm x\n",
    b"EXPOSE 99999/x\n",
    b"CMD [1]\n",
    b"CMD [\"a\"\n", b"# escape=`\n", b"# syntax=x\n", b"RUN <<EOF\nrm -rf /\nEOF\n",
    b"COPY *[ /\n",
    b"LABEL \"a\n", b"ONBUILD RUN x\n", b"HEALTHCHECK CMD x\n", b"VOLUME [\"/x\"]\n", b"\\\n",
    b"\\",
    b"SHELL [\"sh\"]\n", b"STOPSIGNAL 99\n", b"COPY main.py main.py/\n",
    b"COPY main.py /srv/main.py/x\n",
]  # fmt: skip
# Without pip, which takes seconds.
PLAIN = "".join(line for line in DOCKERFILE.splitlines(True) if "pip" not in line).encode()


@fuzz(25, long=800)
@given(
    several=st.lists(
        st.builds(
            Spoiled,
            st.integers(0, 600),
            st.sampled_from(["put", "over"]),
            st.one_of(st.sampled_from(INSTRUCTIONS), st.binary(max_size=30)),
        ),
        max_size=3,
    ),
    ignore=st.one_of(st.just(b""), texts.map(lambda t: t.encode("utf-8", "surrogatepass"))),
    link=st.sampled_from(["/etc/passwd", "../..", "loop", "main.py"]),
)
def test_a_dockerfile_is_packed_or_refused_with_its_line(
    several: list[Spoiled], ignore: bytes, link: str
) -> None:
    lines = [part + b"\n" for part in PLAIN.split(b"\n")]
    for place, how, value in several:
        at = place % len(lines)
        lines[at : at + (how != "put")] = [value]
    note(b"".join(lines).decode(errors="replace")[:1500])
    pack(b"".join(lines), ignore, link)


@pytest.mark.parametrize("user", [b":5", b"9" * 5000, b"\xc2\xb2"])
def test_a_user_that_was_found_is_refused_or_root(user: bytes) -> None:
    pack(b"FROM x\nUSER %s\nCOPY main.py /\nRUN rm -rf /x\n" % user, b"", "main.py")


def pack(dockerfile: bytes, ignore: bytes, link: str) -> None:
    """Pack a folder with this Dockerfile: no file comes from outside it."""
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder, "app")
        context.mkdir()
        (context / "main.py").write_text("print()\n")
        (context / "requirements.txt").write_text("")
        (context / "wheels").mkdir()
        (context / "loop").symlink_to(link)
        (context / "Dockerfile").write_bytes(dockerfile)
        (context / ".dockerignore").write_bytes(ignore)
        try:
            image = packed(context, Path(folder, "cache"))
        except UsageError as error:
            image, message = None, error.message
        if image is None:
            assert "app" in message, message
        else:
            found = members(image)
            assert not [name for name in found if name.startswith(("/", "..")) or "/../" in name]
            assert not any(b"root:" in _read(image, name) for name in found if "pass" in name)
        assert {path.name for path in Path(folder).iterdir()} <= {"app", "cache"}


def _read(image: Any, name: str) -> bytes:
    for layer in image.layers:
        with tarfile.open(layer.path) as tar, contextlib.suppress(KeyError):
            file = tar.extractfile(name)
            return file.read() if file else b""
    return b""
