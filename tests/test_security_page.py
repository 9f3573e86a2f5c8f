"""docs/security.md matches the rules in scripts/setup."""

from __future__ import annotations

import re

from tests import security_page
from tests.conftest import ROOT


def test_the_page_shows_condition_and_bindings_as_they_are() -> None:
    written = security_page.PAGE.read_text()
    assert written == security_page.page(written), "write it: nox -s schema"


def test_every_test_that_the_threat_model_names_exists() -> None:
    page = security_page.PAGE.read_text()
    _, _, table = page.partition("## Threat model")
    table, _, _ = table.partition("\n## ")
    named = set(re.findall(r"`([a-z_/]+\.py)`", table))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert {len(row) for row in rows if not row[0].startswith("| **")} == {4}
