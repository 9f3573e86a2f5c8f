"""A client of the registry that an environment names: look images up, and push small blobs.

Source: OCI distribution specification v1.1, "Pull", "Push". Artifact Registry takes an access token
as `Authorization: Bearer` (https://cloud.google.com/artifact-registry/docs/docker/authentication).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from scripts.cloud import answers
from scripts.cloud.credentials import is_confidential
from scripts.cloud.google import no_answer
from scripts.cloud.patience import Trouble
from scripts.cloud.session import LARGEST, Session, redirected
from scripts.errors import Failed, UsageError
from scripts.ledger import Write

_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MOST_REDIRECTS = 3
# Seconds to connect, and between two pieces of an answer: a registry takes some to check a layer.
_TIMEOUT = (5.0, 30.0)


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
        newer_token: returns a newer one than a token that was refused for a URL, or None.
        writes: where each blob and manifest that is sent is recorded.
    """

    def __init__(
        self,
        host_url: str,
        session: Session,
        token: Callable[[str], str | None] = lambda _url: None,
        *,
        newer_token: Callable[[str, str], str | None] = lambda _url, _refused: None,
        writes: list[Write] | None = None,
    ) -> None:
        self._host = host_url.rstrip("/")
        self._name = urlsplit(self._host).netloc
        self._session = session
        self._token = token
        self._newer_token = newer_token
        self._writes = [] if writes is None else writes

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
            (_platform(entry.get("platform") or {}), entry["digest"])
            for entry in manifest.get("manifests") or []
        ]
        images = [child for child in children if "unknown" not in child[0]]
        if not manifest.get("manifests"):
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
        if found is None or not found[2].get("layers"):
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
        for entry in (found[2].get("manifests") or []) if found else []:
            annotations = entry.get("annotations") or {}
            if annotations.get("vnd.docker.reference.type") != "attestation-manifest":
                continue
            if attested := self._manifest(repository, entry["digest"]):
                for layer in attested[2].get("layers") or []:
                    types.add((layer.get("annotations") or {}).get("in-toto.io/predicate-type", ""))
        return sorted(types - {""})

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
        media_type = answer.headers.get("Content-Type", "").partition(";")[0]
        return digest, media_type, answers.document(answer, self._name, answers.Manifest)

    def _config(self, repository: str, manifest: dict[str, Any]) -> dict[str, Any]:
        digest = (manifest.get("config") or {}).get("digest")
        if not digest:
            return {}
        config = self._send("GET", f"/v2/{repository}/blobs/{digest}")
        return answers.document(config, self._name, answers.ImageConfig)

    def _push_blob(self, repository: str, digest: str, contents: bytes) -> None:
        """Push a blob that is missing."""
        blob = f"/v2/{repository}/blobs/{digest}"
        if self._send("HEAD", blob, allowed=(404,)).ok:
            return
        uploads = f"/v2/{repository}/blobs/uploads/"

        def attempt() -> None:
            # Restart a broken upload, because its session may not know how much arrived.
            started = self._send("POST", uploads)
            with self._recorded(f"a blob of {_last(repository)}", uploads):
                self._upload(started, digest, contents)

        self._session.patience.persist(attempt)

    def _upload(self, started: requests.Response, digest: str, contents: bytes) -> None:
        """Send a blob's bytes, then close the upload session with its digest."""
        place = self._place(started)
        headers = {"Content-Type": "application/octet-stream"}
        sent = self._send("PATCH", place, data=contents, headers=headers, restarts=True)
        place = self._place(sent, place)
        self._send("PUT", place, params={"digest": digest}, restarts=True)

    def _place(self, answer: requests.Response, place: str = "") -> str:
        """Return where an upload continues: what the answer names, or `place`."""
        named = answer.headers.get("Location") or place
        if not named:
            raise answers.BadAnswer(f"{self._name} does not say where to upload a blob to")
        return urljoin(place or answer.url, named)

    @contextmanager
    def _recorded(self, what: str, path: str) -> Iterator[None]:
        """Record a write, and how it ends."""
        write = Write(what=what, request=f"PUT {self._name}{path}")
        self._writes.append(write)
        try:
            yield
        except UsageError:
            write.outcome = "refused"
            raise
        write.outcome = "done"

    def _send(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        allowed: tuple[int, ...] = (),
        restarts: bool = False,
        largest: int = LARGEST,
        **options: Any,
    ) -> requests.Response:
        """Send one request, which may be repeated: digests name what is written.

        Raises:
            Trouble: it failed for a reason that may pass; only if the caller restarts.
        """
        url = urljoin(f"{self._host}/", path)
        headers = dict(headers or {})
        # An upload's Location may lead to another host, which must not get the token.
        same_host = urlsplit(url)[:2] == urlsplit(self._host)[:2]
        token = self._token(url) if same_host and is_confidential(url) else None

        def ask(token: str | None) -> requests.Response:
            answer = self._session.request(
                method,
                url,
                headers=headers | ({"Authorization": f"Bearer {token}"} if token else {}),
                timeout=_TIMEOUT,
                allow_redirects=False,
                repeatable=True,
                restarts=restarts,
                largest=largest,
                **options,
            )
            return self._moved(answer, largest) if answer.is_redirect else answer

        def end(answer: requests.Response) -> requests.Response:
            if answer.ok or answer.status_code in allowed:
                return answer
            raise _refusal(method, answer)

        try:
            answer = ask(token)
            if answer.status_code == 401 and token:
                newer = self._newer_token(url, token)
                answer = ask(newer) if newer else answer
        except requests.exceptions.RequestException as error:
            raise no_answer(url, error, self._writes) from None
        except Trouble as trouble:
            raise self._ended(trouble, url, end) from None
        return end(answer)

    def _ended(
        self, trouble: Trouble, url: str, end: Callable[[requests.Response], requests.Response]
    ) -> Trouble:
        """Return the same trouble, whose end is an error for people."""

        def ended() -> requests.Response:
            try:
                answer: requests.Response = trouble.end()
            except requests.exceptions.RequestException as error:
                raise no_answer(url, error, self._writes) from None
            return end(answer)

        return Trouble(trouble.what, ended, trouble.after)

    def _moved(self, answer: requests.Response, largest: int) -> requests.Response:
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
                str(request.method),
                url,
                timeout=_TIMEOUT,
                allow_redirects=False,
                largest=largest,
            )
            if not answer.is_redirect:
                return answer
        raise redirected(answer)


def _refusal(method: str, answer: requests.Response) -> Failed | UsageError:
    parts = urlsplit(answer.url)
    evidence: list[str] = []
    try:
        errors = answers.document(answer, parts.netloc, answers.RegistryErrors)["errors"]
        detail = "; ".join(f"{error['code']}: {error.get('message') or ''}" for error in errors)
    except answers.BadAnswer as bad:
        detail, evidence = "", bad.evidence
    message = f"{parts.netloc}: {method} {parts.path}: {answer.status_code} {detail}".rstrip()
    if answer.status_code in (401, 403):
        hint = (
            "pushing needs roles/artifactregistry.writer on the repository, reading needs .reader"
        )
        return UsageError(message, hint, evidence=evidence)
    return Failed(message, evidence=evidence)


def _platform(fields: dict[str, Any]) -> str:
    names = [fields.get("os") or "unknown", fields.get("architecture") or "unknown"]
    return "/".join([*names, fields["variant"]] if fields.get("variant") else names)


def _labels(config: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = (config.get("config") or {}).get("Labels") or {}
    return labels


def _last(repository: str) -> str:
    """Return the last part of a repository's path, as people name an image."""
    return repository.rpartition("/")[2]
