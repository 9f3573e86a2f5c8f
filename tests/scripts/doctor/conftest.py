"""The team that the doctor examines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import LocalCloudRun
from tests.scripts.doctor.doctor_help import Patient


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """Yield a patient, which no test may leave changed."""
    folder = tmp_path_factory.mktemp("doctor")
    cloud_run = LocalCloudRun(folder / "state", "--iam", "enforce")
    made = Patient(folder, cloud_run)
    made.deliver()
    yield made
    made.http.close()
    made.owner.http.close()
    cloud_run.stop()
