"""From an image to an instance: its settings, and every way in which it fails to start."""

from __future__ import annotations

import os
import sys
import tarfile
from typing import Any

import pytest

from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import (
    condition,
    container,
    eventually,
    is_alive,
    service,
    tar_of,
)

FAILED = "The user-provided container failed to start and listen on the port"


def failed(cloud_run, document):
    response = cloud_run.create(document)
    assert response.status_code == 200, response.text
    settled = cloud_run.settled(document["metadata"]["name"])
    assert condition(settled)["status"] == "False"
    return settled


def test_an_instance_gets_the_settings_of_image_manifest_and_cloud_run(cloud_run, image):
    document = service("equipped", image, "equipped-a", COLOR="red")
    ready = cloud_run.ready(document)
    seen = cloud_run.http.get(ready["status"]["url"]).json()
    env, cwd = seen["env"], seen["cwd"]
    assert env["FROM_IMAGE"] == f"{cwd}:/nowhere"
    assert env["COLOR"] == "red"
    assert (env["K_SERVICE"], env["K_REVISION"], env["K_CONFIGURATION"]) == (
        "equipped",
        "equipped-a",
        "equipped",
    )
    assert env["PATH"].endswith(":/usr/bin:/bin")
    assert not any(path.startswith(sys.prefix) for path in seen["python"])
    leaked = set(env) - {
        *("COLOR", "FROM_IMAGE", "GCE_METADATA_HOST", "GCE_METADATA_IP", "HOME", "LANG"),
        *("PATH", "PORT", "PWD", "K_SERVICE", "K_REVISION", "K_CONFIGURATION", "TMPDIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("LC_CTYPE", "SECRET_MANAGER_ENDPOINT", "GOOGLE_VERTEX_BASE_URL"),
    }
    assert leaked == set()


def test_command_and_args_replace_entrypoint_and_cmd_as_in_kubernetes(cloud_run):
    source = b"""
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(repr(sys.argv).encode())
    def log_message(self, *a): pass
http.server.HTTPServer(("", int(os.environ["PORT"])), H).serve_forever()
"""
    config = {"Entrypoint": ["python", "/app/a.py"], "Cmd": ["from-cmd"]}
    image = cloud_run.push("argv", files={"app/a.py": source, "app/b.py": source}, config=config)
    expected = {
        "plain": ({}, ["a.py", "from-cmd"]),
        "args": ({"args": ["mine"]}, ["a.py", "mine"]),
        "command": ({"command": ["python", "b.py"]}, ["b.py"]),
        "both": ({"command": ["python", "b.py"], "args": ["x"]}, ["b.py", "x"]),
    }
    for name, (fields, argv) in expected.items():
        document = service(f"argv-{name}", image)
        container(document).update(fields)
        ready = cloud_run.ready(document)
        seen = cloud_run.http.get(ready["status"]["url"]).text
        assert [os.path.basename(part) for part in eval(seen)] == argv


def test_the_metadata_server_names_region_project_and_account(cloud_run, image):
    ready = cloud_run.ready(service("asking", image))
    number = ready["metadata"]["namespace"]

    def ask(path: str, flavour: str = "&google"):
        url = f"{ready['status']['url']}/metadata?computeMetadata/v1/{path}{flavour}"
        return cloud_run.http.get(url).json()

    region = ask("instance/region")
    assert region["text"] == f"projects/{number}/regions/us-central1"
    assert region["headers"]["Metadata-Flavor"] == "Google"
    assert ask("project/project-id")["text"] == "acme"
    assert ask("project/numeric-project-id")["text"] == number
    email = ask("instance/service-accounts/default/email")["text"]
    assert email == f"{number}-compute@developer.gserviceaccount.com"
    assert ask("instance/region", flavour="")["status"] == 403
    assert ask("nothing")["status"] == 404


def test_a_process_that_exits_fails_at_once_and_its_output_is_logged(cloud_run, image):
    # Long before the 240 seconds of its startup probe, for which `failed` does not wait.
    settled = failed(cloud_run, service("dying", image, "dying-a", FAIL="7"))
    ready = condition(settled)
    assert ready["reason"] == "HealthCheckContainerError"
    assert FAILED in ready["message"]
    assert "PORT=8080" in ready["message"]
    assert "Logs URL: http" in ready["message"]
    assert condition(settled, "ConfigurationsReady")["status"] == "False"
    revision = cloud_run.revision("dying-a")
    assert condition(revision, "ContainerHealthy")["status"] == "False"
    answer = cloud_run.http.get(settled["status"]["url"])
    assert answer.status_code == 503
    assert "malformed or connection to the instance had an error" in answer.text
    entries = cloud_run.logs(
        'resource.type="cloud_run_revision" AND resource.labels.revision_name="dying-a"'
    ).json()["entries"]
    texts = [entry.get("textPayload") or entry["jsonPayload"]["message"] for entry in entries]
    assert texts[:2] == ["no database", "cannot start"]
    assert "Container called exit(7)." in texts
    assert entries[1]["severity"] == "ERROR"
    assert entries[1]["jsonPayload"] == {"message": "cannot start", "code": 7}
    page = cloud_run.http.get(revision["status"]["logUrl"]).text
    assert "no database" in page


def test_a_process_that_never_listens_fails_after_the_probes_time(cloud_run, image):
    document = service("silent", image, HANG="1")
    container(document)["startupProbe"] = {
        "tcpSocket": {},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    settled = failed(cloud_run, document)
    assert condition(settled)["reason"] == "HealthCheckContainerError"
    entries = cloud_run.logs('resource.labels.service_name="silent"').json()["entries"]
    assert not is_alive(int(entries[0]["textPayload"]))
    assert "STARTUP TCP probe failed 1 time consecutively" in entries[-1]["textPayload"]


def test_an_http_probe_decides_whether_a_revision_is_ready(cloud_run, image):
    document = service("probed", image)
    container(document)["startupProbe"] = {
        "httpGet": {"path": "/redirect"},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    cloud_run.ready(document)
    worse = service("unprobed", image)
    container(worse)["startupProbe"] = {
        "httpGet": {"path": "/drop"},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    assert FAILED in condition(failed(cloud_run, worse))["message"]


def test_a_missing_image_is_named(cloud_run):
    reference = "us-central1-docker.pkg.dev/acme/images/none:latest"
    settled = failed(cloud_run, service("imageless", reference))
    assert f"Image '{reference}' not found." in condition(settled)["message"]


def test_an_image_for_another_platform_fails_with_cloud_runs_message(cloud_run):
    image = cloud_run.push("other-platform", architecture="s390x")
    settled = failed(cloud_run, service("foreign", image))
    assert (
        "Container manifest type 'application/vnd.oci.image.manifest.v1+json' must support "
        "amd64/linux" in condition(settled)["message"]
    )


def test_a_missing_command_fails_and_is_named_in_the_logs(cloud_run):
    image = cloud_run.push("commandless", config={"Cmd": ["no-such-command"]})
    failed(cloud_run, service("commandless", image))
    entries = cloud_run.logs('resource.labels.service_name="commandless"').json()["entries"]
    assert "no-such-command" in entries[0]["textPayload"]


def test_each_failure_decides_its_own_conditions(cloud_run, image):
    """A container that exits is not healthy; a missing image or secret leaves that unknown."""
    secret = service("conditions", image)
    reference = {"secretKeyRef": {"name": "missing", "key": "latest"}}
    container(secret)["env"] = [{"name": "SECRET", "valueFrom": reference}]
    missing = service("conditions", "us-central1-docker.pkg.dev/acme/images/none:latest")
    exiting = service("conditions", image, FAIL="1")
    kinds = ("Ready", "ContainerHealthy", "ContainerReady", "ResourcesAvailable")
    expected = {
        "exits": (exiting, "HealthCheckContainerError", "False", "False", "True", "True"),
        "image": (missing, "ContainerMissing", "False", "Unknown", "False", "Unknown"),
        "secret": (secret, "SecretsAccessCheckFailed", "False", "Unknown", "Unknown", "False"),
    }
    for name, (document, reason, *states) in expected.items():
        document["metadata"]["name"] = f"conditions-{name}"
        settled = failed(cloud_run, document)
        revision = cloud_run.revision(settled["status"]["latestCreatedRevisionName"])
        assert [condition(revision, kind)["status"] for kind in kinds] == states
        assert condition(revision)["reason"] == reason


def test_a_failed_revision_gets_no_traffic_and_the_old_one_keeps_serving(cloud_run, image):
    """I5: a failure leaves the traffic of the service unchanged."""
    cloud_run.ready(service("steady", image, "steady-a"))
    bad = service("steady", image, "steady-b", FAIL="1")
    assert cloud_run.replace(bad).status_code == 200
    settled = cloud_run.settled("steady")
    assert condition(settled)["status"] == "False"
    assert settled["status"]["latestCreatedRevisionName"] == "steady-b"
    assert settled["status"]["latestReadyRevisionName"] == "steady-a"
    url = settled["status"]["url"]
    assert cloud_run.http.get(url).json()["revision"] == "steady-a"
    named = [{"revisionName": "steady-b", "percent": 100}]
    settled["spec"]["traffic"] = named
    assert cloud_run.replace(settled).status_code == 200
    routes = eventually(
        lambda: [
            state
            for state in [condition(cloud_run.get("steady"), "RoutesReady")]
            if state["status"] == "False"
        ]
    )
    assert routes[0]["reason"] == "RevisionFailed"
    assert cloud_run.get("steady")["status"]["traffic"][0]["revisionName"] == "steady-a"
    assert cloud_run.http.get(url).json()["revision"] == "steady-a"


def tar_entry(**fields: Any) -> bytes:
    """Return a tar file of one empty file."""
    member = tarfile.TarInfo("a")
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024


@pytest.mark.parametrize(
    ("name", "layer", "why"),
    [
        ("whiteout", tar_of({"a/.wh...": b""}), "'a/.wh...' hides no file"),
        ("link", tar_entry(type=tarfile.LNKTYPE), "the hard link 'a' names no file"),
        ("negative", tar_entry(size=-512), "a size in it is negative"),
        ("noise", b"noise" * 500, "cannot be unpacked"),
        ("nothing", b"", "cannot be unpacked"),
    ],
    ids=["whiteout", "link", "negative", "noise", "nothing"],
)
def test_a_layer_that_cannot_be_unpacked_fails_the_revision(cloud_run, name, layer, why):
    image = cloud_run.push(f"bad-{name}", layer=layer)
    settled = failed(cloud_run, service(f"bad-{name}", image))
    assert why in condition(settled)["message"]
    revision = cloud_run.revision(settled["status"]["latestCreatedRevisionName"])
    assert condition(revision)["reason"] == "ContainerImageImportFailed"
    assert condition(revision, "ContainerReady")["status"] == "False"


@pytest.mark.parametrize(
    ("name", "config"),
    [("env", {"Env": 5}), ("command", {"Cmd": [None]}), ("arguments", {"Cmd": 5})],
)
def test_an_image_that_nothing_can_read_fails_the_revision(cloud_run, name, config):
    image = cloud_run.push(f"odd-{name}", config=config)
    settled = failed(cloud_run, service(f"odd-{name}", image))
    revision = cloud_run.revision(settled["status"]["latestCreatedRevisionName"])
    assert condition(revision)["reason"] == "Internal"


def test_an_image_that_is_too_large_fails_and_the_option_is_named(tmp_path, connect):
    limits = ("--max-image-bytes", "100000", "--max-image-files", "3")
    cloud_run = LocalCloudRun(tmp_path / "state", *limits)
    try:
        client = connect(cloud_run.url)
        large = client.push("large", files={"zeros": b"\0" * 200_000})
        many = client.push("many", files={str(number): b"" for number in range(4)})
        for name, image in (("large", large), ("many", many)):
            message = condition(failed(client, service(name, image)))["message"]
            assert "To allow more: ./ship up --max-image-" in message
        client.ready(service("small", client.push("small")))
        assert not [*(cloud_run.state / "instances/images/new").iterdir()]
    finally:
        cloud_run.stop()


def test_a_working_folder_stays_in_the_image(local_cloud_run, cloud_run):
    image = cloud_run.push("climbing", config={"WorkingDir": "/app/../../../../escaped"})
    failed(cloud_run, service("climbing", image))
    images = local_cloud_run.state / "instances/images"
    found = [*local_cloud_run.state.parent.rglob("escaped")]
    assert [path.parent.parent for path in found] == [images]


def test_the_start_says_that_neighbors_reach_instances(fresh_cloud_run):
    eventually(lambda: "reachable from your network" in fresh_cloud_run.log.read_text())
