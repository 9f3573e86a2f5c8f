"""Check the answers to `init`. Each function returns the answer in its normal form."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scripts.config import formats
from scripts.config.yamlfile import description
from scripts.errors import UsageError

_NO_ENVIRONMENTS = ("service", "smoke", "schema", "local")


def service(text: str) -> str:
    """Check a service's name.

    Raises:
        UsageError: Cloud Run would not accept it.
    """
    if not formats.matches(text, formats.ServiceName):
        raise UsageError(f"'{text}' is not a service name: {description(formats.ServiceName)}")
    return text


def services(text: str) -> list[str]:
    """Check names of services, separated by commas."""
    return [service(name) for name in _words(text) or [text]]


def project(text: str) -> str:
    """Check a project's ID.

    Source: https://cloud.google.com/resource-manager/docs/creating-managing-projects
    """
    if not formats.matches(text, formats.Project):
        raise UsageError(
            f"'{text}' is not a project ID: 6 to 30 lower-case letters, digits and hyphens,"
            " starting with a letter and not ending with a hyphen"
        )
    return text


def regions(text: str) -> list[str]:
    """Check regions, separated by commas."""
    found = _words(text)
    for region in found or [text]:
        if not formats.matches(region, formats.Region):
            raise UsageError(f"'{region}' is not a region, such as europe-west1")
    return found


def registry(text: str) -> str:
    """Check a repository in Artifact Registry: HOST/PROJECT/REPOSITORY."""
    if not formats.matches(text, formats.Registry):
        raise UsageError(
            f"'{text}' is not a registry: HOST/PROJECT/REPOSITORY,"
            " such as europe-west1-docker.pkg.dev/my-project/services"
        )
    return text


def repository(text: str) -> str:
    """Check a GitHub repository: OWNER/NAME, or its address.

    Source: https://docs.github.com/en/admin/identity-and-access-management (user names)
    """
    slug = re.sub(r"^(https://github\.com/|git@github\.com:)", "", text).removesuffix(".git")
    if not re.fullmatch(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/[A-Za-z0-9._-]{1,100}", slug):
        raise UsageError(f"'{text}' is not a GitHub repository: OWNER/NAME")
    return slug


def environments(text: str) -> list[str]:
    """Check names of environments, separated by commas."""
    found = _words(text)
    for name in found or [text]:
        environment(name)
    return found


def environment(name: str) -> str:
    """Check an environment's name, which is also its file's."""
    if not re.fullmatch(r"[a-z](?:[a-z0-9-]{0,28}[a-z0-9])?", name):
        raise UsageError(
            f"'{name}' is not an environment name: at most 30 lower-case letters, digits and"
            " hyphens, starting with a letter and not ending with a hyphen"
        )
    if name in _NO_ENVIRONMENTS:
        raise UsageError(f"'{name}' is reserved: give the environment another name")
    return name


def folder(text: str) -> str:
    """Check a folder of the repository, relative to its root."""
    path = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", path) or ".." in path.split("/"):
        raise UsageError(f"'{text}' is not a folder of this repository")
    return path


def of_each(given: Sequence[str]) -> dict[str, str]:
    """Check the values of --project, ENV=ID each. Returns environment -> project ID."""
    found = {}
    for pair in given:
        name, equals, identifier = pair.partition("=")
        if not equals:
            raise UsageError(f"--project {pair}: name the environment: --project ENV={pair}")
        found[environment(name)] = project(identifier)
    return found


def _words(text: str) -> list[str]:
    words = [word for word in re.split(r"[,\s]+", text.strip("[] ")) if word]
    return list(dict.fromkeys(words))
