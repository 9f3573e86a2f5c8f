"""Fixtures of the emulator's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.emulator.cloud_run_help import CloudRun


@pytest.fixture(scope="session")
def cloud_run(local_cloud_run) -> Iterator[CloudRun]:
    """A client of the local Cloud Run that a worker's tests share, with an image `app` in it."""
    client = CloudRun(local_cloud_run.url)
    with client.http:
        yield client


@pytest.fixture(scope="session")
def image(cloud_run: CloudRun) -> str:
    """A reference of an image with `container_app.py` in it."""
    return cloud_run.push()


@pytest.fixture
def connect() -> Iterator[Callable[..., CloudRun]]:
    """Makes clients that are closed in the end."""
    clients: list[CloudRun] = []

    def make(url: str, project: str = "acme") -> CloudRun:
        clients.append(CloudRun(url, project))
        return clients[-1]

    yield make
    for client in clients:
        client.http.close()
