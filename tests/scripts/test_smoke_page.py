"""docs/smoke-checks.md: each example passes with the response below it, and no key is left out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from scripts.config import pipelines
from scripts.config.formats import BUILT_IN, Check, Expect, schemas
from scripts.service import checks
from tests.conftest import ROOT
from tests.scripts.test_hostile_revision import server

PAGE = (ROOT / "docs" / "smoke-checks.md").read_text()
BLOCKS = re.findall(r"```(yaml|http)\n(.*?)```", PAGE, re.DOTALL)
EXAMPLES = [
    (file, response)
    for (kind, file), (following, response) in zip(BLOCKS[::2], BLOCKS[1::2], strict=True)
    if (kind, following) == ("yaml", "http")
]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "tests/pipelines", tmp_path / "pipelines")
    return tmp_path


def test_each_example_has_its_response() -> None:
    assert len(EXAMPLES) == len(BLOCKS) / 2 == 6


@pytest.mark.parametrize(("file", "response"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_passes_with_the_response_below_it(
    project: Path, file: str, response: str
) -> None:
    (project / "pipelines/app/smoke.yaml").write_text(file)
    declared = pipelines.load(project, "app", "local").checks
    jsonschema.validate(yaml.safe_load(file), schemas()["smoke.schema.json"])
    head, _, body = response.rstrip("\n").partition("\n\n")
    sent = "\r\n".join([*head.splitlines(), "Connection: close", "", body]).encode()
    with server(lambda: iter([sent])) as url:
        [passed] = checks.run(url, declared, COMMIT)
    assert passed.ok, passed
    other = b"HTTP/1.1 500 Broken\r\nConnection: close\r\n\r\n{}"
    with server(lambda: iter([other])) as url:
        [failed] = checks.run(url, declared, COMMIT)
    assert not failed.ok


def test_the_built_in_check_is_the_one_of_the_page() -> None:
    _, _, text = PAGE.partition("## Without checks")
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example
    assert msgspec.convert(yaml.safe_load(example[1]), list[Check]) == [BUILT_IN]


@pytest.mark.parametrize(
    ("title", "type_"), [("Key of a check", Check), ("Key of `expect`", Expect)]
)
def test_the_page_has_every_key(title: str, type_: type[msgspec.Struct]) -> None:
    _, _, rest = PAGE.partition(f"| {title} |")
    table, _, _ = rest.partition("\n\n")
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(named) == sorted(field.encode_name for field in msgspec.structs.fields(type_))
