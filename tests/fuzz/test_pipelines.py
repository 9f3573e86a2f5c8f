"""A file in pipelines/ loads, or one error names the file and what is wrong in it."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, note
from hypothesis import strategies as st

from scripts.config import pipelines
from scripts.config.image_reference import ImageReference
from scripts.errors import UsageError
from scripts.release import declared, manifest
from tests.conftest import ROOT
from tests.fuzz import fuzz
from tests.fuzz.changes import Change, Spoiled, changed, changes, spoil, spoiled

SOURCE = ROOT / "tests/pipelines/app"
FILES = sorted(path.stem for path in SOURCE.glob("*.yaml"))
COMMIT = "0123456789abcdef" * 2 + "01234567"
IMAGES = {"app": ImageReference.parse(f"host/project/repository/app@sha256:{'0' * 64}")}
SNIPPETS = [
    b"&a [*a]", b"*unknown", b"!!python/object:os.system x", b"!x y", b"<<: *a", b"? [a]\n: b",
    b"? ",
    b"%YAML 9.9\n---\n", b"---\n", b"...\n", b"\t", b"- ", b"a: b: c", b"'", b'"\\ud800"',
    b'"\\x00"',
    b"|9\n", b">-\n x", b"2020-02-30", b"2020-01-01", b"0o17", b"0b1", b"1_000", b"1:60", b".inf",
    b".nan", b"=", b"!!binary x", b"!!set {a}", b"!!float x", b"~", b"yes", b"{" * 3000,
    b"[" * 3000,
    b"- " * 500, b"&a " * 50, b"a: &a b\na: *a\n", b"\xef\xbb\xbf", b"\xff\xfea\0", b"\xe2\x80\xa8",
    b"&a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n",
]  # fmt: skip
text_changes = st.lists(
    st.builds(
        Spoiled, st.integers(0, 2000), st.sampled_from(["put", "over"]), st.sampled_from(SNIPPETS)
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "pipelines/app").mkdir(parents=True)
        (home / "app").mkdir()
        yield home


def check(root: Path, name: str, content: bytes) -> None:
    """Load all environments with one file changed; go as far as a plan goes without Cloud Run."""
    folder = root / "pipelines/app"
    for file in FILES:
        (folder / f"{file}.yaml").write_bytes((SOURCE / f"{file}.yaml").read_bytes())
    as_it_was = manifest.render(
        pipelines.load(root, "app", "local"),
        commit=COMMIT,
        images=IMAGES,
        revision="app-1",
        urls={},
    )
    (folder / f"{name}.yaml").write_bytes(content)
    began = time.thread_time()
    for env in (name,) if name not in ("service", "smoke") else ("local", "production"):
        try:
            found = pipelines.load(root, "app", env)
            made = manifest.render(found, commit=COMMIT, images=IMAGES, revision="app-1", urls={})
        except UsageError as error:
            message = error.message
        else:
            manifest.to_bytes(made)
            declared.differences(made, as_it_was)
            declared.differences(as_it_was, made)
            continue
        assert re.match(rf"pipelines/app/{name}\.yaml(:\d+)?: ", message), message
        assert len(message) < 2000
    assert time.thread_time() - began < 5  # of work


@pytest.mark.parametrize("name", FILES)
@fuzz(15, long=400)
@given(several=changes, text=spoiled)
def test_a_changed_document_ends_in_one_error(
    root: Path, name: str, several: list[Change], text: list[Spoiled]
) -> None:
    document = yaml.safe_load((SOURCE / f"{name}.yaml").read_text())
    content = _yaml(changed(document, several))
    note(content.decode()[:1500])
    check(root, name, spoil(content, text[:1]))


@pytest.mark.parametrize("name", FILES)
@fuzz(15, long=400)
@given(several=text_changes)
def test_a_changed_text_ends_in_one_error(root: Path, name: str, several: list[Spoiled]) -> None:
    content = spoil((SOURCE / f"{name}.yaml").read_bytes(), several)
    note(content.decode(errors="replace")[:1500])
    check(root, name, content)


def _yaml(document: Any) -> bytes:
    dumped = yaml.dump(document, Dumper=_Dumper, allow_unicode=True, sort_keys=False)
    return dumped.encode("utf-8", "surrogatepass")


class _Dumper(yaml.SafeDumper):
    """Writes equal lists and mappings twice, and not as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
