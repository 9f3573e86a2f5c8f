"""Starts a revision for the first time, and records the result in the revision's conditions."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from typing import Any

from emulator.instances.launch import Launch
from emulator.instances.pool import Instances
from emulator.instances.start_failures import (
    StartFailed,
    image_not_found,
    image_not_supported,
    internal_error,
)
from emulator.names import Key
from emulator.packed import other_interpreter
from emulator.registry.images import Image, ImageNotFound, WrongPlatform
from emulator.run import conditions
from emulator.run.conditions import FALSE, TRUE, State
from emulator.run.launches import launch

Document = dict[str, Any]

_log = logging.getLogger("emulator.run")

_ALL = ("Ready", "ContainerHealthy", "ContainerReady", "ResourcesAvailable")


class Starter:
    """Starts the first instance of a revision.

    `find_image(reference)` looks in the registry. `check_secrets(launch)` raises StartFailed if one
    of the revision's secrets cannot be read.
    """

    def __init__(
        self,
        instances: Instances,
        find_image: Callable[[str], Image],
        check_secrets: Callable[[Launch], None],
    ) -> None:
        self._instances = instances
        self._find_image = find_image
        self._check_secrets = check_secrets

    async def started(self, key: Key, revision: Document) -> Document:
        """Return a copy of `revision` with the conditions of a ready or a failed revision."""
        document = copy.deepcopy(revision)
        try:
            warning = await self._start(key, document)
        except StartFailed as failure:
            states = _failed(failure)
        except Exception:
            # Whatever it is, such as a manifest of an unexpected shape: the client gets an answer.
            _log.exception("Starting %s failed", key.path)
            states = _failed(internal_error())
        else:
            states = dict.fromkeys(_ALL, State(TRUE))
            if warning:
                states["ContainerHealthy"] = State(TRUE, message=warning, severity="Warning")
        for kind, state in states.items():
            conditions.put(document, kind, state)
        return document

    async def _start(self, key: Key, document: Document) -> str:
        """Start an instance; set `imageDigest` in the document's status; raise StartFailed.

        Returns:
            What is not as on Cloud Run; "" if nothing is known.
        """
        first = launch(key, document)
        self._check_secrets(first)
        found = [await self._found(container.image) for container in first.containers]
        document["status"]["imageDigest"] = f"{_repository(first.image)}@{found[0].digest}"
        pool = self._instances.register(launch(key, document))
        try:
            await pool.warm()
        except StartFailed as failure:
            self._instances.forget(key)
            raise failure.with_logs(document["status"]["logUrl"]) from failure
        return " ".join(filter(None, {other_interpreter(image.config): None for image in found}))

    async def _found(self, reference: str) -> Image:
        """Return a container's image; raise StartFailed."""
        try:
            return await asyncio.to_thread(self._find_image, reference)
        except ImageNotFound as error:
            raise image_not_found(reference) from error
        except WrongPlatform as error:
            raise image_not_supported(reference, error.media_type) from error


def _failed(failure: StartFailed) -> dict[str, State]:
    bad = State(FALSE, failure.reason, failure.message)
    return {
        "Ready": bad,
        failure.failed: bad,
        **dict.fromkeys(failure.passed, State(TRUE)),
    }


def _repository(reference: str) -> str:
    """Return an image reference without its tag and digest."""
    name = reference.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(":")[0]
