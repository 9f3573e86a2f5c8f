"""What anyone may ask the local Cloud Build: it costs little, whatever the Dockerfile says."""

from __future__ import annotations

import pytest
import requests

from tests.conftest import LocalCloudRun

DOCKERFILES = {
    "stars": "COPY " + "a*" * 25 + "b /x",
    "many stars": "COPY " + "*" * 40 + "b /x",
    "a class": "COPY [z-a] /x",
    "a value that grows": "ENV A=aaaaaaaaaa\n" + "ENV A=$A$A$A$A$A$A$A$A\n" * 9,
    "brackets": "CMD " + "[" * 5000,
    "variables": "ENV A=" + "${a:-" * 5000 + "}" * 5000,
    "too long": "RUN x\n" * 50_000,
}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_hostile_dockerfile_is_answered_at_once(
    local_cloud_run: LocalCloudRun, name: str
) -> None:
    body = {"dockerfile": f"FROM python:3.13\n{DOCKERFILES[name]}\n", "files": ["a" * 60]}
    answer = requests.post(f"{local_cloud_run.url}/dockerfile:examine", json=body, timeout=60)
    assert answer.status_code == (400 if name == "too long" else 200)
