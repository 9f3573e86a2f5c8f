"""The check of every exchange against Google's discovery documents finds violations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.discovery import OURS, violations

SERVICES = "/v1/projects/acme/locations/us-central1/services"
SERVICE = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {"name": "app", "generation": 1},
    "spec": {"traffic": [{"percent": 100, "latestRevision": True}]},
}
PIECES = {
    "method": "POST", "agent": "x", "query": [["alt", "sse"]],
    "path": "/v1beta1/projects/acme/locations/global/publishers/google/models/m"
    ":streamGenerateContent",
    "response": [{"modelVersion": "m"}, {"usageMetadata": {"totalTokenCount": 1}}],
}  # fmt: skip
NOT_FOUND = {"error": {"code": 404, "status": "NOT_FOUND", "message": "no"}}


def exchange(**changes: Any) -> dict[str, Any]:
    """Return a correct exchange with `changes`."""
    return {
        "method": "PUT",
        "path": f"{SERVICES}/app",
        "query": [["dryRun", "all"]],
        "agent": OURS,
        "request": SERVICE,
        "status": 200,
        "response": SERVICE,
        **changes,
    }


RIGHT = [
    {},
    {"status": 404, "response": NOT_FOUND},
    {"agent": "somebody", "query": [["x", "y"]], "request": "(not JSON)"},
    {"method": "GET", "path": "/v1/nothing", "agent": "x", "status": 404, "response": NOT_FOUND},
    {
        "method": "POST", "path": "/v1/token", "agent": "x", "status": 400,
        "response": {"error": "invalid_grant", "error_description": "expired"},
    },
    {"method": "GET", "path": f"{SERVICES}/app:getIamPolicy", "query": [], "request": None,
     "response": {"version": 1, "etag": "ACAB"}},
    PIECES,
]  # fmt: skip
WRONG = [
    ({"path": "/v1/nothing"}, "we ask what no discovery document has"),
    ({"method": "PATCH"}, "we ask what no discovery document has"),
    ({"method": "PATCH", "agent": "x"}, "we answer what no discovery document has"),
    ({"query": [["dryrun", "all"]]}, "has no parameter dryrun"),
    ({"method": "GET", "query": [["limit", "ten"]], "request": None,
      "path": SERVICES, "response": {"items": []}}, "no integer"),
    ({"method": "GET", "query": []}, "takes no body"),
    ({"request": {**SERVICE, "sepc": {}}}, "request.sepc is unknown to Service"),
    ({"request": {**SERVICE, "spec": {"traffic": [{"percent": "100"}]}}}, "not int32"),
    ({"request": {**SERVICE, "spec": {"traffic": {}}}}, "no list"),
    ({"response": {**SERVICE, "metadata": {"labels": {"a": 1}}}}, "response.metadata.labels.a"),
    ({"response": {**SERVICE, "status": {"conditions": [{"since": "x"}]}}}, "[0].since is unknown"),
    ({"response": None}, "response is None, no object"),
    ({"agent": "x", "status": 409, "response": {"error": "no"}}, "not Google's error object"),
    ({"status": 409, "response": NOT_FOUND}, "error.code is 404"),
    ({"status": 404, "response": {"error": {"code": 404, "status": "GONE", "message": "no"}}},
     "error.status is 'GONE'"),
    ({"method": "GET", "path": f"{SERVICES}/app:getIamPolicy", "query": [], "request": None,
      "response": {"etag": "not base64!"}}, "not byte"),
    ({**PIECES, "response": [*PIECES["response"], {"candidates": {}}]}, "no list"),
]  # fmt: skip


@pytest.mark.parametrize("changes", RIGHT)
def test_what_is_right_passes(changes: dict[str, Any]) -> None:
    assert violations(exchange(**changes)) == []


@pytest.mark.parametrize(("changes", "told"), WRONG)
def test_what_is_wrong_is_told(changes: dict[str, Any], told: str) -> None:
    [problem] = violations(exchange(**changes))
    assert told in problem


SUITE = """
import requests
from tests.conftest import discovery, local_cloud_run, recorded

URL = "/v1/projects/acme/locations/us-central1/services"

def test_right(local_cloud_run):
    requests.get(local_cloud_run.url + URL, headers={"User-Agent": "shipway"}, timeout=60)

def test_wrong(local_cloud_run):
    headers = {"User-Agent": "shipway"}
    requests.get(local_cloud_run.url + URL + "?color=red", headers=headers, timeout=60)

def test_registry(local_cloud_run):
    requests.get(local_cloud_run.url + "/v2/", timeout=60)
"""


def test_a_deliberate_violation_fails_the_suite(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-c",
         "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stdout
    assert "3 passed, 1 error" in ended.stdout
    assert "ERROR at teardown of test_wrong" in ended.stdout
    assert "run.projects.locations.services.list has no parameter color" in ended.stdout
