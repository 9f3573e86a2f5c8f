"""Fixtures of the emulator's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.emulator.cloud_run_help import CloudRun


@pytest.fixture(scope="session")
def cloud_run(local_cloud_run) -> Iterator[CloudRun]:
    """Yield a client of the local Cloud Run that the tests of a worker share."""
    client = CloudRun(local_cloud_run.url)
    with client.http:
        yield client


@pytest.fixture(scope="session")
def image(cloud_run: CloudRun) -> str:
    """Return the reference of an image that holds `container_app.py`."""
    return cloud_run.push()


@pytest.fixture
def connect() -> Iterator[Callable[..., CloudRun]]:
    """Yield a function that makes clients, which are closed after the test."""
    clients: list[CloudRun] = []

    def make(url: str, project: str = "acme") -> CloudRun:
        clients.append(CloudRun(url, project))
        return clients[-1]

    yield make
    for client in clients:
        client.http.close()
