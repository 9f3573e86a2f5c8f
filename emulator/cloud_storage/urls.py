"""Cloud Storage's routes.

Source: https://cloud.google.com/storage/docs/access-control/iam-json (the permission of each).
"""

from __future__ import annotations

from emulator.cloud_storage.models import Buckets
from emulator.cloud_storage.responses import Responses, answering
from emulator.permissions import Asks, On
from emulator.routes import Route

_BUCKETS = "/storage/v1/b"
_BUCKET = f"{_BUCKETS}/{{bucket}}"
_OBJECTS = f"{_BUCKET}/o"
_OBJECT = f"{_OBJECTS}/{{object:.+}}"
_NAMED = "{bucket}"
READS = Asks("storage.objects.get", On.OBJECT, _NAMED)
"""What reading an object asks for, in each API."""


def routes(buckets: Buckets) -> list[Route]:
    """Return Cloud Storage's routes."""
    answer = Responses(buckets)
    creates = Asks("storage.objects.create", On.OBJECT, _NAMED)
    uploads = [
        (method, f"{start}/storage/v1/b/{{bucket}}/o", answering(handler), creates)
        for start in ("/upload", "/resumable/upload")
        for method, handler in (("POST", answer.upload), ("PUT", answer.resume))
    ]
    return [
        Route("GET", _BUCKETS, answer.list_buckets, _on_project("list")),
        Route("POST", _BUCKETS, answer.create_bucket, _on_project("create")),
        Route("GET", _BUCKET, answer.get_bucket, _on_bucket("get")),
        Route("PATCH", _BUCKET, answer.patch_bucket, _on_bucket("update")),
        Route("GET", _OBJECTS, answer.list_objects, _on_object("list")),
        Route("GET", _OBJECT, answer.get_object, READS),
        Route("DELETE", _OBJECT, answer.delete_object, _on_object("delete")),
        *(Route(*upload) for upload in uploads),
    ]


def _on_project(verb: str) -> Asks:
    return Asks(f"storage.buckets.{verb}", On.PROJECT, "projects")


def _on_bucket(verb: str) -> Asks:
    return Asks(f"storage.buckets.{verb}", On.BUCKET, _NAMED)


def _on_object(verb: str) -> Asks:
    return Asks(f"storage.objects.{verb}", On.OBJECT, _NAMED)
