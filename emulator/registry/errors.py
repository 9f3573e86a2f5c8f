"""The errors of the OCI distribution specification, section "Error Codes"."""

from __future__ import annotations

# Code → HTTP status. The specification leaves most statuses to the registry; these are those of
# the reference implementation (distribution/distribution).
STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "PAGINATION_NUMBER_INVALID": 400,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "UNSUPPORTED": 405,
}


class OciError(Exception):
    """A request that the registry answers with an error body.

    `code` is a key of `STATUS`. `message` is for people, `detail` for programs (any JSON value).
    `status` overrides the HTTP status of the code.
    """

    def __init__(
        self, code: str, message: str, detail: object = None, *, status: int | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.detail = detail
        self.status = STATUS[code] if status is None else status


class RangeInvalid(OciError):
    """A chunk that does not start at the upload's current size: 416, with the upload's state."""

    def __init__(self, upload_id: str, size: int, asked: str) -> None:
        super().__init__(
            "BLOB_UPLOAD_INVALID",
            f"the upload is at byte {size}, the chunk starts at {asked}",
            {"upload": upload_id, "size": size},
            status=416,
        )
        self.upload_id = upload_id
        self.size = size
