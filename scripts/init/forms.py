"""The forms of what `init` is told; each returns what it was given, in its one written form."""

from __future__ import annotations

import re
from typing import Any, get_args

from scripts.config import formats
from scripts.errors import UsageError

_NO_ENVIRONMENTS = ("service", "smoke", "schema", "local")


def service(text: str) -> str:
    """A service's name.

    Source: https://cloud.google.com/run/docs/reference/rest/v1/namespaces.services (metadata.name)

    Raises:
        UsageError: Cloud Run would not take it.
    """
    if not re.fullmatch(r"[a-z](?:[a-z0-9-]{0,47}[a-z0-9])?", text):
        raise UsageError(
            f"'{text}' is no name for a service: lower-case letters, digits and hyphens,"
            " at most 49, a letter first and no hyphen last"
        )
    return text


def project(text: str) -> str:
    """A project's id.

    Source: https://cloud.google.com/resource-manager/docs/creating-managing-projects
    """
    if not re.fullmatch(_pattern(formats.Project), text):
        raise UsageError(
            f"'{text}' is no project id: 6 to 30 lower-case letters, digits and hyphens,"
            " a letter first and no hyphen last"
        )
    return text


def regions(text: str) -> list[str]:
    """Regions, separated by commas."""
    found = _words(text)
    for region in found or [text]:
        if not re.fullmatch(_pattern(formats.Region), region):
            raise UsageError(f"'{region}' has not the form of a region, such as europe-west1")
    return found


def registry(text: str) -> str:
    """An Artifact Registry repository: HOST/PROJECT/REPOSITORY."""
    if not re.fullmatch(_pattern(formats.Registry), text):
        raise UsageError(
            f"'{text}' is no registry: HOST/PROJECT/REPOSITORY,"
            " such as europe-west1-docker.pkg.dev/my-project/services"
        )
    return text


def repository(text: str) -> str:
    """A GitHub repository: OWNER/NAME; its address is taken too.

    Source: https://docs.github.com/en/admin/identity-and-access-management (user names)
    """
    slug = re.sub(r"^(https://github\.com/|git@github\.com:)", "", text).removesuffix(".git")
    if not re.fullmatch(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/[A-Za-z0-9._-]{1,100}", slug):
        raise UsageError(f"'{text}' is no GitHub repository: OWNER/NAME")
    return slug


def environments(text: str) -> list[str]:
    """Names of environments, separated by commas, in the order in which a commit meets them."""
    found = _words(text)
    for name in found or [text]:
        environment(name)
    return found


def environment(name: str) -> str:
    """One environment's name: that of its file."""
    if not re.fullmatch(r"[a-z](?:[a-z0-9-]{0,28}[a-z0-9])?", name):
        raise UsageError(
            f"'{name}' is no name for an environment: lower-case letters, digits and hyphens"
        )
    if name in _NO_ENVIRONMENTS:
        raise UsageError(f"'{name}' is taken: call the environment something else")
    return name


def folder(text: str) -> str:
    """A folder of the repository, from its root."""
    path = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", path) or ".." in path.split("/"):
        raise UsageError(f"'{text}' is no folder of this repository")
    return path


def of_each(given: list[str]) -> dict[str, str]:
    """--project ENV=ID, once for each environment."""
    found = {}
    for pair in given:
        name, equals, identifier = pair.partition("=")
        if not equals:
            raise UsageError(f"--project {pair}: say of which environment: --project ENV={pair}")
        found[environment(name)] = project(identifier)
    return found


def _words(text: str) -> list[str]:
    words = [word for word in re.split(r"[,\s]+", text.strip("[] ")) if word]
    return list(dict.fromkeys(words))


def _pattern(annotated: Any) -> str:
    """The pattern that files are checked with."""
    return str(get_args(annotated)[1].pattern)
