"""Fit the files to the service that is in the folder that is built. Pure.

Only what the sample brought changes: a value that someone set stays.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from scripts.config import yamledit
from scripts.config.limits import DEFAULT_PORT
from scripts.image import dockerfile, listening
from scripts.image.source import Source
from scripts.init import triggers
from scripts.init.fork import Fork
from scripts.init.tree import Files
from scripts.release.manifest import serving_container

_SAMPLE_CODE = ("start.py", "web/cloud_run.py")
# The comment beside a value that fits only the sample's server, and the values that go with it.
_SAMPLE_MARK = "# gunicorn.conf.py"
_SAMPLE_VALUES: tuple[tuple[str, Any], ...] = (("containerConcurrency", 16), ("timeoutSeconds", 60))
_SAMPLE_CHECKS = ["/version", "/health", "/"]
_SPEC: tuple[str, ...] = ("spec", "template", "spec")
# A route of the application itself: that of a part of it may have a prefix.
_ROUTE = re.compile(r"\b(?:app|application|server)\.(?:get|route)\(\s*[\"'](/[\w./-]*)[\"']")
# Google's front end answers /healthz itself.
_HEALTH = re.compile(r"/(health|healthcheck|health-check|ready|readyz|livez|ping|status)")

_SMOKE = """\
# yaml-language-server: $schema=../smoke.schema.json
# The checks that a revision must pass at its own URL before it gets traffic, and again after each
# step. docs/smoke-checks.md describes every key. If none is listed, one check runs: / must answer,
# and not with 404, 429 or 5xx.
"""
_EXAMPLE = """\
# To list one:
# - name: home
#   path: /
#   expect: {text: Welcome}
"""


def is_sample(names: Collection[str]) -> bool:
    """Return whether the folder that is built, with these files, still holds the sample."""
    return all(name in names for name in _SAMPLE_CODE)


def fit(files: Files, service: str, code: Source) -> Files:
    """Return the files of pipelines/ as the service in the folder needs them.

    Args:
        files: the result of `tree.read`, with the answers.
        service: the service's name.
        code: the folder that is built.
    """
    if "Dockerfile" not in code.texts or is_sample(code.names):
        return files
    folder = f"pipelines/{service}"
    made = dict(files)
    where = f"{folder}/service.yaml"
    made[where] = manifest(files[where], code)
    path = f"{folder}/smoke.yaml"
    if _is_samples_smoke(yamledit.get(files.get(path, ""), [])):
        made[path] = smoke_for(code)
    return triggers.without_pip(made, Fork(made, service).source, code.names)


def smoke(health: str | None) -> str:
    """Return a smoke.yaml with a check of this path, if there is one."""
    if health is None:
        return _SMOKE + _EXAMPLE
    return f"{_SMOKE}- name: health\n  path: {yamledit.scalar(health)}\n"


def smoke_for(code: Source) -> str:
    """Return a smoke.yaml that the service passes, as far as its code tells."""
    routes = [
        path
        for name, text in code.code.items()
        if name != "Dockerfile"
        for path in _ROUTE.findall(text)
        if path != "/healthz"
    ]
    health = next((path for path in routes if _HEALTH.fullmatch(path)), None)
    if health or "/" in routes or not routes:
        return smoke(health)
    # Nothing answers at /, which the check that is built in would ask.
    any_answer = "expect: {status: any} # any answer but 404, 429 and 5xx"
    return f"{_SMOKE}- name: answers\n  path: {yamledit.scalar(routes[0])}\n  {any_answer}\n"


def manifest(text: str, code: Source) -> str:
    """Return a manifest with the port that the service listens on, without the sample's limits."""
    container: list[str | int] = [*_SPEC, "containers", _serving(text)]
    if _SAMPLE_MARK in text:
        for key, value in _SAMPLE_VALUES:
            if yamledit.get(text, [*_SPEC, key]) == value:
                text = yamledit.remove(text, [*_SPEC, key])
        text = yamledit.remove(text, [*container, "startupProbe"])
    port_at = [*container, "ports", 0, "containerPort"]
    old = yamledit.get(text, port_at) or DEFAULT_PORT
    port = listening.find(dockerfile.parse(code.texts["Dockerfile"]), code.code).port
    if port is None or port == old:
        return text
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        for action in ("httpGet", "tcpSocket", "grpc"):
            asked = [*container, kind, action, "port"]
            if yamledit.get(text, asked) == old:
                text = yamledit.replace(text, asked, str(port))
    return yamledit.replace(text, port_at, str(port))


def _serving(text: str) -> int:
    spec = yamledit.get(text, _SPEC)
    index: int = spec["containers"].index(serving_container(spec))
    return index


def _is_samples_smoke(checks: Any) -> bool:
    paths = [one.get("path") for one in checks or [] if isinstance(one, dict)]
    return paths == _SAMPLE_CHECKS and "<title>" in str(checks[-1])
