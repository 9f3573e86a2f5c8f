"""From a Revision's document to what the instances room needs to start it."""

from __future__ import annotations

from typing import Any

from emulator.instances.launch import Launch, Probe
from emulator.names import Key
from emulator.run import scale
from emulator.run.defaults import ingress_index
from emulator.run.resources import service_of

Document = dict[str, Any]


def launch(key: Key, revision: Document) -> Launch:
    """How to start the revision `key`; its image is by digest once it was resolved."""
    spec = revision["spec"]
    container = spec["containers"][ingress_index(spec)]
    limits = container["resources"]["limits"]
    cpu = scale.amount(limits["cpu"])
    port = container["ports"][0]["containerPort"]
    return Launch(
        revision=key,
        service=service_of(revision),
        image=revision["status"].get("imageDigest") or container["image"],
        container=container.get("name", ""),
        command=_texts(container.get("command")),
        args=_texts(container.get("args")),
        working_dir=container.get("workingDir"),
        env=tuple(
            (variable["name"], variable.get("value", ""))
            for variable in container.get("env", [])
            if "valueFrom" not in variable
        ),
        container_port=port,
        probe=_probe(container["startupProbe"], port),
        service_account=spec["serviceAccountName"],
        liveness=_probe(container["livenessProbe"], port) if "livenessProbe" in container else None,
        concurrency=scale.concurrency(spec, cpu),
        bounds=scale.of_revision(revision["metadata"].get("annotations", {})),
        memory=int(scale.amount(limits["memory"])),
        cpu=cpu,
        request_timeout=float(spec["timeoutSeconds"]),
    )


def _texts(items: list[str] | None) -> tuple[str, ...] | None:
    return tuple(items) if items else None


def _probe(probe: Document, port: int) -> Probe:
    kind = next((name for name in ("httpGet", "grpc", "tcpSocket") if name in probe), "tcpSocket")
    action = probe.get(kind, {})
    is_default = kind == "tcpSocket" and probe["periodSeconds"] == 240
    return Probe(
        kind={"httpGet": "HTTP", "grpc": "GRPC", "tcpSocket": "TCP"}[kind],
        port=action.get("port", port),
        path=action.get("path", "/"),
        headers=tuple((h["name"], h.get("value", "")) for h in action.get("httpHeaders", [])),
        initial_delay=probe.get("initialDelaySeconds", 0),
        period=probe["periodSeconds"],
        timeout=probe["timeoutSeconds"],
        threshold=probe["failureThreshold"],
        is_default=is_default,
    )
