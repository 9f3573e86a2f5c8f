"""Call GitHub's REST API through `gh`, with the user's own login.

Source: https://docs.github.com/en/rest. `gh api --include` prints the status line and the headers
before the body, also for errors.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from typing import Any, Literal

import msgspec

from scripts.errors import Failed

_HINT = "gh auth status"


class GitHubError(Failed):
    """GitHub refused a request.

    Attributes:
        status: its HTTP status.
        says: GitHub's own message.
    """

    def __init__(self, status: int, says: str, asked: str) -> None:
        super().__init__(f"GitHub refuses {asked}: {says} ({status})", _HINT)
        self.status = status
        self.says = says


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change at GitHub.

    Attributes:
        does: what it does, for the plan.
        what: what is created or changed.
        method: of the request.
        path: of the request, below the API's root.
        body: of the request.
        shown: the command that a person can run instead; "" for the same request.
    """

    does: Literal["create", "change", "set"]
    what: str
    method: str
    path: str
    body: dict[str, Any]
    shown: str = ""

    @property
    def command(self) -> str:
        """The command that makes this change."""
        if self.shown:
            return self.shown
        return (
            f"printf %s {shlex.quote(json.dumps(self.body))} |"
            f" gh api --method={self.method} {self.path} --input=-"
        )

    def make(self) -> None:
        """Make it.

        Raises:
            Failed: as `send`.
        """
        send(self.method, self.path, self.body)


def is_installed() -> bool:
    """Return whether GitHub's command line is installed."""
    return shutil.which("gh") is not None


def send(method: str, path: str, body: Any = None) -> Any:
    """Send a request; return the parsed answer, None if it is empty.

    Args:
        method: such as "GET".
        path: below the API's root, without a leading slash.
        body: the JSON body; None for none.

    Raises:
        GitHubError: GitHub refused it.
        Failed: gh could not send it, such as without a login.
    """
    words = ["gh", "api", "--hostname=github.com", "--include", f"--method={method}", path]
    if body is not None:
        words.append("--input=-")
    try:
        ended = subprocess.run(
            words, input=json.dumps(body) if body is not None else "",
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"gh api {path}: no answer within 60 s", _HINT) from None
    head, _, text = ended.stdout.partition("\n\n")
    if not head.startswith("HTTP/"):
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise Failed(f"gh api {path}: {lines[0]}", _HINT)
    status = int(head.split()[1])
    try:
        document = json.loads(text) if text.strip() else None
    except ValueError:
        raise Failed(f"gh api {path}: the answer is not JSON", _HINT) from None
    if status >= 300:
        says = document.get("message") if isinstance(document, dict) else None
        raise GitHubError(status, str(says or "no reason given"), f"{method} {path}")
    return document


def get(path: str) -> Any:
    """Read something; return None if it does not exist.

    Raises:
        Failed: as `send`, except for 404.
    """
    try:
        return send("GET", path)
    except GitHubError as error:
        if error.status != 404:
            raise
        return None
