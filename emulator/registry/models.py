"""What the registry does: repositories, blobs, manifests, tags, referrers. No HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.registry import images
from emulator.registry.errors import OciError
from emulator.registry.names import checked_digest, checked_name, checked_tag, is_digest
from emulator.registry.repositories import Repositories
from emulator.registry.storage import Storage
from emulator.registry.uploads import Upload, Uploads

_BLOBS, _MANIFESTS, _TAGS, _REFERRERS = "_blobs", "_manifests", "_tags", "_referrers"


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as it was pushed: its bytes, and the media type they were pushed with."""

    digest: str
    media_type: str
    contents: bytes

    def json(self) -> dict[str, Any]:
        """The contents, parsed."""
        parsed: dict[str, Any] = json.loads(self.contents)
        return parsed


class Registry:
    """An OCI registry whose state is the folder `root`. One process at a time may serve a folder.

    `repositories` say which names there are, and whose tags stay; without them all may be pushed.

    Every method blocks on the disk. Errors are `OciError`, except where a method says otherwise.
    """

    def __init__(self, root: Path, repositories: Repositories | None = None) -> None:
        self._storage = Storage(root)
        self.rules = repositories
        self._uploads = Uploads(self._storage.uploads)

    def image(self, reference: str, platforms: Collection[str]) -> images.Image:
        """The image that `reference` names, for one of `platforms`: see `images.read`."""
        return images.read(self, reference, platforms)

    # Blobs

    def blob(self, name: str, digest: str) -> Path:
        """The file of a blob that repository `name` holds, or BLOB_UNKNOWN."""
        checked_name(name)
        path = self._storage.blob(checked_digest(digest))
        if not self._storage.has(name, _BLOBS, digest) or not path.is_file():
            raise OciError("BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        return path

    def delete_blob(self, name: str, digest: str) -> None:
        """Take a blob out of repository `name`, or BLOB_UNKNOWN."""
        self.blob(name, digest)
        self._storage.delete(name, _BLOBS, digest)

    def mount_blob(self, name: str, digest: str, source: str) -> bool:
        """Make a blob of repository `source` one of `name` as well; False where that has none."""
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
        """The open session `upload_id`, or BLOB_UPLOAD_UNKNOWN."""
        return self._uploads.get(checked_name(name), upload_id)

    def complete_upload(self, upload: Upload, digest: str) -> None:
        """Make a blob of the upload's bytes, or raise DIGEST_INVALID; the session is over."""
        self._uploads.forget(upload)
        try:
            checked_digest(digest)
        except OciError:
            upload.discard()
            raise
        upload.complete(digest, self._storage)
        self._storage.write(upload.name, _BLOBS, digest)

    def cancel_upload(self, upload: Upload) -> None:
        """Drop the session and what it received."""
        self._uploads.forget(upload)
        upload.discard()

    # Manifests

    def manifest(self, name: str, reference: str) -> Manifest:
        """The manifest that a tag or a digest names, or MANIFEST_UNKNOWN."""
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

        Returns its digest, and its subject's where it has one. Raises MANIFEST_INVALID,
        MANIFEST_BLOB_UNKNOWN where it names a blob or manifest that the repository does not hold,
        DIGEST_INVALID where `reference` is another digest than the contents'.
        """
        checked_name(name)
        digest = f"sha256:{hashlib.sha256(contents).hexdigest()}"
        if is_digest(reference):
            if checked_digest(reference) != digest:
                detail = {"provided": reference, "actual": digest}
                raise OciError("DIGEST_INVALID", "digest did not match the manifest", detail)
        else:
            checked_tag(reference)
        parsed = _parsed(contents, media_type)
        self._check_references(name, parsed)
        self._check_tag(name, reference, digest)
        subject = _digest_of(parsed["subject"]) if parsed.get("subject") else None
        self._storage.add_blob(contents, digest)
        if subject:
            self._storage.write(name, f"{_REFERRERS}/{subject.removeprefix('sha256:')}", digest)
        self._storage.write(name, _MANIFESTS, digest, media_type)
        if not is_digest(reference):
            self._storage.write(name, _TAGS, reference, digest)
        return digest, subject

    def delete_manifest(self, name: str, reference: str) -> None:
        """Delete a tag, or a manifest together with the tags on it; or MANIFEST_UNKNOWN."""
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
        """The names of the repositories that hold a manifest, sorted."""
        return [name for name in self._storage.names() if self._storage.keys(name, _MANIFESTS)]

    def digests(self, name: str) -> list[str]:
        """The digests of the manifests of repository `name`, sorted."""
        keys = self._storage.keys(checked_name(name), _MANIFESTS)
        return [f"sha256:{key}" for key in sorted(keys)]

    def tags(self, name: str) -> list[str]:
        """The tags of repository `name` in the specification's order, or NAME_UNKNOWN."""
        tags = self._storage.keys(checked_name(name), _TAGS)
        if not tags and not self._storage.keys(name, _MANIFESTS):
            raise OciError("NAME_UNKNOWN", "repository name not known to registry", {"name": name})
        return sorted(tags, key=lambda tag: (tag.lower(), tag))

    def tags_of(self, name: str, digest: str) -> list[str]:
        """The tags of repository `name` that name this manifest, sorted."""
        keys = self._storage.keys(checked_name(name), _TAGS)
        return sorted(key for key in keys if self._storage.read(name, _TAGS, key) == digest)

    def pushed(self, name: str, digest: str) -> float:
        """When a manifest came into repository `name`, in seconds since the epoch."""
        return self._storage.written(checked_name(name), _MANIFESTS, checked_digest(digest))

    def tagged(self, name: str, tag: str) -> float:
        """When a tag of repository `name` was last put, in seconds since the epoch."""
        return self._storage.written(checked_name(name), _TAGS, checked_tag(tag))

    def referrers(self, name: str, subject: str) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject is `subject`, which need not exist."""
        checked_name(name)
        kind = f"{_REFERRERS}/{checked_digest(subject).removeprefix('sha256:')}"
        return list(self._descriptors(name, sorted(self._storage.keys(name, kind))))

    def _check_tag(self, name: str, reference: str, digest: str) -> None:
        """The same manifest may be pushed again under its tag, wherever tags stay."""
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
        # A layer with URLs of its own (a "foreign" one) is not pushed to registries.
        blobs += [layer for layer in parsed.get("layers", []) if not layer.get("urls")]
        missing = [d for d in map(_digest_of, blobs) if not self._storage.has(name, _BLOBS, d)]
        children = map(_digest_of, parsed.get("manifests", []))
        missing += [d for d in children if not self._storage.has(name, _MANIFESTS, d)]
        if missing:
            message = "manifest references a manifest or blob unknown to registry"
            raise OciError("MANIFEST_BLOB_UNKNOWN", message, {"digests": missing})


def _parsed(contents: bytes, media_type: str) -> dict[str, Any]:
    """The manifest's JSON, of the shape that the rest of this module relies on."""
    try:
        parsed = json.loads(contents)
    except ValueError as error:
        raise OciError("MANIFEST_INVALID", f"not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise OciError("MANIFEST_INVALID", "not a JSON object")
    if parsed.get("mediaType", media_type) != media_type:
        detail = {"mediaType": parsed["mediaType"], "Content-Type": media_type}
        raise OciError("MANIFEST_INVALID", "mediaType is not the Content-Type", detail)
    for field in ("layers", "manifests"):
        entries = parsed.get(field, [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise OciError("MANIFEST_INVALID", f"{field} is not a list of descriptors")
    for field in ("config", "subject"):
        if not isinstance(parsed.get(field, {}), dict):
            raise OciError("MANIFEST_INVALID", f"{field} is not a descriptor")
    return parsed


def _digest_of(descriptor: dict[str, Any]) -> str:
    digest = descriptor.get("digest")
    if not isinstance(digest, str):
        raise OciError("MANIFEST_INVALID", "a descriptor without a digest", descriptor)
    return checked_digest(digest)
