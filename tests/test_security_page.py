"""docs/security.md matches the rules in scripts/setup."""

from __future__ import annotations

from tests import security_page


def test_the_page_shows_condition_and_bindings_as_they_are() -> None:
    written = security_page.PAGE.read_text()
    assert written == security_page.page(written), "write it: nox -s schema"
