"""What is attached to an image in a registry: OCI artifacts whose subject is the image.

Sources: OCI distribution specification v1.1, "Listing Referrers", "Pushing Manifests with Subject"
and "Referrers Tag Schema" (for a registry without the referrers API); the form of a Sigstore bundle
as an artifact: https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from scripts.cloud.registry import Registry
from scripts.cloud.session import TooLarge
from scripts.errors import Failed

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""The media type of a Sigstore bundle, which is its artifact type, too."""

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_MOST = 50  # attached artifacts that are read: anyone who may push can attach any number
_LARGEST = 1 << 20  # bytes of a bundle; GitHub's have about 12 kB


class Referrers(Registry):
    """The artifacts that are attached to a registry's images."""

    def bundles(self, repository: str, subject: str) -> Iterator[bytes]:
        """Yield the Sigstore bundles that are attached to an image, as they were pushed.

        Args:
            repository: PROJECT/REPOSITORY/IMAGE, without host.
            subject: the image's digest.

        Raises:
            Unreachable: the registry does not answer.
            Failed: it refuses.
        """
        for entry in self._referrers(repository, subject)[:_MOST]:
            if entry.get("artifactType") != BUNDLE:
                continue
            found = self._manifest(repository, entry["digest"])
            layers = found[2].get("layers") if found else None
            if layers and layers[0].get("mediaType") == BUNDLE:
                contents = self._small_blob(repository, str(layers[0].get("digest")))
                if contents is not None:
                    yield contents

    def attach(self, repository: str, subject: str, bundle: bytes, predicate: str) -> bool:
        """Attach a Sigstore bundle to an image.

        Args:
            repository: PROJECT/REPOSITORY/IMAGE, without host.
            subject: the image's digest.
            bundle: the bundle, byte for byte.
            predicate: the predicate type of what it signs.

        Returns:
            False if it was attached before.

        Raises:
            Unreachable: the registry does not answer.
            Failed: it refuses, or it has no such image.
        """
        image = self._manifest(repository, subject)
        if image is None:
            raise Failed(f"{self._host}/{repository} has no image {subject}")
        size = len(self._send("GET", f"/v2/{repository}/manifests/{subject}").content)
        document = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": BUNDLE,
            "config": _descriptor(_EMPTY, b"{}"),
            "layers": [_descriptor(BUNDLE, bundle)],
            "subject": {"mediaType": image[1], "digest": subject, "size": size},
            "annotations": {
                "dev.sigstore.bundle.content": "dsse-envelope",
                "dev.sigstore.bundle.predicateType": predicate,
            },
        }
        contents = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        made = {**_descriptor(_MANIFEST, contents), "artifactType": BUNDLE}
        attached = self._referrers(repository, subject)
        if made["digest"] in [entry["digest"] for entry in attached]:
            return False
        self._push_blob(repository, _digest(b"{}"), b"{}")
        self._push_blob(repository, _digest(bundle), bundle)
        answer = self._put(repository, made["digest"], _MANIFEST, contents)
        if "OCI-Subject" not in answer:  # the registry keeps no list itself
            entries = [*self._by_tag(repository, subject), made]
            index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}
            self._put(repository, _tag(subject), _INDEX, json.dumps(index).encode())
        return True

    def _referrers(self, repository: str, subject: str) -> list[dict[str, Any]]:
        """Return the descriptors of what is attached to an image."""
        answer = self._send(
            "GET",
            f"/v2/{repository}/referrers/{subject}",
            params={"artifactType": BUNDLE},
            allowed=(404,),
        )
        if answer.status_code == 404:
            return self._by_tag(repository, subject)
        return _entries(answer.json())

    def _by_tag(self, repository: str, subject: str) -> list[dict[str, Any]]:
        found = self._manifest(repository, _tag(subject))
        return _entries(found[2]) if found else []

    def _put(self, repository: str, reference: str, media_type: str, contents: bytes) -> Any:
        """Push a manifest; return the headers of the answer."""
        path = f"/v2/{repository}/manifests/{reference}"
        headers = {"Content-Type": media_type}
        return self._send("PUT", path, data=contents, headers=headers).headers

    def _small_blob(self, repository: str, digest: str) -> bytes | None:
        """Read a blob; None if it is too large for a bundle, or is not what its digest says."""
        path = f"/v2/{repository}/blobs/{digest}"
        try:
            contents = self._send("GET", path, allowed=(404,), largest=_LARGEST).content
        except TooLarge:
            return None
        return contents if _digest(contents) == digest else None


def _entries(document: Any) -> list[dict[str, Any]]:
    entries = document.get("manifests") if isinstance(document, dict) else None
    digest = re.compile(r"sha256:[0-9a-f]{64}")
    return [
        entry
        for entry in entries or []
        if isinstance(entry, dict) and digest.fullmatch(str(entry.get("digest")))
    ]


def _tag(subject: str) -> str:
    return subject.replace(":", "-")


def _digest(contents: bytes) -> str:
    return f"sha256:{hashlib.sha256(contents).hexdigest()}"


def _descriptor(media_type: str, contents: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(contents), "size": len(contents)}
