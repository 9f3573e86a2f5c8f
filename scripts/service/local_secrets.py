"""Secrets at the local Cloud Run: values from `secrets.local.env`, or typed.

The file is in the checkout and never in git: NAME=value lines, with `#` for comments. The Secret
Manager of a real project is not written from here. No value is printed or logged (I9).
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from urllib.parse import urlsplit

from scripts.cloud.google import ApiError, Google, NotFound
from scripts.cloud.session import LOOPBACK
from scripts.config.pipelines import Pipeline
from scripts.errors import Refused, UsageError
from scripts.machine import git

FILE = "secrets.local.env"
# Source: https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets/create
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


def check_is_here(pipeline: Pipeline) -> None:
    """Check that an environment's Secret Manager is on this machine.

    Raises:
        Refused: it is Google's, or another machine's.
    """
    if not pipeline.at_google and urlsplit(str(pipeline.endpoint)).hostname in LOOPBACK:
        return
    raise Refused(
        f"the secrets of {pipeline.env} are in the Secret Manager of"
        f" {pipeline.environment.project}: nothing changed",
        f"gcloud secrets versions add NAME --project={pipeline.environment.project} --data-file=-",
    )


def check_name(name: str) -> str:
    """Return a secret's name; raises UsageError if it cannot be one."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' is not a secret's name", "use letters, digits, hyphens and underscores"
        )
    return name


def read(checkout: Path) -> dict[str, str]:
    """Read the file; {} if there is none.

    Raises:
        UsageError: it is in git, or has a line that is not NAME=value. The message names the line,
            never what is in it.
    """
    try:
        # Not as text, of which Python changes the ends of lines; editors may begin it with a mark.
        text = (checkout / FILE).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{FILE}: cannot be read: {type(error).__name__}") from None
    if git.holds(checkout, FILE):
        raise UsageError(
            f"{FILE} is in git, where everyone can read it",
            f"git rm --cached {FILE}, and give the secrets new values",
        )
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        where = f"{FILE}:{number}"
        name, equals, value = line.partition("=")
        name = name.rstrip(" \t")
        if not equals or not _NAME.fullmatch(name):
            hint = "leave out: export" if name.startswith("export ") else None
            raise UsageError(f"{where}: not NAME=value", hint)
        if name in values:
            raise UsageError(f"{where}: {name} has a value already", "remove one of the two lines")
        values[name] = _value(value.lstrip(" \t"), f"{where}: {name}", name)
    return values


def _value(text: str, where: str, name: str) -> str:
    """Return a value without its quotes; raises UsageError."""
    several = f"for a value of several lines: ./ship secrets set {name} < FILE"
    if text[:1] in ('"', "'"):
        if len(text) < 2 or text[-1] != text[0]:
            raise UsageError(
                f"{where}: the quote at its start is not at the end of the line", several
            )
        text = text[1:-1]
    if not text:
        raise UsageError(f"{where}: no value", several)
    return text


def bring(google: Google, pipeline: Pipeline) -> list[str]:
    """Give the local Cloud Run the values of the file; return the names of those that are new.

    Args:
        google: the local Cloud Run.
        pipeline: the files of one of its services.

    Raises:
        UsageError: the file is wrong.
    """
    if pipeline.at_google or google.dry_run:
        return []
    values = read(pipeline.checkout)
    if values:
        check_is_here(pipeline)
    return [name for name, value in values.items() if put(google, pipeline, name, value.encode())]


def put(google: Google, pipeline: Pipeline, name: str, value: bytes) -> bool:
    """Make a value the newest version of a secret; return False if it is already.

    Args:
        google: the local Cloud Run.
        pipeline: names the project.
        name: the secret's name.
        value: its value.
    """
    secrets = f"/v1/projects/{pipeline.environment.project}/secrets"
    data = base64.b64encode(value).decode()
    try:
        google.get("secretmanager", f"{secrets}/{name}")
    except NotFound:
        google.write(
            "POST", "secretmanager", secrets, {"replication": {"automatic": {}}},
            params={"secretId": name}, what=f"the secret {name}",
        )  # fmt: skip
    else:
        try:
            newest = google.get("secretmanager", f"{secrets}/{name}/versions/latest:access")
            if newest["payload"]["data"] == data:
                return False
        except ApiError:
            pass  # it has no version, or its newest one is disabled
    google.write(
        "POST", "secretmanager", f"{secrets}/{name}:addVersion", {"payload": {"data": data}},
        what=f"a version of the secret {name}",
    )  # fmt: skip
    return True
