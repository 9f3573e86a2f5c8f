"""A check of the packages that a service names: pairs that are known not to work together.

The list is short on purpose: what a quickstart of Google's named, and many services still have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scripts.doctor.finding import Finding, wrong
from scripts.image.source import Source

_FLASK = re.compile(r"flask\s*==\s*(\d+)\.(\d+)(?:\.(\d+))?\b", re.IGNORECASE)
_WERKZEUG = re.compile(r"^\s*werkzeug\b", re.IGNORECASE | re.MULTILINE)
# The first Flask that does not import what Werkzeug 3 removed.
# Source: https://werkzeug.palletsprojects.com/en/stable/changes/ (3.0.0: deprecated code removed).
_WITH_WERKZEUG_3 = (2, 2, 4)


def problems(code: Source, folder: str) -> Iterator[Finding]:
    """Yield every known pair in the requirements. Pure.

    Args:
        code: the folder that is built.
        folder: its name in messages.
    """
    text = code.texts.get("requirements.txt", "")
    if _WERKZEUG.search(text):
        return
    for number, line in enumerate(text.splitlines(), start=1):
        found = _FLASK.match(line.strip())
        if found and tuple(int(part or 0) for part in found.groups()) < _WITH_WERKZEUG_3:
            file = f"{folder}/requirements.txt"
            yield wrong(
                "packages",
                f"{file}:{number}: {found[0]} does not start with Werkzeug 3, which pip installs"
                " for it: cannot import name 'url_quote'",
                f"{file}: write a line Werkzeug<3, or take a newer Flask",
            )
