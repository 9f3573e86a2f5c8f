"""No name in a request leads out of the state folder, and a malformed one is refused."""

from __future__ import annotations

import contextlib
import http.client
import json
import string
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator import files, names
from emulator.errors import ApiError
from emulator.names import Key
from emulator.store import Store
from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import service

REGION = "us-central1"
REPOSITORY = {"format": "DOCKER"}
SECRET = {"replication": {"automatic": {}}}
TRIGGER = {"name": "t", "filename": "f", "serviceAccount": "a"}
# What each API is asked to make, by a path with the project {p}, the location {l} and a name {n}.
MAKES: dict[str, tuple[str, Any]] = {
    "service": ("/v1/projects/{p}/locations/{l}/services", service("{n}", "a/b/c")),
    "service of Knative": (
        "/apis/serving.knative.dev/v1/namespaces/{p}/services",
        service("{n}", "a/b/c"),
    ),
    "repository": (
        "/v1/projects/{p}/locations/{l}/repositories?repositoryId={n}",
        REPOSITORY,
    ),
    "account": ("/v1/projects/{p}/serviceAccounts", {"accountId": "{n}"}),
    "secret": ("/v1/projects/{p}/secrets?secretId={n}", SECRET),
    "trigger": ("/v1/projects/{p}/locations/{l}/triggers", TRIGGER),
    "pool": (
        "/v1/projects/{p}/locations/global/workloadIdentityPools?workloadIdentityPoolId={n}",
        {},
    ),
    "policy": ("/v1/projects/{p}:setIamPolicy", {"policy": {"bindings": []}}),
    "project": ("/_local/projects", {"projectId": "{n}", "enabled": []}),
    "API": ("/v1/projects/{p}/services/run.googleapis.com:disable", {}),
    "upload": ("/v2/{p}/images/{n}/blobs/uploads/", {}),
    "log": ("/v2/entries:list", {"resourceNames": ["projects/{p}"], "filter": "{n}"}),
}


def ask(url: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """Send a request as it is written: other clients resolve `..` themselves."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def make(
    cloud_run: LocalCloudRun, what: str, project: str, location: str, name: str
) -> tuple[int, str]:
    path, body = MAKES[what]
    for mark, value in (("{p}", project), ("{l}", location), ("{n}", name)):
        path = path.replace(mark, quote(value, safe="", errors="surrogatepass"))
        body = _filled(body, mark, value)
    return ask(cloud_run.url, "POST", path, body, **cloud_run.secret)


def _filled(body: Any, mark: str, value: str) -> Any:
    if isinstance(body, dict):
        return {name: _filled(part, mark, value) for name, part in body.items()}
    if isinstance(body, list):
        return [_filled(part, mark, value) for part in body]
    return body.replace(mark, value) if isinstance(body, str) else body


def outside(cloud_run: LocalCloudRun) -> set[Path]:
    """Return what lies beside the state folder, and beside the folders of the rooms in it."""
    state = cloud_run.state
    beside = {*state.parent.parent.glob("*"), *state.parent.glob("*")}
    rooms = {*state.glob("*")}
    rooms |= {path for room in rooms if room.is_dir() for path in room.glob("*")}
    return beside | rooms


ROOMS_WITH_PROJECT = sorted({*MAKES} - {"project", "upload"})
PROJECTS = ["../../escape", "..", "a/../b", ".", "A", "a" * 31, "a\0b", "-a", "a.b", "٣", "a\n"]


@pytest.mark.parametrize("what", ROOMS_WITH_PROJECT)
def test_a_project_that_is_no_project_is_refused(local_cloud_run, what):
    before = outside(local_cloud_run)
    for project in PROJECTS:
        status, text = make(local_cloud_run, what, project, REGION, "probe-name")
        assert (status, '"INVALID_ARGUMENT"' in text) == (400, True), (project, text)
        assert "Invalid resource field value in the request." in text
    assert outside(local_cloud_run) <= before | {local_cloud_run.state / "projects"}


@pytest.mark.parametrize("what", ["service", "repository", "trigger"])
@pytest.mark.parametrize("location", ["../../../escape", "..", "us/../x", "US", "us-central1\0"])
def test_a_location_that_is_no_location_is_refused(local_cloud_run, what, location):
    status, text = make(local_cloud_run, what, "acme", location, "probe-name")
    assert (status, '"INVALID_ARGUMENT"' in text) == (400, True), text


NAMES = ["../../escape", "..", ".", "a/b", "a\0b", "ÄÖ", "a" * 300, "", "name\n"]


@pytest.mark.parametrize("what", ["service", "repository", "account", "secret", "pool", "project"])
def test_a_name_that_its_api_does_not_allow_is_refused(local_cloud_run, what):
    for name in NAMES:
        status, text = make(local_cloud_run, what, "acme", REGION, name)
        assert (status, '"INVALID_ARGUMENT"' in text) == (400, True), (name, text)


def test_an_upload_has_the_name_of_a_repository_and_an_id_of_the_registry(local_cloud_run):
    url = local_cloud_run.url
    for name in ("../x", "..", "a//b", "a/_blobs/b", "A", "a" * 256, "a\0b"):
        status, text = ask(url, "POST", f"/v2/{quote(name)}/blobs/uploads/")
        assert (status, "NAME_INVALID" in text) == (400, True), text
    for upload in ("..%2F..%2Fescape", "..", "%00", "a" * 300):
        status, text = ask(
            url, "PUT", f"/v2/acme/images/app/blobs/uploads/{upload}?digest=sha256:0"
        )
        assert status == 404, text
    for digest in (
        "sha256:..",
        f"sha256:..%2F{'0' * 61}",
        f"sha512:{'0' * 64}",
        "sha256:" + "A" * 64,
    ):
        status, text = ask(url, "GET", f"/v2/acme/images/app/blobs/{digest}")
        assert (status, "DIGEST_INVALID" in text) == (400, True), text


def test_logs_of_a_place_that_is_no_project_are_not_read(local_cloud_run):
    # Beside the logs: files of the same form.
    found = local_cloud_run.state / "planted/us-central1/app/app-1.jsonl"
    found.parent.mkdir(parents=True)
    found.write_text('{"receiveTimestamp":"2026","timestamp":"2026","insertId":"1"}\n')
    status, text = make(local_cloud_run, "log", "../planted", REGION, "")
    assert (status, "receiveTimestamp" in text) == (400, False), text


odd = st.one_of(
    st.sampled_from([*PROJECTS, *NAMES, "acme", "-", "a" * 4000, "%2e%2e", "..\\x", "CON", "~"]),
    st.text(max_size=12),
    st.text(string.ascii_letters + string.digits + "-_./:%", max_size=40),
)
QUICK = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@QUICK
@given(what=st.sampled_from(sorted(MAKES)), project=odd, location=odd, name=odd)
def test_any_name_gets_an_answer_and_writes_nothing_outside(
    local_cloud_run, what, project, location, name
):
    before = outside(local_cloud_run)
    status, text = make(local_cloud_run, what, project, location, name)
    assert status < 500, text
    fresh = outside(local_cloud_run) - before
    assert all(path.parent.is_relative_to(local_cloud_run.state) for path in fresh), fresh


@given(parts=st.lists(odd, min_size=1, max_size=4))
def test_no_path_of_names_leaves_its_folder(parts):
    root = Path("/state/room")
    with contextlib.suppress(ApiError):
        found = files.inside(root, "/".join(parts))
        assert found.relative_to(root).as_posix() == "/".join(parts)
        assert ".." not in found.parts


@given(project=odd, location=odd)
def test_what_the_check_of_a_request_lets_through_is_one_name(project, location):
    with contextlib.suppress(ApiError):
        names.check_path({"project": project, "location": location})
        path = Path("/state/services", Key(project, location, "app").path)
        assert path.parts == ("/", "state", "services", project, location, "app")


@pytest.mark.parametrize("path", ["../x.json", "a/../../x.json", "/etc/x.json", "a//b", "a\0b", ""])
def test_the_store_refuses_a_key_that_leaves_its_folder(tmp_path, path):
    store = Store(tmp_path / "state")
    (tmp_path / "x.json").write_text("{}")
    for use in (store.read, store.delete, lambda at: store.write(at, {})):
        with pytest.raises(ApiError) as refused:
            use(path)
        assert refused.value.status == "INVALID_ARGUMENT"
    assert (tmp_path / "x.json").read_text() == "{}"
    assert [*(tmp_path / "state").iterdir()] == []


def test_a_body_that_no_program_can_hold_is_refused(local_cloud_run):
    url = f"{local_cloud_run.url}"
    for body in (
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a":' * 300 + "1" + "}" * 300,
        '{"a": "\\ud800"}',
        f'{{"a": {"1" * 5000}}}',
    ):
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        connection.request(
            "POST", "/v1/projects/acme/secrets?secretId=deep", body,
            {"Content-Type": "application/json"},
        )  # fmt: skip
        answer = connection.getresponse()
        assert (answer.status, b"Invalid JSON payload" in answer.read()) == (400, True), body[:20]
        connection.close()


@pytest.mark.parametrize("size", ["9" * 5000, "-1", "x", "1e3", "²"])
def test_a_page_size_that_is_no_number_is_refused(local_cloud_run, size):
    path = f"/v1/projects/acme/secrets?pageSize={quote(size)}"
    assert ask(local_cloud_run.url, "GET", path)[0] == 400


@pytest.mark.parametrize("version", ["²", "9" * 4000, "..", "0", "-1"])
def test_a_version_that_is_no_number_is_not_found(local_cloud_run, version):
    make(local_cloud_run, "secret", "acme", REGION, "versioned")
    path = f"/v1/projects/acme/secrets/versioned/versions/{quote(version)}"
    assert ask(local_cloud_run.url, "GET", path)[0] == 404
