"""Shared by the emulator's tests: images, an Admin API client, waiting with a deadline."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import requests

APP = (Path(__file__).parent / "container_app.py").read_bytes()
PROJECT, REGION = "acme", "us-central1"
PATIENCE = 60.0  # seconds: only a hang ever takes so long
T = TypeVar("T")
Document = dict[str, Any]


def eventually(probe: Callable[[], T], patience: float = PATIENCE) -> T:
    """Call `probe` until its result is true, and return the result."""
    deadline = time.monotonic() + patience
    while True:
        result = probe()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {patience} s"
        time.sleep(0.01)


def tar_of(files: dict[str, bytes]) -> bytes:
    """Return a tar file with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class CloudRun:
    """A client of one local Cloud Run. It returns error responses and does not raise them."""

    def __init__(self, url: str, project: str = PROJECT, region: str = REGION) -> None:
        self.url = url
        self.project = project
        self.base = f"{url}/v1/projects/{project}/locations/{region}"
        self.http = requests.Session()

    def push(
        self,
        name: str = "app",
        *,
        files: dict[str, bytes] | None = None,
        config: Document | None = None,
        architecture: str = "amd64",
        into: str = "images",
        layer: bytes | None = None,
    ) -> str:
        """Push an image over /v2/ and return its reference by digest.

        `layer` is its tar file, instead of one of `files`.
        """
        layer = tar_of(files or {"app/main.py": APP}) if layer is None else layer
        settings = {
            "Cmd": ["python", "main.py"],
            "WorkingDir": "/app",
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "FROM_IMAGE=/app:/nowhere"],
            "Labels": {"dev.shipway.builder": "pack"},
            **(config or {}),
        }
        image = {
            "architecture": architecture,
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        repository = f"{self.project}/{into}/{name}"
        kind = "application/vnd.oci.image"
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": self._blob(repository, json.dumps(image).encode(), f"{kind}.config.v1+json"),
            "layers": [
                self._blob(repository, gzip.compress(layer, 1), f"{kind}.layer.v1.tar+gzip")
            ],
        }
        content = json.dumps(manifest).encode()
        put = self.http.put(
            f"{self.url}/v2/{repository}/manifests/latest",
            data=content,
            headers={"Content-Type": f"{kind}.manifest.v1+json"},
        )
        assert put.status_code == 201, put.text
        return f"{REGION}-docker.pkg.dev/{repository}@{_digest(content)}"

    def _blob(self, repository: str, content: bytes, media_type: str) -> Document:
        digest = _digest(content)
        url = f"{self.url}/v2/{repository}/blobs/uploads/?digest={digest}"
        post = self.http.post(
            url, data=content, headers={"Content-Type": "application/octet-stream"}
        )
        assert post.status_code == 201, post.text
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def get(self, name: str) -> Document:
        """Return a service, which must exist."""
        response = self.http.get(f"{self.base}/services/{name}")
        assert response.status_code == 200, response.text
        document: Document = response.json()
        return document

    def revision(self, name: str) -> Document:
        """Return a revision, which must exist."""
        response = self.http.get(f"{self.base}/revisions/{name}")
        assert response.status_code == 200, response.text
        document: Document = response.json()
        return document

    def create(self, document: Document, **params: str) -> requests.Response:
        return self.http.post(f"{self.base}/services", json=document, params=params)

    def replace(self, document: Document, **params: str) -> requests.Response:
        name = document["metadata"]["name"]
        return self.http.put(f"{self.base}/services/{name}", json=document, params=params)

    def settled(self, name: str) -> Document:
        """Return the service once it is Ready or has failed."""

        def probe() -> Document | None:
            service = self.get(name)
            return None if condition(service)["status"] == "Unknown" else service

        return eventually(probe)

    def ready(self, document: Document) -> Document:
        """Create or replace the service, and return it once it is Ready."""
        name = document["metadata"]["name"]
        exists = self.http.get(f"{self.base}/services/{name}").status_code == 200
        response = self.replace(document) if exists else self.create(document)
        assert response.status_code == 200, response.text
        service = self.settled(name)
        assert condition(service)["status"] == "True", service["status"]
        return service

    def shift(self, name: str, traffic: list[Document]) -> Document:
        """Change only the traffic, and return the service once it is Ready."""
        service = self.get(name)
        service["spec"]["traffic"] = traffic
        return self.ready(service)

    def logs(self, filter: str, **body: Any) -> requests.Response:
        names = [f"projects/{self.project}"]
        return self.http.post(
            f"{self.url}/v2/entries:list", json={"resourceNames": names, "filter": filter, **body}
        )


def service(
    name: str,
    image: str,
    revision: str | None = None,
    traffic: list[Document] | None = None,
    **env: str,
) -> Document:
    """Return a Service manifest with one container."""
    container: Document = {"image": image}
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    template: Document = {"spec": {"containers": [container]}}
    if revision:
        template["metadata"] = {"name": revision}
    document: Document = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"template": template},
    }
    if traffic:
        document["spec"]["traffic"] = traffic
    return document


def container(document: Document) -> Document:
    """Return the first container of a service."""
    found: Document = document["spec"]["template"]["spec"]["containers"][0]
    return found


def condition(document: Document, kind: str = "Ready") -> Document:
    """Return a condition of a service or revision."""
    found: Document = next(c for c in document["status"]["conditions"] if c["type"] == kind)
    return found


def tag_url(document: Document, tag: str) -> str:
    """Return the URL of a tag, from the status."""
    return next(str(t["url"]) for t in document["status"]["traffic"] if t.get("tag") == tag)


def is_alive(pid: int) -> bool:
    """Return whether a process runs. A zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
