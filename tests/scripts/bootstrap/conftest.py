"""A team with bare projects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.bootstrap_help import Team, team_of


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with team_of(tmp_path) as made:
        yield made
