"""The test authority, which is beside the action that it stands in for: act copies that folder."""

from __future__ import annotations

import importlib.util
from typing import Any

from tests.conftest import ROOT

_FILE = ROOT / "tests/actions/actions/attest-build-provenance/authority.py"
_spec = importlib.util.spec_from_file_location("authority", _FILE)
assert _spec
assert _spec.loader
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
Authority: Any = _module.Authority
