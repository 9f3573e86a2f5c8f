"""A registry in a thread, and minimal images for it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from aiohttp import web

from emulator import routes
from emulator.permissions import OPEN
from emulator.registry import urls
from emulator.registry.models import Registry
from emulator.routes import Route

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(contents: bytes) -> str:
    return f"sha256:{hashlib.sha256(contents).hexdigest()}"


@contextmanager
def serving(registry: Registry) -> Iterator[str]:
    """Serve `registry` from its own thread; yield the base URL."""

    async def entries(_request: web.Request) -> web.Response:
        return web.json_response({"entries": []})

    app = web.Application()
    # The local Cloud Run serves this path, too.
    others = [Route("POST", "/v2/entries:list", entries, OPEN)]
    routes.add(app, [*urls.routes(registry), *others])
    runner = web.AppRunner(app, shutdown_timeout=1)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


class Client:
    """Requests to one repository, with shortcuts that push blobs, manifests and images."""

    def __init__(self, url: str, name: str) -> None:
        self.host = url
        self.name = name
        self.session = requests.Session()
        self.session.trust_env = False

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request below /v2/<name>, or to a Location."""
        url = path if path.startswith("/v2/") else f"/v2/{self.name}{path}"
        return self.session.request(method, self.host + url, timeout=60, **options)

    def blob(self, contents: bytes) -> dict[str, Any]:
        """Push a blob; return its descriptor, with the media type of a layer."""
        digest = digest_of(contents)
        answer = self("POST", f"/blobs/uploads/?digest={digest}", data=contents)
        assert answer.status_code == 201, answer.text
        return {"mediaType": LAYER, "digest": digest, "size": len(contents)}

    def manifest(self, document: dict[str, Any], reference: str | None = None) -> str:
        """Push a manifest under `reference`, by default its digest; return the digest."""
        body = json.dumps(document).encode()
        digest = digest_of(body)
        headers = {"Content-Type": document["mediaType"]}
        answer = self("PUT", f"/manifests/{reference or digest}", data=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return digest

    def image(
        self,
        tag: str | None = None,
        platform: str = "linux/amd64",
        labels: dict[str, str] | None = None,
        **extra: Any,
    ) -> dict[str, Any]:
        """Push an image with one small layer; return its descriptor with its platform."""
        os_name, architecture = platform.split("/")
        of_containers = {"Env": ["A=1"], "Labels": labels or {}}
        config = {"os": os_name, "architecture": architecture, "config": of_containers}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(config).encode()) | {"mediaType": CONFIG},
            "layers": [self.blob(f"a layer for {platform}".encode())],
        } | extra
        return {
            "mediaType": MANIFEST,
            "digest": self.manifest(document, tag),
            "size": len(json.dumps(document)),
            "platform": {"os": os_name, "architecture": architecture},
        }


def labels_of(commit: str, time: int) -> dict[str, str]:
    """Return the labels by which `ship` knows an image of a commit that has this Unix time."""
    return {
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.created": datetime.fromtimestamp(time, UTC).isoformat(),
        "org.opencontainers.image.source": "https://github.com/acme/shop",
    }


def code_of(answer: requests.Response) -> str:
    """Check an error body's shape, and return the code of its only error."""
    (error,) = answer.json()["errors"]
    assert error["message"]
    code: str = error["code"]
    return code


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
