"""GitHub Actions: workflow commands, text that contains none, and the files that a job reads."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.command.visible import json_escaped, visible


def in_job() -> bool:
    """Return whether this runs in a job of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def has_run_page() -> bool:
    """Return whether there is a run page to write to."""
    return bool(os.environ.get("GITHUB_STEP_SUMMARY"))


def repository_url() -> str:
    """Return the repository's web address, as the workflow run knows it; "" outside of one."""
    server = os.environ.get("GITHUB_SERVER_URL") or "https://github.com"
    name = os.environ.get("GITHUB_REPOSITORY", "")
    return f"{server.rstrip('/')}/{name}" if name else ""


def run_url() -> str:
    """Return the address of the workflow run; "" outside of one."""
    repository, run = repository_url(), os.environ.get("GITHUB_RUN_ID")
    return f"{repository}/actions/runs/{run}" if repository and run else ""


def annotation(title: str, message: str) -> str:
    """Return a workflow command that shows an error on the run's page.

    Source: https://docs.github.com/actions/reference/workflow-commands-for-github-actions; how to
    escape is in actions/toolkit, packages/core/src/command.ts.
    """
    data = visible(message).replace("%", "%25").replace("\n", "%0A")
    name = visible(title).replace("%", "%25").replace("\n", "%0A")
    return f"::error title={name.replace(':', '%3A').replace(',', '%2C')}::{data}"


def inert(text: str) -> str:
    """Return text in which GitHub's runner finds no command.

    Source: actions/runner, src/Runner.Common/ActionCommand.cs: `::` at a line's start and `##[`
    anywhere in it begin one.
    """
    return re.sub(r"(?m)(^|\r)(\s*):(?=:)", r"\1\2: ", text).replace("##[", "## [")


def json_text(document: object, indent: int | None = None) -> str:
    """Return a JSON document that is safe for a terminal and for the log of a job.

    It is equal to the document: only characters in its strings are escaped.
    """
    text = json_escaped(json.dumps(document, indent=indent, ensure_ascii=False))
    return text.replace("##[", "#\\u0023[") if in_job() else text


def write_outputs(data: Mapping[str, Any]) -> None:
    """Give a job the plain values of a result: strings, numbers and booleans.

    They go to $GITHUB_OUTPUT and, where Cloud Build or another tool set $SHIPWAY_OUTPUTS, into one
    file each in that folder.
    """
    plain = {key: value for key, value in data.items() if isinstance(value, str | int | bool)}
    values = {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in plain.items()
    }
    import secrets

    lines = []
    for key, text in values.items():
        # A delimiter that cannot be guessed, so that no value can end itself early.
        mark = secrets.token_hex(8)
        lines.append(f"{key}<<{mark}\n{text}\n{mark}\n")
    _append("GITHUB_OUTPUT", "".join(lines))
    if folder := os.environ.get("SHIPWAY_OUTPUTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for key, text in values.items():
            (Path(folder) / key).write_text(text)


def write_run_page(markdown: str) -> None:
    """Append to the run page, if there is one."""
    _append("GITHUB_STEP_SUMMARY", markdown)


def _append(variable: str, text: str) -> None:
    path = os.environ.get(variable)
    if path and text:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
