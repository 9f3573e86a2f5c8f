"""Packing an image without Docker: its contents, which are the same every time."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from emulator.builds.platform import host_platform
from tests.emulator.pack_help import (
    PYTHON,
    config_of,
    contents,
    members,
    packed,
    write_app,
    write_wheel,
)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "app")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of all tests that do not need an empty one, since pip takes a second."""
    return tmp_path_factory.mktemp("pack") / "cache"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_config_matches_the_dockerfile(app: Path, cache: Path) -> None:
    image = packed(app, cache, labels={"org.opencontainers.image.revision": "a" * 40})
    config = config_of(image)
    assert f"{config['os']}/{config['architecture']}" == host_platform() == image.platform
    assert config["created"] == "2023-11-14T22:13:20Z"
    assert config["config"] == {
        "Env": ["PYTHONPATH=/deps", "GREETING=hello there", f"COMMIT_SHA={'a' * 40}"],
        "Cmd": ["python", "main.py"],
        "WorkingDir": "/srv",
        "User": "65532:65532",
        "ExposedPorts": {"8080/tcp": {}},
        "Labels": {
            "dev.shipway.builder": "pack",
            "dev.shipway.python": PYTHON,
            "org.opencontainers.image.revision": "a" * 40,
        },
    }
    filled = [event for event in config["history"] if not event.get("empty_layer")]
    assert len(filled) == len(image.layers) == 2


def test_the_manifest_describes_config_and_layers(app: Path, cache: Path) -> None:
    image = packed(app, cache)
    manifest = json.loads(image.manifest)
    assert image.digest == f"sha256:{hashlib.sha256(image.manifest).hexdigest()}"
    assert manifest["mediaType"] == image.media_type
    assert manifest["config"]["digest"] == image.config_digest
    assert manifest["config"]["size"] == len(image.config)
    diff_ids = config_of(image)["rootfs"]["diff_ids"]
    for described, layer, diff_id in zip(manifest["layers"], image.layers, diff_ids, strict=True):
        data = layer.path.read_bytes()
        assert described["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert described["size"] == len(data)
        assert data[3:8] == b"\0\0\0\0\0"  # gzip: neither a name nor a time
        assert diff_id == f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}"


def test_holds_code_and_dependencies_and_nothing_of_the_build(app: Path, cache: Path) -> None:
    image = packed(app, cache)
    names = members(image)
    assert contents(image, "srv/main.py") == b"print('one')\n"
    assert b"VERSION = '1.0'" in contents(image, "deps/demo/__init__.py")
    assert not [name for name in names if name.startswith(("build", "wheels", "root"))]
    assert contents(image, "deps/bin/demo-run").startswith(b"#!/usr/bin/env python3\n")
    for member in names.values():
        assert (member.uid, member.gid) == (0, 0)
        assert str(cache).encode() not in (contents(image, member.name) if member.isfile() else b"")


def test_bytecode_is_checked_by_hash_and_knows_its_place(app: Path, cache: Path) -> None:
    image = packed(app, cache)
    (name,) = [n for n in members(image) if n.endswith(".pyc")]
    compiled = contents(image, name)
    assert int.from_bytes(compiled[4:8], "little") == 0b11  # PEP 552: hash-based, checked
    assert b"/deps/demo/__init__.py" in compiled


def test_same_bytes_from_anywhere(app: Path, cache: Path, empty: Path, tmp_path: Path) -> None:
    """Another folder, umask, file times and cache: the same manifest."""
    elsewhere = tmp_path / "a" / "much" / "longer" / "path" / "app"
    shutil.copytree(app, elsewhere, copy_function=shutil.copyfile)
    (elsewhere / "main.py").chmod(0o600)
    os.utime(elsewhere / "main.py", (1, 1))
    first = packed(app, cache)
    second = packed(elsewhere, empty)
    assert first.manifest == second.manifest
    assert [a.digest for a in first.layers] == [b.digest for b in second.layers]


def test_a_change_of_code_reuses_the_dependencies(app: Path, cache: Path) -> None:
    first = packed(app, cache)
    (app / "main.py").write_text("print('another')\n")
    shutil.rmtree(app / "__pycache__", ignore_errors=True)
    said: list[str] = []
    second = packed(app, cache, progress=said.append, commit="b" * 40)
    assert said == []  # pip was not run
    assert second.layers[0].digest == first.layers[0].digest
    assert [layer.reused for layer in second.layers] == [True, False]
    assert second.digest != first.digest


def test_a_change_of_the_same_size_changes_the_files_time(app: Path, cache: Path) -> None:
    """Or web servers, which make ETags of time and size, would call it the same file."""
    before = members(packed(app, cache))["srv/main.py"]
    (app / "main.py").write_text("print('two')\n")
    after = members(packed(app, cache))["srv/main.py"]
    assert before.size == after.size
    assert before.mtime != after.mtime


def test_a_new_requirement_runs_pip_again(app: Path, cache: Path) -> None:
    packed(app, cache)
    write_wheel(app / "wheels", "other", "2.0")
    (app / "requirements.txt").write_text("demo==1.0\nother==2.0\n")
    said: list[str] = []
    image = packed(app, cache, progress=said.append)
    assert len(said) == 1
    assert said[0].startswith("RUN pip install --no-index")
    assert b"2.0" in contents(image, "deps/other/__init__.py")


def test_a_lost_cache_is_made_again(app: Path, cache: Path) -> None:
    first = packed(app, cache)
    shutil.rmtree(cache / "blobs")
    for file in (cache / "layers").iterdir():
        file.write_text("{broken")
    assert packed(app, cache).manifest == first.manifest
    assert all(layer.path.is_file() for layer in packed(app, cache).layers)


def _pack_again(where: tuple[Path, Path]) -> str:
    return packed(*where).digest


def test_many_builds_at_once(app: Path, empty: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        digests = set(pool.map(_pack_again, [(app, empty)] * 8))
    assert len(digests) == 1
    assert list((empty / "tmp").iterdir()) == []
    image = packed(app, empty)
    assert {image.digest} == digests


def test_two_builds_at_once_install_once(tmp_path: Path, empty: Path) -> None:
    """A stand-in for uv, in the image, counts its calls, which begin when both builds are there."""
    text = "FROM python:3\nWORKDIR /app\nCOPY uv /usr/local/bin/\nRUN uv pip sync a.txt\nCMD a\n"
    app, calls = write_app(tmp_path / "app", text), tmp_path / "calls"
    (app / "uv").write_text(f"#!/bin/sh\necho called >> {calls}\n")
    (app / "uv").chmod(0o755)
    both = threading.Barrier(2)

    def build(_: int) -> str:
        return packed(app, empty, progress=lambda line: "RUN" in line and both.wait(60)).digest

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(build, range(2)))) == 1
    assert calls.read_text() == "called\n"


def test_killed_builds_leave_a_good_cache(app: Path, cache: Path, empty: Path) -> None:
    """After a kill at any of four moments, the next build gives the same image as always."""
    program = (
        "import sys; from pathlib import Path; from tests.emulator.pack_help import packed;"
        "packed(Path(sys.argv[1]), Path(sys.argv[2]), progress=lambda _: print('pip', flush=True))"
    )
    for after in range(4):
        build = subprocess.Popen(
            [sys.executable, "-c", program, str(app), str(empty)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert build.stdout is not None
        build.stdout.readline()  # pip begins, or the build has ended
        with contextlib.suppress(subprocess.TimeoutExpired):
            build.wait(timeout=after * 0.2)
        build.kill()
        build.wait(timeout=60)
        build.stdout.close()
    assert packed(app, empty).manifest == packed(app, cache).manifest
