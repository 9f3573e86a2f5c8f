"""The container's identity, from its environment and Cloud Run's metadata server.

https://cloud.google.com/run/docs/container-contract#env-vars and #metadata-server
"""

from __future__ import annotations

import functools
import os
from http.client import HTTPConnection, HTTPException
from typing import TypedDict

_TIMEOUT = 0.5  # seconds; the metadata server is local and answers in a few milliseconds


class Identity(TypedDict):
    """The commit, revision, service and region that answer."""

    commit: str
    revision: str
    service: str
    region: str


@functools.cache
def identity() -> Identity:
    """Return who this process is: `local` outside Cloud Run, `unknown` for missing values.

    The first call asks the metadata server for the region. Call it in a request, not at startup.
    """
    return Identity(
        commit=os.environ.get("COMMIT_SHA") or "unknown",
        revision=os.environ.get("K_REVISION") or "local",
        service=os.environ.get("K_SERVICE") or "local",
        region=_region(),
    )


@functools.cache
def project() -> str | None:
    """Return the project ID, such as `my-project`; None outside Cloud Run or without an answer."""
    return _metadata("project/project-id")


def _region() -> str:
    """Return the region, such as `europe-west1`, from `projects/NUMBER/regions/REGION`."""
    if not _on_cloud_run():
        return "local"
    return (_metadata("instance/region") or "unknown").rpartition("/")[2]


def _on_cloud_run() -> bool:
    return bool(os.environ.get("K_SERVICE"))


def _metadata(path: str) -> str | None:
    """Return the metadata server's value at `path`, or None. `http.client` uses no proxy."""
    if not _on_cloud_run():
        return None
    host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
    connection = HTTPConnection(host, timeout=_TIMEOUT)
    try:
        connection.request(
            "GET", f"/computeMetadata/v1/{path}", headers={"Metadata-Flavor": "Google"}
        )
        response = connection.getresponse()
        body = response.read().decode()
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return body.strip() if response.status == 200 else None
