"""The registry without HTTP: repositories, blobs, manifests, tags and referrers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from emulator.hashes import digest_of
from emulator.registry.errors import OciError
from emulator.registry.names import checked_digest, checked_name, checked_tag, is_digest
from emulator.registry.storage import Storage
from emulator.registry.uploads import Upload, Uploads

_BLOBS, _MANIFESTS, _TAGS, _REFERRERS = "_blobs", "_manifests", "_tags", "_referrers"


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as it was pushed: its bytes and the media type of the push."""

    digest: str
    media_type: str
    contents: bytes

    def json(self) -> dict[str, Any]:
        """Return the contents, parsed."""
        parsed: dict[str, Any] = json.loads(self.contents)
        return parsed


class Rules(Protocol):
    """The rules of Artifact Registry's repositories for the registry."""

    def check_name(self, name: str) -> None:
        """Raise OciError NAME_UNKNOWN for an image in a repository that does not exist."""

    def check_tag(self, name: str, tag: str, *, verb: str = "update") -> None:
        """Raise OciError MANIFEST_INVALID if the tags of the image `name` are immutable."""


class Registry:
    """An OCI registry that keeps its state in the folder `root`.

    Only one process at a time may serve a folder. Without `rules`, any name may be pushed and any
    tag may move. Every method blocks on the disk and raises OciError; the docstrings name the code.
    """

    def __init__(self, root: Path, rules: Rules | None = None) -> None:
        self._storage = Storage(root)
        self.rules = rules
        self._uploads = Uploads(self._storage.uploads)

    # Blobs

    def blob(self, name: str, digest: str) -> Path:
        """Return the file of a blob in repository `name`, or raise BLOB_UNKNOWN."""
        checked_name(name)
        path = self._storage.blob(checked_digest(digest))
        if not self._storage.has(name, _BLOBS, digest) or not path.is_file():
            raise OciError("BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        return path

    def delete_blob(self, name: str, digest: str) -> None:
        """Remove a blob from repository `name`, or raise BLOB_UNKNOWN."""
        self.blob(name, digest)
        self._storage.delete(name, _BLOBS, digest)

    def mount_blob(self, name: str, digest: str, source: str) -> bool:
        """Add a blob of repository `source` to `name` too; return False if `source` lacks it."""
        checked_name(name)
        try:
            self.blob(source, digest)
        except OciError:
            return False
        self._storage.write(name, _BLOBS, digest)
        return True

    def start_upload(self, name: str) -> Upload:
        """Open an upload session for repository `name`."""
        return self._uploads.start(checked_name(name))

    def upload(self, name: str, upload_id: str) -> Upload:
        """Return the open session `upload_id`, or raise BLOB_UPLOAD_UNKNOWN."""
        return self._uploads.get(checked_name(name), upload_id)

    def complete_upload(self, upload: Upload, digest: str) -> None:
        """End the session and store its bytes as a blob, or raise DIGEST_INVALID."""
        self._uploads.forget(upload)
        try:
            checked_digest(digest)
        except OciError:
            upload.discard()
            raise
        upload.complete(digest, self._storage)
        self._storage.write(upload.name, _BLOBS, digest)

    def cancel_upload(self, upload: Upload) -> None:
        """End the session and discard the bytes that it received."""
        self._uploads.forget(upload)
        upload.discard()

    # Manifests

    def manifest(self, name: str, reference: str) -> Manifest:
        """Return the manifest that a tag or a digest names, or raise MANIFEST_UNKNOWN."""
        checked_name(name)
        digest: str | None = reference
        if is_digest(reference):
            checked_digest(reference)
        else:
            digest = self._storage.read(name, _TAGS, checked_tag(reference))
        media_type = digest and self._storage.read(name, _MANIFESTS, digest)
        if not digest or not media_type:
            detail = {"name": name, "reference": reference}
            raise OciError("MANIFEST_UNKNOWN", "manifest unknown to registry", detail)
        return Manifest(digest, media_type, self._storage.blob(digest).read_bytes())

    def put_manifest(
        self, name: str, reference: str, media_type: str, contents: bytes
    ) -> tuple[str, str | None]:
        """Store a manifest under its digest, and under a tag if `reference` is one.

        Returns:
            The manifest's digest, and the digest of its subject or None.

        Raises:
            OciError: MANIFEST_INVALID; MANIFEST_BLOB_UNKNOWN if it names a blob or manifest that
                the repository does not hold; DIGEST_INVALID if `reference` is a digest but not
                that of `contents`.
        """
        checked_name(name)
        digest = digest_of(contents)
        if is_digest(reference):
            if checked_digest(reference) != digest:
                detail = {"provided": reference, "actual": digest}
                raise OciError("DIGEST_INVALID", "digest did not match the manifest", detail)
        else:
            checked_tag(reference)
        parsed = _parsed(contents, media_type)
        self._check_references(name, parsed)
        self._check_tag(name, reference, digest)
        subject = _digest_in(parsed["subject"]) if parsed.get("subject") else None
        self._storage.add_blob(contents, digest)
        if subject:
            self._storage.write(name, f"{_REFERRERS}/{subject.removeprefix('sha256:')}", digest)
        self._storage.write(name, _MANIFESTS, digest, media_type)
        if not is_digest(reference):
            self._storage.write(name, _TAGS, reference, digest)
        return digest, subject

    def delete_manifest(self, name: str, reference: str) -> None:
        """Delete a tag, or a manifest together with its tags, or raise MANIFEST_UNKNOWN."""
        manifest = self.manifest(name, reference)
        if not is_digest(reference):
            self._storage.delete(name, _TAGS, reference)
            return
        for tag in self._storage.keys(name, _TAGS):
            if self._storage.read(name, _TAGS, tag) == manifest.digest:
                self._storage.delete(name, _TAGS, tag)
        self._storage.delete(name, _MANIFESTS, manifest.digest)

    # Discovery

    def repositories(self) -> list[str]:
        """Return the names of the repositories that hold a manifest, sorted."""
        return [name for name in self._storage.names() if self._storage.keys(name, _MANIFESTS)]

    def digests(self, name: str) -> list[str]:
        """Return the digests of the manifests of repository `name`, sorted."""
        keys = self._storage.keys(checked_name(name), _MANIFESTS)
        return [f"sha256:{key}" for key in sorted(keys)]

    def tags(self, name: str) -> list[str]:
        """Return the tags of repository `name` in the specification's order.

        Raises:
            OciError: NAME_UNKNOWN if the repository holds neither tags nor manifests.
        """
        tags = self._storage.keys(checked_name(name), _TAGS)
        if not tags and not self._storage.keys(name, _MANIFESTS):
            raise OciError("NAME_UNKNOWN", "repository name not known to registry", {"name": name})
        return sorted(tags, key=lambda tag: (tag.lower(), tag))

    def tags_of(self, name: str, digest: str) -> list[str]:
        """Return the tags of repository `name` that point at this manifest, sorted."""
        keys = self._storage.keys(checked_name(name), _TAGS)
        return sorted(key for key in keys if self._storage.read(name, _TAGS, key) == digest)

    def pushed(self, name: str, digest: str) -> float:
        """Return when a manifest was pushed to repository `name`, in seconds since the epoch."""
        return self._storage.written(checked_name(name), _MANIFESTS, checked_digest(digest))

    def tagged(self, name: str, tag: str) -> float:
        """Return when a tag of repository `name` was last written, in seconds since the epoch."""
        return self._storage.written(checked_name(name), _TAGS, checked_tag(tag))

    def referrers(self, name: str, subject: str) -> list[dict[str, Any]]:
        """Return descriptors of the manifests whose subject is `subject`, which need not exist."""
        checked_name(name)
        kind = f"{_REFERRERS}/{checked_digest(subject).removeprefix('sha256:')}"
        return list(self._descriptors(name, sorted(self._storage.keys(name, kind))))

    def _check_tag(self, name: str, reference: str, digest: str) -> None:
        """Let an immutable tag be pushed again only if it keeps its manifest."""
        if is_digest(reference) or self.rules is None:
            return
        if self._storage.read(name, _TAGS, reference) not in (None, digest):
            self.rules.check_tag(name, reference)

    def _descriptors(self, name: str, keys: list[str]) -> Iterator[dict[str, Any]]:
        for key in keys:
            try:
                manifest = self.manifest(name, f"sha256:{key}")
            except OciError:  # deleted since
                continue
            parsed = manifest.json()
            descriptor = {
                "mediaType": manifest.media_type,
                "digest": manifest.digest,
                "size": len(manifest.contents),
                "artifactType": parsed.get("artifactType")
                or parsed.get("config", {}).get("mediaType"),
                "annotations": parsed.get("annotations"),
            }
            yield {field: value for field, value in descriptor.items() if value is not None}

    def _check_references(self, name: str, parsed: dict[str, Any]) -> None:
        blobs = [parsed["config"]] if "config" in parsed else []
        # A layer with its own URLs (a "foreign" layer) is not pushed to registries.
        blobs += [layer for layer in parsed.get("layers", []) if not layer.get("urls")]
        missing = [d for d in map(_digest_in, blobs) if not self._storage.has(name, _BLOBS, d)]
        children = map(_digest_in, parsed.get("manifests", []))
        missing += [d for d in children if not self._storage.has(name, _MANIFESTS, d)]
        if missing:
            message = "manifest references a manifest or blob unknown to registry"
            raise OciError("MANIFEST_BLOB_UNKNOWN", message, {"digests": missing})


def _parsed(contents: bytes, media_type: str) -> dict[str, Any]:
    """Return the manifest's JSON, checked for the shape that this module relies on."""
    try:
        parsed = json.loads(contents)
    except (ValueError, RecursionError) as error:
        raise OciError("MANIFEST_INVALID", f"not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise OciError("MANIFEST_INVALID", "not a JSON object")
    if parsed.get("mediaType", media_type) != media_type:
        detail = {"mediaType": parsed["mediaType"], "Content-Type": media_type}
        raise OciError("MANIFEST_INVALID", "mediaType is not the Content-Type", detail)
    for field in ("layers", "manifests"):
        entries = parsed.get(field, [])
        if not isinstance(entries, list) or not all(map(_is_descriptor, entries)):
            raise OciError("MANIFEST_INVALID", f"{field} is not a list of descriptors")
    for field in ("config", "subject"):
        if not _is_descriptor(parsed.get(field, {})):
            raise OciError("MANIFEST_INVALID", f"{field} is not a descriptor")
    return parsed


def _is_descriptor(entry: Any) -> bool:
    """Whether the fields that others read have the types of the image specification."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("size", 0), int)
        and isinstance(entry.get("platform") or {}, dict)
    )


def _digest_in(descriptor: dict[str, Any]) -> str:
    digest = descriptor.get("digest")
    if not isinstance(digest, str):
        raise OciError("MANIFEST_INVALID", "a descriptor without a digest", descriptor)
    return checked_digest(digest)
