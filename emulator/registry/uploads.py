"""Blobs that are being received (OCI distribution specification, "Pushing blobs")."""

from __future__ import annotations

import hashlib
import threading
import uuid
from pathlib import Path

from emulator import files
from emulator.registry.errors import OciError
from emulator.registry.storage import Storage


class Upload:
    """One upload session: a growing file and the hash of its bytes. Every method blocks.

    It must not have two writers at once: a writer sets `busy`.
    """

    def __init__(self, name: str, upload_id: str, path: Path) -> None:
        self.name = name
        self.id = upload_id
        self.size = 0  # bytes
        self.busy = False
        self._path = path
        self._hash = hashlib.sha256()
        path.touch(exist_ok=False)

    def write(self, chunk: bytes | bytearray) -> None:
        """Append `chunk`."""
        # Opened again for each piece, so that an abandoned session holds no descriptor.
        with self._path.open("ab") as file:
            file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def complete(self, digest: str, storage: Storage) -> None:
        """End the upload: store its bytes as the blob `digest`, or raise DIGEST_INVALID."""
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != digest:
            self.discard()
            raise OciError(
                "DIGEST_INVALID",
                "provided digest did not match uploaded content",
                {"provided": digest, "actual": actual},
            )
        with self._path.open("rb") as file:
            files.sync(file)
        storage.adopt_blob(self._path, digest)

    def discard(self) -> None:
        """Delete the received bytes."""
        self._path.unlink(missing_ok=True)


class Uploads:
    """The open upload sessions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def start(self, name: str) -> Upload:
        """Open a session for a blob of repository `name`."""
        upload_id = uuid.uuid4().hex
        upload = Upload(name, upload_id, self._folder / upload_id)
        with self._lock:
            self._open[upload_id] = upload
        return upload

    def get(self, name: str, upload_id: str) -> Upload:
        """Return the open session, or raise BLOB_UPLOAD_UNKNOWN."""
        upload = self._open.get(upload_id)
        if upload is None or upload.name != name:
            raise OciError("BLOB_UPLOAD_UNKNOWN", "no such upload", {"upload": upload_id})
        return upload

    def forget(self, upload: Upload) -> None:
        """Remove the session from the list. Its file stays: the caller handles it."""
        with self._lock:
            self._open.pop(upload.id, None)
