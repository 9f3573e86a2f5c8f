"""Several containers in one instance, in Docker; and beside a packed one, which is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.emulator.cloud_run_help import condition, eventually
from tests.emulator.sidecar_help import APP, containers, place, system, texts
from tests.emulator.test_docker_runtime import Engine
from tests.scripts.docker_help import needs_docker

pytestmark = pytest.mark.xdist_group("docker-runtime")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("sidecars-in-docker"))
    yield made
    made.close()


def in_docker(name: str, image: str) -> dict[str, Any]:
    """Return the system as it is with these containers' own command."""
    document = system(name, image, proxy=["app"])
    for container in containers(document):
        container["command"] = ["python", "main.py"]
        container["resources"] = {"limits": {"memory": "128Mi"}}
    return document


@needs_docker
def test_containers_share_one_network_and_volumes_and_end_together(
    engine: Engine, tmp_path: Path
) -> None:
    cloud, image = engine.client, engine.push(tmp_path, "sidecar_app.py")
    url = cloud.ready(in_docker("pair", image))["status"]["url"]
    both = requests.get(url, timeout=60).json()
    assert both["app"] == {"port": "", "files": ["app", "proxy"]}
    assert both["proxy"] == {"port": "8080", "files": ["app", "proxy"]}
    lines = texts(cloud, "pair")
    assert place(lines, 'for container "app" on port 9090') < place(lines, "proxy begins")
    assert len(engine.containers("pair-a")) == 2
    requests.get(f"{url}/die-app", timeout=60)
    eventually(lambda: 'Container "app" has ended' in "".join(texts(cloud, "pair")))
    eventually(lambda: requests.get(url, timeout=60).json().keys() == {"app", "proxy"})
    cloud.http.delete(f"{cloud.base}/services/pair")
    eventually(lambda: not engine.containers("pair-a"))
    label = f"label=dev.shipway.state={engine.state.resolve()}"
    listing = ["docker", "volume", "ls", "--quiet", "--filter", label]
    eventually(lambda: not subprocess.check_output(listing, text=True))


@needs_docker
def test_a_packed_container_beside_one_of_docker_is_refused(engine: Engine, tmp_path: Path) -> None:
    cloud, image = engine.client, engine.push(tmp_path, "sidecar_app.py")
    document = in_docker("mixed", image)
    containers(document)[1]["image"] = cloud.push(files={"app/main.py": APP})
    assert cloud.create(document).status_code == 200
    message = condition(cloud.settled("mixed"))["message"]
    assert "Container 'proxy' has an operating system of its own" in message
    assert "the image of 'app' was packed without one" in message
