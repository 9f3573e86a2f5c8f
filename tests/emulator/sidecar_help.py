"""Services with sidecars, for the tests of both runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.emulator.cloud_run_help import CloudRun, service

APP = (Path(__file__).parent / "sidecar_app.py").read_bytes()
DEPENDENCIES = "run.googleapis.com/container-dependencies"
UPSTREAM = 9090
Document = dict[str, Any]


def system(name: str, image: str, revision: str = "a", **needs: list[str]) -> Document:
    """Return a service whose container `proxy` takes the requests and forwards them to `app`.

    `needs` are the containers that each of them depends on.
    """
    document = service(name, image, f"{name}-{revision}")
    template = document["spec"]["template"]
    if needs:
        template["metadata"]["annotations"] = {DEPENDENCIES: json.dumps(needs)}
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    proxy = {
        "name": "proxy",
        "image": image,
        "args": ["proxy", "", str(UPSTREAM)],
        "ports": [{"containerPort": 8080}],
        "volumeMounts": mounts,
    }
    app = {
        "name": "app",
        "image": image,
        "args": ["app", str(UPSTREAM), ""],
        "startupProbe": {"tcpSocket": {"port": UPSTREAM}, "periodSeconds": 2},
        "volumeMounts": mounts,
    }
    template["spec"]["containers"] = [proxy, app]
    template["spec"]["volumes"] = [{"name": "shared", "emptyDir": {"medium": "Memory"}}]
    return document


def containers(document: Document) -> list[Document]:
    """Return the containers of a service: the proxy and the app."""
    found: list[Document] = document["spec"]["template"]["spec"]["containers"]
    return found


def texts(cloud_run: CloudRun, name: str, more: str = "") -> list[str]:
    """Return the texts of a service's log, oldest first."""
    asked = f'resource.labels.service_name="{name}"{more}'
    answer = cloud_run.logs(asked, orderBy="timestamp asc").json()
    return [str(entry.get("textPayload", "")) for entry in answer.get("entries", [])]


def place(lines: list[str], part: str) -> int:
    """Return the number of the first line that has a text."""
    return next(number for number, line in enumerate(lines) if part in line)
