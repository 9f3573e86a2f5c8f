"""Secret Manager, and revisions that take environment variables from it."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import subprocess
import sys

import pytest
import requests

from tests.emulator.cloud_run_help import CloudRun, condition, container, eventually, service

VALUE = "hunter2-Ünïcode"


class Vault:
    """The secrets of a client's project."""

    def __init__(self, client: CloudRun) -> None:
        self.client = client
        self.url = f"{client.url}/v1/projects/{client.project}/secrets"

    def call(self, method: str, path: str = "", body: object = None, **params: str):
        return self.client.http.request(method, f"{self.url}{path}", json=body, params=params)

    def add(self, name: str, value: str = VALUE) -> dict:
        """Add a version; create the secret if it does not exist."""
        self.call("POST", body={"replication": {"automatic": {}}}, secretId=name)
        data = base64.b64encode(value.encode()).decode()
        answer = self.call("POST", f"/{name}:addVersion", {"payload": {"data": data}})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def client(connect, local_cloud_run, request) -> CloudRun:
    return connect(local_cloud_run.url, f"s-{abs(hash(request.node.name))}")


@pytest.fixture
def vault(client: CloudRun) -> Vault:
    return Vault(client)


def with_secret(name: str, image: str, secret: str, version: str, revision: str | None = None):
    document = service(name, image, revision)
    reference = {"name": secret, "key": version}
    container(document)["env"] = [
        {"name": "PLAIN", "value": "1"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": reference}},
    ]
    return document


def answer_of(document) -> str:
    return requests.get(document["status"]["url"], timeout=60).json()["env"]["SECRET"]


def test_a_secret_is_created_given_a_value_listed_and_read(vault: Vault) -> None:
    made = vault.call("POST", body={"replication": {"automatic": {}}}, secretId="token").json()
    assert made["name"].endswith("/secrets/token")
    assert vault.call("GET", "/token/versions/latest").status_code == 404
    first, second = vault.add("token", "one"), vault.add("token", "two")
    assert [v["name"].rpartition("/")[2] for v in (first, second)] == ["1", "2"]
    assert vault.call("GET", "/token").json() == made
    assert vault.call("GET").json() == {"secrets": [made], "totalSize": 1}
    assert vault.call("GET", "/token/versions").json()["versions"] == [second, first]
    page = vault.call("GET", "/token/versions", pageSize="1").json()
    rest = vault.call("GET", "/token/versions", pageToken=page["nextPageToken"]).json()
    assert (page["versions"], rest["versions"]) == ([second], [first])
    assert vault.call("GET", "/token/versions/1").json() == first
    for version, value in (("1", b"one"), ("2", b"two"), ("latest", b"two")):
        read = vault.call("GET", f"/token/versions/{version}:access").json()
        assert base64.b64decode(read["payload"]["data"]) == value
    assert read["name"] == second["name"]
    assert vault.call("DELETE", "/token").json() == {}
    assert vault.call("GET", "/token/versions/1:access").status_code == 404


def test_the_checksum_is_crc32c(vault: Vault) -> None:
    """The check value of CRC-32C for the digits 1 to 9 is E3069283 (RFC 3720's polynomial)."""
    vault.add("digits", "123456789")
    payload = vault.call("GET", "/digits/versions/1:access").json()["payload"]
    assert payload["dataCrc32c"] == str(0xE3069283)
    good = vault.call("POST", "/digits:addVersion", {"payload": payload})
    assert good.json()["clientSpecifiedPayloadChecksum"] is True
    bad = vault.call("POST", "/digits:addVersion", {"payload": {**payload, "dataCrc32c": "1"}})
    assert bad.status_code == 400


def test_invalid_requests_are_refused(vault: Vault) -> None:
    replication = {"replication": {"automatic": {}}}
    assert vault.call("POST", body=replication, secretId="a/b").status_code == 400
    assert vault.call("POST", body={}, secretId="plain").status_code == 400
    assert vault.call("POST", body={**replication, "x": 1}, secretId="plain").status_code == 400
    vault.add("twice")
    again = vault.call("POST", body=replication, secretId="twice")
    assert again.json()["error"]["status"] == "ALREADY_EXISTS"
    for body in ({}, {"payload": {"data": "*"}}, {"payload": {"data": "A" * 90_000}}):
        assert vault.call("POST", "/twice:addVersion", body).status_code == 400
    assert vault.call("POST", "/missing:addVersion", {}).status_code == 404


def test_an_instance_gets_the_version_that_its_revision_names(
    client: CloudRun, vault: Vault
) -> None:
    vault.add("pinned", "one")
    vault.add("pinned", "two")
    image = client.push()
    assert answer_of(client.ready(with_secret("pin", image, "pinned", "1"))) == "one"
    assert answer_of(client.ready(with_secret("pin", image, "pinned", "latest"))) == "two"


def test_latest_is_read_again_when_an_instance_starts(client: CloudRun, vault: Vault) -> None:
    vault.add("rotated", "old")
    ready = client.ready(with_secret("rotate", client.push(), "rotated", "latest"))
    assert answer_of(ready) == "old"
    vault.add("rotated", "new")
    assert answer_of(ready) == "old"
    os.kill(requests.get(ready["status"]["url"], timeout=60).json()["pid"], signal.SIGKILL)
    url = ready["status"]["url"]
    # A request that still reaches the ending instance is answered with 503.
    assert eventually(lambda: requests.get(url, timeout=60).ok)
    assert answer_of(ready) == "new"


def test_a_secret_of_another_project(client: CloudRun, vault: Vault, connect) -> None:
    vault.add("shared", "theirs")
    ours = connect(client.url, f"{client.project}-b")
    document = with_secret("reader", ours.push(), "alias", "latest")
    document["spec"]["template"]["metadata"] = {
        "annotations": {
            "run.googleapis.com/secrets": f"alias:projects/{client.project}/secrets/shared"
        }
    }
    assert answer_of(ours.ready(document)) == "theirs"


@pytest.mark.parametrize(("secret", "version"), [("missing", "latest"), ("there", "7")])
def test_a_missing_secret_or_version_fails_the_revision(
    client: CloudRun, vault: Vault, secret: str, version: str
) -> None:
    vault.add("there")
    image = client.push()
    client.ready(service("lacking", image, "lacking-a"))
    client.replace(with_secret("lacking", image, secret, version, "lacking-b"))
    failed = client.settled("lacking")
    number = failed["metadata"]["namespace"]
    message = (
        "spec.template.spec.containers[0].env[1].value_from.secret_key_ref.name: "
        f"Secret projects/{number}/secrets/{secret}/versions/{version} was not found"
    )
    ready = condition(client.revision("lacking-b"))
    assert (ready["status"], ready["reason"]) == ("False", "SecretsAccessCheckFailed")
    assert ready["message"] == message
    assert condition(failed)["message"] == (
        f"Revision 'lacking-b' is not ready and cannot serve traffic. {message}"
    )
    assert failed["status"]["latestReadyRevisionName"] == "lacking-a"


@pytest.mark.parametrize(
    "reference",
    [{"name": "x"}, {"key": "1"}, {"name": "a/b", "key": "1"}, {"name": "x", "key": "new"}],
)
def test_an_invalid_reference_is_refused(client: CloudRun, reference) -> None:
    document = service("refused", "us-docker.pkg.dev/p/r/i:t")
    container(document)["env"] = [{"name": "A", "valueFrom": {"secretKeyRef": reference}}]
    refused = client.create(document)
    assert refused.status_code == 400
    assert "env[0].valueFrom.secretKeyRef" in refused.json()["error"]["message"]


def test_values_are_only_in_the_secret_store(fresh_cloud_run, connect) -> None:
    client = connect(fresh_cloud_run.url)
    Vault(client).add("kept")
    ready = client.ready(with_secret("keeper", client.push(), "kept", "latest", "keeper-a"))
    assert answer_of(ready) == VALUE
    shown = [ready, client.revision("keeper-a"), client.logs("").json()]
    shown.append(Vault(client).call("GET", "/kept/versions").json())
    assert VALUE not in json.dumps(shown, ensure_ascii=False)
    fresh_cloud_run.stop()
    holding = [
        path
        for path in fresh_cloud_run.state.rglob("*")
        if path.is_file() and VALUE.encode() in path.read_bytes()
    ]
    assert VALUE.encode() not in fresh_cloud_run.log.read_bytes()
    [only] = holding
    assert only.is_relative_to(fresh_cloud_run.state / "secrets")
    assert stat.S_IMODE(only.stat().st_mode) == 0o600
    fresh_cloud_run.start()
    again = connect(fresh_cloud_run.url)
    assert answer_of(again.settled("keeper")) == VALUE


def test_a_launch_does_not_show_its_environment() -> None:
    code = (
        "from emulator.instances.launch import Launch; from emulator.names import Key;"
        f"print(Launch(Key('p', 'r', 'n'), 's', 'i', env=(('A', {VALUE!r}),)))"
    )
    shown = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "Launch(" in shown
    assert VALUE not in shown
