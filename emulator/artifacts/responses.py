"""The wire format of Artifact Registry's own API: pages, and deletions as finished operations."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

from emulator.artifacts.models import Artifacts
from emulator.artifacts.repositories import Repositories, Repository
from emulator.errors import invalid
from emulator.operations import EMPTY, TYPES, Operations
from emulator.wire import Document, cut, from_token, json_object, page_size, to_token

_PAGE, _LARGEST_PAGE = 100, 1000
_V1 = "google.devtools.artifactregistry.v1"
_METADATA = {"@type": f"{TYPES}/{_V1}.OperationMetadata"}


class Responses:
    """The handlers for repositories, packages, versions, tags and Docker images.

    `forget(project, repository)` drops the policy of a deleted repository.
    """

    def __init__(
        self,
        artifacts: Artifacts,
        repositories: Repositories,
        operations: Operations,
        forget: Callable[[str, str], None],
    ) -> None:
        self._artifacts = artifacts
        self._repositories = repositories
        self._operations = operations
        self._forget = forget

    async def repositories(self, request: web.Request) -> web.Response:
        """`repositories.list`: the repositories that were created."""
        path = request.match_info
        found = self._repositories.all(path["project"], path["location"])
        return _page(request, "repositories", found)

    async def create_repository(self, request: web.Request) -> web.Response:
        """`repositories.create`."""
        path, name = request.match_info, request.query.get("repositoryId", "")
        at = Repository(path["project"], path["location"], name)
        return self._started(at, self._repositories.create(at, await json_object(request)))

    async def patch_repository(self, request: web.Request) -> web.Response:
        """`repositories.patch`: the answer is the repository, not an operation."""
        mask = request.query.get("updateMask", "")
        at = _repository(request)
        return web.json_response(self._repositories.patch(at, await json_object(request), mask))

    async def delete_repository(self, request: web.Request) -> web.Response:
        """`repositories.delete`: also deletes the images and the policy."""
        at = _repository(request)
        await asyncio.to_thread(self._artifacts.delete_repository, at)
        self._forget(at.project, at.name)
        return self._started(at, None)

    async def operation(self, request: web.Request) -> web.Response:
        """`operations.get`."""
        path = request.match_info
        parent = f"projects/{path['project']}/locations/{path['location']}"
        return web.json_response(self._operations.get(f"{parent}/operations/{path['operation']}"))

    def _started(self, at: Repository, document: Document | None) -> web.Response:
        parent = f"projects/{at.project}/locations/{at.location}/"
        kind = "google.protobuf.Empty" if document is None else f"{_V1}.Repository"
        # The prefix distinguishes these operations from Cloud Run's, which have the same path.
        started = self._operations.start(parent, kind, document or {}, _METADATA, "ar-")
        return web.json_response(started)

    async def repository(self, request: web.Request) -> web.Response:
        """`repositories.get`."""
        return await _read(self._artifacts.repository, _repository(request))

    async def docker_images(self, request: web.Request) -> web.Response:
        """`dockerImages.list`."""
        found = await asyncio.to_thread(self._artifacts.docker_images, _repository(request))
        return _page(request, "dockerImages", found)

    async def docker_image(self, request: web.Request) -> web.Response:
        """`dockerImages.get`."""
        return await _read(
            self._artifacts.docker_image, _repository(request), request.match_info["image"]
        )

    async def packages(self, request: web.Request) -> web.Response:
        """`packages.list`."""
        found = await asyncio.to_thread(self._artifacts.packages, _repository(request))
        return _page(request, "packages", found)

    async def package(self, request: web.Request) -> web.Response:
        """`packages.get`."""
        return await _read(self._artifacts.package, *_package(request))

    async def versions(self, request: web.Request) -> web.Response:
        """`packages.versions.list`."""
        found = await asyncio.to_thread(
            self._artifacts.versions, *_package(request), full=_is_full(request)
        )
        return _page(request, "versions", found)

    async def version(self, request: web.Request) -> web.Response:
        """`packages.versions.get`."""
        digest = request.match_info["version"]
        return await _read(
            self._artifacts.version, *_package(request), digest, full=_is_full(request)
        )

    async def tags(self, request: web.Request) -> web.Response:
        """`packages.tags.list`."""
        found = await asyncio.to_thread(self._artifacts.tags, *_package(request))
        return _page(request, "tags", found)

    async def delete_package(self, request: web.Request) -> web.Response:
        """`packages.delete`."""
        await asyncio.to_thread(self._artifacts.delete_package, *_package(request))
        return _deleted(request)

    async def delete_version(self, request: web.Request) -> web.Response:
        """`packages.versions.delete`: `force` deletes its tags, too."""
        await asyncio.to_thread(
            self._artifacts.delete_version,
            *_package(request),
            request.match_info["version"],
            force=request.query.get("force", "").lower() == "true",
        )
        return _deleted(request)

    async def delete_tag(self, request: web.Request) -> web.Response:
        """`packages.tags.delete`."""
        await asyncio.to_thread(
            self._artifacts.delete_tag, *_package(request), request.match_info["tag"]
        )
        return web.json_response({})


def _repository(request: web.Request) -> Repository:
    path = request.match_info
    return Repository(path["project"], path["location"], path["repository"])


def _package(request: web.Request) -> tuple[Repository, str]:
    return _repository(request), request.match_info["package"]


def _is_full(request: web.Request) -> bool:
    return request.query.get("view") == "FULL"


async def _read(find: Callable[..., Document], *arguments: Any, **options: Any) -> web.Response:
    return web.json_response(await asyncio.to_thread(find, *arguments, **options))


def _page(request: web.Request, field: str, found: list[Document]) -> web.Response:
    refusal = "page_size must not be negative"
    size = page_size(request.query.get("pageSize"), _PAGE, refusal=refusal)
    try:
        after = from_token(request.query.get("pageToken", ""))
    except ValueError:
        raise invalid("invalid page token", "pageToken") from None
    found.sort(key=lambda one: str(one["name"]))
    page, last = cut(found, min(size, _LARGEST_PAGE), after)
    answer: Document = {field: page} if page else {}
    if last:
        answer["nextPageToken"] = to_token(last)
    return web.json_response(answer)


def _deleted(request: web.Request) -> web.Response:
    """Answer a deletion with an operation that is already done."""
    path = request.match_info
    parent = f"projects/{path['project']}/locations/{path['location']}"
    return web.json_response(
        {
            "name": f"{parent}/operations/{uuid.uuid4()}",
            "metadata": _METADATA,
            "done": True,
            "response": {"@type": EMPTY},
        }
    )
