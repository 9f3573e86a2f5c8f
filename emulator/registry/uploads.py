"""Blobs on their way in (OCI distribution specification, "Pushing blobs")."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from pathlib import Path

from emulator.registry.errors import OciError
from emulator.registry.storage import Storage


class Upload:
    """One upload session: a file that grows, and the hash of what is in it. Blocking.

    Not for two writers at once; `busy` is set by whoever writes.
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
        # Opened anew for each piece: a session that its client abandons holds no descriptor.
        with self._path.open("ab") as file:
            file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def complete(self, digest: str, storage: Storage) -> None:
        """Make the blob `digest` of it, or raise DIGEST_INVALID; either way the upload is over."""
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != digest:
            self.discard()
            raise OciError(
                "DIGEST_INVALID",
                "provided digest did not match uploaded content",
                {"provided": digest, "actual": actual},
            )
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        storage.adopt_blob(self._path, digest)

    def discard(self) -> None:
        """Drop what was received."""
        self._path.unlink(missing_ok=True)


class Uploads:
    """The sessions that are open."""

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
        """The open session, or BLOB_UPLOAD_UNKNOWN."""
        upload = self._open.get(upload_id)
        if upload is None or upload.name != name:
            raise OciError("BLOB_UPLOAD_UNKNOWN", "no such upload", {"upload": upload_id})
        return upload

    def forget(self, upload: Upload) -> None:
        """Take the session off the list; its file is the caller's concern."""
        with self._lock:
            self._open.pop(upload.id, None)
