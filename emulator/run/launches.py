"""Turns a Revision's document into a Launch, which holds everything to start an instance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emulator.instances.launch import Launch, Mount, Probe, SecretVariable
from emulator.names import Key, project_number
from emulator.run import quantities, scale, sidecars
from emulator.run.defaults import ingress_index
from emulator.run.resources import service_of

Document = dict[str, Any]


def launch(key: Key, revision: Document) -> Launch:
    """Return how to start the revision `key`. Once its image is resolved, it is by digest."""
    spec = revision["spec"]
    annotations = revision["metadata"].get("annotations", {})
    index = ingress_index(spec)
    numbers = [number for number in range(len(spec["containers"])) if number != index]
    ingress = _container(key, revision, index)
    return replace(
        ingress,
        image=revision["status"].get("imageDigest") or ingress.image,
        concurrency=scale.concurrency(spec, ingress.cpu),
        bounds=scale.of_revision(annotations),
        request_timeout=float(spec["timeoutSeconds"]),
        sidecars=tuple(_container(key, revision, number) for number in numbers),
    )


def _container(key: Key, revision: Document, index: int) -> Launch:
    spec = revision["spec"]
    container = spec["containers"][index]
    names = sidecars.names(spec, service_of(revision))
    name = names[index] if len(names) > 1 else container.get("name", "")
    needs = sidecars.dependencies(revision["metadata"].get("annotations", {}))
    limits = container["resources"]["limits"]
    port = container["ports"][0]["containerPort"] if index == ingress_index(spec) else 0
    return Launch(
        revision=key,
        service=service_of(revision),
        image=container["image"],
        container=name,
        command=_texts(container.get("command")),
        args=_texts(container.get("args")),
        working_dir=container.get("workingDir"),
        env=tuple(
            (variable["name"], variable.get("value", ""))
            for variable in container.get("env", [])
            if "valueFrom" not in variable
        ),
        secrets=_secrets(key, revision, index),
        container_port=port,
        probe=_probe(container["startupProbe"], port) if "startupProbe" in container else None,
        service_account=spec["serviceAccountName"],
        liveness=_probe(container["livenessProbe"], port) if "livenessProbe" in container else None,
        memory=int(quantities.amount(limits["memory"])),
        cpu=quantities.amount(limits["cpu"]),
        mounts=_mounts(spec, container),
        depends_on=tuple(dict.fromkeys(needs.get(name, []))),
    )


def _mounts(spec: Document, container: Document) -> tuple[Mount, ...]:
    """Return a container's volumes in memory. Volumes of other kinds are absent here."""
    in_memory = {one["name"] for one in spec.get("volumes", []) if "emptyDir" in one}
    return tuple(
        Mount(one["name"], one["mountPath"], one.get("readOnly", False))
        for one in container.get("volumeMounts", [])
        if one["name"] in in_memory
    )


def _secrets(key: Key, revision: Document, index: int) -> tuple[SecretVariable, ...]:
    spec = revision["spec"]
    aliases = _aliases(revision)
    home = f"projects/{project_number(key.project)}/secrets"
    found = []
    for number, variable in enumerate(spec["containers"][index].get("env", [])):
        if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
            name = reference["name"]
            found.append(
                SecretVariable(
                    name=variable["name"],
                    secret=aliases.get(name, f"{home}/{name}"),
                    version=reference["key"],
                    field=f"spec.template.spec.containers[{index}].env[{number}]",
                )
            )
    return tuple(found)


def _aliases(revision: Document) -> dict[str, str]:
    """Return the secrets of other projects by alias, `alias:projects/PROJECT/secrets/NAME,…`.

    Source: https://cloud.google.com/run/docs/configuring/services/secrets (secrets from other
    projects).
    """
    text = revision["metadata"].get("annotations", {}).get("run.googleapis.com/secrets", "")
    found = {}
    for part in text.split(","):
        alias, _, secret = part.strip().partition(":")
        words = secret.split("/")
        if len(words) == 4 and words[0] == "projects" and words[2] == "secrets":
            found[alias] = f"projects/{project_number(words[1])}/secrets/{words[3]}"
    return found


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
