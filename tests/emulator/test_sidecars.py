"""Several containers in one instance, as processes: order, network, volumes, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from emulator.instances.network import missing
from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import CloudRun, condition, eventually, tag_url
from tests.emulator.sidecar_help import APP, DEPENDENCIES, UPSTREAM, containers, place, system
from tests.emulator.sidecar_help import texts as log_of
from tests.emulator.test_sandbox import NO_SANDBOX

NO_NETWORK = missing(NO_SANDBOX)
needs_network = pytest.mark.skipif(bool(NO_NETWORK), reason=f"left out: {NO_NETWORK}")
CONFIG = {"Entrypoint": ["python", "main.py"], "Cmd": None}


def cloud_of(folder: Any, *arguments: str) -> Iterator[tuple[CloudRun, str]]:
    """Yield a client of a local Cloud Run, and the image that its containers have."""
    local = LocalCloudRun(folder / "state", *arguments)
    client = CloudRun(local.url)
    with client.http:
        yield client, client.push(files={"app/main.py": APP}, config=CONFIG)
    local.stop()


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CloudRun, str]]:
    yield from cloud_of(tmp_path_factory.mktemp("sidecars"))


@pytest.fixture
def cloud(clouds: tuple[CloudRun, str]) -> CloudRun:
    return clouds[0]


@pytest.fixture
def image(clouds: tuple[CloudRun, str]) -> str:
    return clouds[1]


def get(url: str, path: str = "/") -> Any:
    return requests.get(url + path, timeout=60).json()


def failed(cloud: CloudRun, document: dict[str, Any]) -> dict[str, str]:
    assert cloud.create(document).status_code == 200
    found: dict[str, str] = condition(cloud.settled(document["metadata"]["name"]))
    assert (found["status"], found["reason"]) == ("False", "HealthCheckContainerError")
    return found


@needs_network
def test_containers_share_localhost_and_volumes_and_start_in_order(
    cloud: CloudRun, image: str
) -> None:
    url = cloud.ready(system("pair", image, proxy=["app"]))["status"]["url"]
    both = get(url)
    # The app began first, so its file was there; only the container with a port is told its port.
    assert both["app"] == {"port": "", "files": ["app", "proxy"]}
    assert both["proxy"] == {"port": "8080", "files": ["app", "proxy"]}
    lines = log_of(cloud, "pair")
    passed = 'STARTUP TCP probe succeeded after 1 attempt for container "app" on port 9090.'
    assert place(lines, "app begins") < place(lines, passed) < place(lines, "proxy begins")
    assert set(log_of(cloud, "pair", ' AND labels.container_name="app"')) == {"app begins", passed}
    # A second revision runs beside the first: each has the port 9090 in a network of its own.
    second = system("pair", image, "b", app=["proxy"])
    second["spec"]["traffic"] = [
        {"revisionName": "pair-a", "percent": 100},
        {"revisionName": "pair-b", "percent": 0, "tag": "next"},
    ]
    ready = cloud.ready(second)
    assert get(tag_url(ready, "next")).keys() == get(url).keys() == {"app", "proxy"}
    lines = log_of(cloud, "pair", ' AND resource.labels.revision_name="pair-b"')
    assert place(lines, "proxy begins") < place(lines, "app begins")
    assert place(lines, 'for container "proxy" on port 8080') < place(lines, "app begins")


@needs_network
def test_the_end_of_one_container_ends_the_instance(cloud: CloudRun, image: str) -> None:
    url = cloud.ready(system("mortal", image, proxy=["app"]))["status"]["url"]
    assert "error" in get(url, "/die-app")
    eventually(lambda: "proxy ends" in log_of(cloud, "mortal"))
    lines = log_of(cloud, "mortal")
    assert "Container called exit(7)." in lines
    assert 'Container "app" has ended, so the instance ends.' in lines
    assert eventually(lambda: "error" not in get(url))  # another instance has started
    cloud.http.delete(f"{cloud.base}/services/mortal")
    # All are told to end, and no other message is about it.
    eventually(lambda: log_of(cloud, "mortal").count("app ends") == 1)
    assert sum("so the instance ends" in line for line in log_of(cloud, "mortal")) == 1


@needs_network
def test_a_sidecar_that_does_not_start_fails_its_revision(cloud: CloudRun, image: str) -> None:
    hanging = system("hanging", image, proxy=["app"])
    app = containers(hanging)[1]
    app["env"] = [{"name": "HANG", "value": "1"}]
    app["startupProbe"] = {
        "httpGet": {"port": UPSTREAM}, "periodSeconds": 1, "failureThreshold": 1
    }  # fmt: skip
    message = failed(cloud, hanging)["message"]
    assert "failed the configured startup probe checks" in message
    assert "Container 'app' did not start." in message
    # What waits for it never begins.
    assert "proxy begins" not in log_of(cloud, "hanging")
    # Without a probe, a sidecar has started when it runs: its end is noticed all the same.
    dying = system("dying", image)
    app = containers(dying)[1]
    app["env"] = [{"name": "FAIL", "value": "3"}]
    del app["startupProbe"]
    containers(dying)[0]["env"] = [{"name": "HANG", "value": "1"}]
    assert "Container 'app' did not start." in failed(cloud, dying)["message"]
    assert "Container called exit(3)." in log_of(cloud, "dying")


@needs_network
def test_a_sidecar_that_fails_its_liveness_probe_ends_the_instance(
    cloud: CloudRun, image: str
) -> None:
    document = system("sick", image)
    containers(document)[1]["livenessProbe"] = {
        "httpGet": {"port": UPSTREAM, "path": "/sick"}, "periodSeconds": 1, "failureThreshold": 1
    }  # fmt: skip
    cloud.ready(document)
    line = 'LIVENESS HTTP probe failed 1 time consecutively for container "app" on port 9090'
    eventually(lambda: any(line in text for text in log_of(cloud, "sick")))
    cloud.http.delete(f"{cloud.base}/services/sick")


def test_without_a_network_of_its_own_one_instance_can_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    for cloud, image in cloud_of(tmp_path_factory.mktemp("bare"), "--sandbox", "none"):
        document = system("bare", image, proxy=["app"])
        url = cloud.ready(document)["status"]["url"]
        assert get(url).keys() == {"app", "proxy"}
        assert any("only one instance can run" in line for line in log_of(cloud, "bare"))
        assert any("Its volumes are missing" in line for line in log_of(cloud, "bare"))
        document["spec"]["template"]["metadata"]["name"] = "bare-b"
        assert cloud.replace(document).status_code == 200
        settled = eventually(lambda: _unready(cloud, "bare"))  # noqa: B023  (it is called here)
        assert f"Port {UPSTREAM} of this machine is in use." in condition(settled)["message"]


def _unready(cloud: CloudRun, name: str) -> dict[str, Any] | None:
    service = cloud.get(name)
    return service if condition(service)["status"] == "False" else None


def _no_port(document: dict[str, Any]) -> None:
    del containers(document)[0]["ports"]


def _two_ports(document: dict[str, Any]) -> None:
    containers(document)[1]["ports"] = [{"containerPort": 1}]


def _eleven(document: dict[str, Any]) -> None:
    more = [{"name": f"more-{n}", "image": "x"} for n in range(9)]
    containers(document).extend(more)


def _no_probe(document: dict[str, Any]) -> None:
    del containers(document)[1]["startupProbe"]


def _same_name(document: dict[str, Any]) -> None:
    containers(document)[1]["name"] = "proxy"


def _no_probe_port(document: dict[str, Any]) -> None:
    containers(document)[1]["startupProbe"]["tcpSocket"] = {}


def _needs(text: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["spec"]["template"]["metadata"]["annotations"][DEPENDENCIES] = text

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_no_port, "containers: Revision template should contain exactly one container with an"),
        (_two_ports, "containers: Revision template should contain exactly one container with an"),
        (_eleven, "containers: At most 10 containers are supported."),
        (_no_probe, "containers[0].depends_on: Dependent container 'app' must have startup probe"),
        (_same_name, "containers[1].name: The name 'proxy' is given twice."),
        (_no_probe_port, "startupProbe: The port is required in the probe of a sidecar."),
        (_needs('{"proxy": ["other"]}'), f"[{DEPENDENCIES}]: Container 'other' does not exist."),
        (_needs('{"": ["app"]}'), f"[{DEPENDENCIES}]: Invalid container name ''. Must conform"),
        (_needs("app"), f'[{DEPENDENCIES}]: must be JSON such as {{"app":["proxy"]}}.'),
        (_needs('{"proxy": ["app"], "app": ["proxy"]}'), "Circular dependency: "),
    ],
)
def test_containers_that_do_not_fit_together_are_refused(
    cloud: CloudRun, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    document = system("unfit", "us-central1-docker.pkg.dev/acme/images/x", proxy=["app"])
    change(document)
    answer = cloud.create(document, dryRun="all")
    assert answer.status_code == 400, answer.text
    assert message in json.loads(answer.text)["error"]["message"]
