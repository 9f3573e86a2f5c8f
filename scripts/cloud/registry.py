"""A client of the registry that an environment names: look images up, and push a packed one.

Source: OCI distribution specification v1.1, "Pull", "Push". Artifact Registry takes an access token
as `Authorization: Bearer` (https://cloud.google.com/artifact-registry/docs/docker/authentication).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import requests

from scripts.cloud.google import is_confidential, unreachable
from scripts.cloud.session import redirected
from scripts.errors import Failed, UsageError

_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_RETRIED = (429, 500, 502, 503, 504)
_ATTEMPTS = 4
_MOST_REDIRECTS = 3
_TIMEOUT = (10, 300)  # seconds to connect, and between two pieces of an answer


class LayerFile(Protocol):
    """A layer to push: its digest, its size in bytes and the file that holds it."""

    @property
    def digest(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def path(self) -> Path: ...


class ImageFiles(Protocol):
    """An image to push: manifest and configuration byte for byte, and its layers."""

    @property
    def manifest(self) -> bytes: ...
    @property
    def media_type(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def config(self) -> bytes: ...
    @property
    def config_digest(self) -> str: ...
    @property
    def layers(self) -> Sequence[LayerFile]: ...


@dataclass(frozen=True)
class Resolved:
    """A manifest or index that is in the registry.

    Attributes:
        digest: sha256:….
        media_type: the manifest's or index's.
        platforms: `os/architecture(/variant)` of each image in it, without attestations.
        labels: of the image's configuration; of the first image where there are several.
    """

    digest: str
    media_type: str
    platforms: tuple[str, ...]
    labels: dict[str, str]


class Registry:
    """One registry.

    Args:
        host_url: `https://HOST` or `http://127.0.0.1:PORT`.
        session: the HTTP session to use.
        token: returns the access token for a URL, or None. Called for https, and for plain http to
            this machine only: credentials never cross a network in the clear.
    """

    def __init__(
        self,
        host_url: str,
        session: requests.Session,
        token: Callable[[str], str | None] = lambda _url: None,
    ) -> None:
        self._host = host_url.rstrip("/")
        self._session = session
        self._token = token

    def resolve(self, repository: str, reference: str) -> Resolved | None:
        """Look up a tag or digest; None if the registry has no such image.

        Raises:
            Unreachable: the registry does not answer.
            Failed: it refuses, or its answer does not match the digest.
        """
        found = self._manifest(repository, reference)
        if found is None:
            return None
        digest, media_type, manifest = found
        children = [
            (_platform(entry.get("platform", {})), entry["digest"])
            for entry in manifest.get("manifests", [])
        ]
        images = [child for child in children if "unknown" not in child[0]]
        if "manifests" not in manifest:
            config = self._config(repository, manifest)
            return Resolved(digest, media_type, (_platform(config),), _labels(config))
        labels: dict[str, str] = {}
        if images and (child := self._manifest(repository, images[0][1])):
            labels = _labels(self._config(repository, child[2]))
        return Resolved(digest, media_type, tuple(name for name, _ in images), labels)

    def has(self, repository: str, reference: str) -> bool:
        """Return whether a tag or digest exists.

        Raises:
            Unreachable: the registry does not answer.
            Failed: it refuses.
        """
        return self._send(
            "HEAD",
            f"/v2/{repository}/manifests/{reference}",
            headers={"Accept": ", ".join(_MANIFEST_TYPES)},
            allowed=(404,),
        ).ok

    def image(
        self, repository: str, reference: str
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Read the manifest and configuration of one image; None for an index or a missing image.

        Raises:
            Unreachable: the registry does not answer.
            Failed: it refuses.
        """
        found = self._manifest(repository, reference)
        if found is None or "layers" not in found[2]:
            return None
        return found[2], self._config(repository, found[2])

    def attestations(self, repository: str, reference: str) -> list[str]:
        """Return the predicate types of an image's attestations, sorted; [] for a plain manifest.

        Source: https://docs.docker.com/build/metadata/attestations/attestation-storage/

        Raises:
            Unreachable: the registry does not answer.
            Failed: it refuses.
        """
        found = self._manifest(repository, reference)
        types: set[str] = set()
        for entry in found[2].get("manifests", []) if found else []:
            annotations = entry.get("annotations") or {}
            if annotations.get("vnd.docker.reference.type") != "attestation-manifest":
                continue
            if attested := self._manifest(repository, entry["digest"]):
                for layer in attested[2].get("layers", []):
                    types.add((layer.get("annotations") or {}).get("in-toto.io/predicate-type", ""))
        return sorted(types - {""})

    def push(
        self,
        repository: str,
        tag: str,
        image: ImageFiles,
        progress: Callable[[str], None],
        *,
        mount_from: str | None = None,
    ) -> str:
        """Push the missing parts of an image; the tag last, so that it never names half an image.

        Args:
            repository: PROJECT/REPOSITORY/IMAGE, without host.
            tag: its new tag.
            image: the image to push.
            progress: called with what was pushed and the number of bytes.
            mount_from: another repository of the registry that may already hold layers.

        Returns:
            The manifest's digest.

        Raises:
            Unreachable: the registry does not answer.
            Failed: it refuses.
        """
        sent = layers = 0
        for layer in image.layers:
            if self._push_blob(repository, layer.digest, layer.path, mount_from):
                sent, layers = sent + layer.size, layers + 1
        self._push_blob(repository, image.config_digest, image.config, None)
        self._send(
            "PUT",
            f"/v2/{repository}/manifests/{tag}",
            data=image.manifest,
            headers={"Content-Type": image.media_type},
        )
        there = len(image.layers) - layers
        progress(f"pushed {_readable(sent)}; layers: {layers} new, {there} already there")
        return image.digest

    def _manifest(self, repository: str, reference: str) -> tuple[str, str, dict[str, Any]] | None:
        """Read the digest, media type and contents of a manifest or index."""
        answer = self._send(
            "GET",
            f"/v2/{repository}/manifests/{reference}",
            headers={"Accept": ", ".join(_MANIFEST_TYPES)},
            allowed=(404,),
        )
        if answer.status_code == 404:
            return None
        digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        expected = reference if ":" in reference else answer.headers.get("Docker-Content-Digest")
        if expected and expected != digest:
            raise Failed(
                f"{self._host}/{repository}: asked for {expected}, got the bytes of {digest}"
            )
        return digest, answer.headers.get("Content-Type", "").partition(";")[0], answer.json()

    def _config(self, repository: str, manifest: dict[str, Any]) -> dict[str, Any]:
        digest = manifest.get("config", {}).get("digest")
        if not digest:
            return {}
        config = self._send("GET", f"/v2/{repository}/blobs/{digest}").json()
        return config if isinstance(config, dict) else {}

    def _push_blob(
        self, repository: str, digest: str, contents: Path | bytes, mount_from: str | None
    ) -> bool:
        """Push a blob that is missing; return whether its bytes had to be sent."""
        blob = f"/v2/{repository}/blobs/{digest}"
        if self._send("HEAD", blob, allowed=(404,)).ok:
            return False
        uploads = f"/v2/{repository}/blobs/uploads/"
        for attempt in range(1, _ATTEMPTS + 1):
            mount = {"mount": digest, "from": mount_from} if mount_from else {}
            started = self._send("POST", uploads, params=mount)
            if started.status_code == 201:
                return False
            # Restart a broken upload, because its session may not know how much arrived.
            try:
                self._upload(started, digest, contents)
            except _Again as again:
                if attempt == _ATTEMPTS:
                    raise again.failed from None
                time.sleep(0.25 * 2**attempt)
                continue
            break
        return True

    def _upload(self, started: requests.Response, digest: str, contents: Path | bytes) -> None:
        """Send a blob's bytes, then close the upload session with its digest."""
        place = urljoin(started.url, started.headers["Location"])
        headers = {"Content-Type": "application/octet-stream"}
        if isinstance(contents, bytes):
            sent = self._send("PATCH", place, data=contents, headers=headers, attempts=1)
        else:
            with contents.open("rb") as file:
                sent = self._send("PATCH", place, data=file, headers=headers, attempts=1)
        place = urljoin(place, sent.headers.get("Location", place))
        self._send("PUT", place, params={"digest": digest}, attempts=1)

    def _send(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        allowed: tuple[int, ...] = (),
        attempts: int = _ATTEMPTS,
        **options: Any,
    ) -> requests.Response:
        """Send one request, with retries; `attempts=1` leaves them to the caller."""
        url = urljoin(f"{self._host}/", path)
        headers = dict(headers or {})
        # An upload's Location may lead to another host, which must not get the token.
        same_host = urlsplit(url)[:2] == urlsplit(self._host)[:2]
        if same_host and is_confidential(url) and (token := self._token(url)):
            headers["Authorization"] = f"Bearer {token}"
        for attempt in range(1, attempts + 1):
            try:
                answer = self._session.request(
                    method,
                    url,
                    headers=headers,
                    timeout=_TIMEOUT,
                    allow_redirects=False,
                    **options,
                )
                if answer.is_redirect:
                    answer = self._moved(answer)
            except requests.exceptions.ConnectionError as error:
                raise unreachable(url, error) from None
            except requests.exceptions.RequestException as error:
                raise Failed(f"{method} {url}: {type(error).__name__}: {error}") from None
            if answer.status_code not in _RETRIED:
                break
            if attempts == 1:
                raise _Again(_refusal(method, answer))
            if attempt < attempts:
                time.sleep(0.25 * 2**attempt)
        if answer.ok or answer.status_code in allowed:
            return answer
        raise _refusal(method, answer)

    def _moved(self, answer: requests.Response) -> requests.Response:
        """Read a blob from the storage that the registry redirects to, without credentials.

        Raises:
            Failed: another request is redirected, or anyone could read this one.
        """
        request = answer.request
        for _ in range(_MOST_REDIRECTS):
            url = urljoin(answer.url, answer.headers["Location"])
            is_blob = request.method in ("GET", "HEAD") and "/blobs/sha256:" in str(request.url)
            if not is_blob or not is_confidential(url):
                break
            answer.close()
            answer = self._session.request(
                str(request.method), url, timeout=_TIMEOUT, allow_redirects=False
            )
            if not answer.is_redirect:
                return answer
        raise redirected(answer)


class _Again(Exception):
    """An upload that may be restarted; `failed` is the error after the last attempt."""

    def __init__(self, failed: Failed | UsageError) -> None:
        super().__init__(failed.message)
        self.failed = failed


def _refusal(method: str, answer: requests.Response) -> Failed | UsageError:
    try:
        errors = answer.json()["errors"]
        detail = "; ".join(f"{error['code']}: {error.get('message', '')}" for error in errors)
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:500].strip()
    parts = urlsplit(answer.url)
    message = f"{parts.netloc}: {method} {parts.path}: {answer.status_code} {detail}".rstrip()
    if answer.status_code in (401, 403):
        hint = (
            "pushing needs roles/artifactregistry.writer on the repository, reading needs .reader"
        )
        return UsageError(message, hint)
    return Failed(message)


def _platform(fields: dict[str, Any]) -> str:
    names = [fields.get("os") or "unknown", fields.get("architecture") or "unknown"]
    return "/".join([*names, fields["variant"]] if fields.get("variant") else names)


def _labels(config: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = (config.get("config") or {}).get("Labels") or {}
    return labels


def _readable(size: int) -> str:
    """Format a number of bytes: 512 B, 10.4 kB, 2.3 MB."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
