"""COPY and WORKDIR put files where Docker puts them: the same Dockerfiles, built by both."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.emulator.pack_help import members, packed
from tests.scripts.docker_help import needs_docker

IGNORE = "*.log\n!keep.log\n**/__pycache__\nsub/*/secret*\n!sub/b/secret-not\n"
FILES = [
    "a.py", "b.py", "c.txt", "x.log", "keep.log", "sub/one.py", "sub/__pycache__/one.pyc",
    "sub/deep/two.py", "sub/a/secret", "sub/b/secret", "sub/b/secret-not", "other/three.py",
]  # fmt: skip


@needs_docker
@pytest.mark.parametrize(
    "lines",
    [
        "COPY . .",
        "COPY . /all",
        "COPY a.py /x",
        "COPY a.py /x/",
        "COPY a.py /x\nCOPY b.py /x",
        "COPY sub /x\nCOPY b.py /x",
        "COPY sub/ /x/y/",
        "COPY a.py b.py /x/",
        "COPY sub other /x/",
        "COPY sub a.py /x/",
        "COPY *.py /x/",
        "COPY s?b /x",
        "COPY [ab].py /x/",
        "COPY */*.py /x/",
        "COPY sub/* /x/",
        "WORKDIR /w/v\nCOPY a.py .\nCOPY b.py ./\nCOPY c.txt d.txt\nCOPY sub ../u",
        "WORKDIR w\nWORKDIR v\nCOPY . .",
        'COPY ["a.py", "b.py", "/x/"]',
        "COPY keep.log /",
        "WORKDIR /w\nCOPY a.py ..",
        "COPY link /x",
        "COPY link /x/",
        "COPY folder-link /x",
        "COPY --chmod=0600 sub /x",
        "COPY --chown=5:6 sub /x",
        "COPY ./../a.py /x",
        "COPY /sub/../a.py /x",
        "WORKDIR /w\nCOPY sub .\nWORKDIR /v",
    ],
)
def test_same_files(tmp_path: Path, lines: str) -> None:
    context = tmp_path / "app"
    for path in FILES:
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        (context / path).write_text(path)
    (context / "link").symlink_to("a.py")
    (context / "folder-link").symlink_to("sub")
    (context / "sub/inner-link").symlink_to("one.py")
    for folder in context.rglob("*"):
        if not folder.is_symlink():
            folder.chmod(0o755 if folder.is_dir() else 0o644)
    (context / ".dockerignore").write_text(IGNORE)
    (context / ".dockerignore").chmod(0o644)
    (context / "Dockerfile").write_text(f'FROM scratch\n{lines}\nCMD ["a"]\n')
    (context / "Dockerfile").chmod(0o644)
    built = subprocess.run(
        ["docker", "buildx", "build", "-q", "--output", "type=tar,dest=-", str(context)],
        capture_output=True,
        check=True,
    )
    with tarfile.open(fileobj=io.BytesIO(built.stdout)) as tar:
        expected = {described(member) for member in tar}
    assert {described(m) for m in members(packed(context, tmp_path / "cache")).values()} == expected


def described(member: tarfile.TarInfo) -> tuple[object, ...]:
    name = member.name.strip("/")
    mode = 0 if member.issym() else member.mode & 0o7777
    return (name, member.type, member.linkname, mode, member.uid, member.gid, member.size)
