"""Checks of what a rollout watches, and of who hears of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.config import secret_name
from scripts.config.yamlfile import YamlFile
from scripts.doctor import cloud
from scripts.doctor.case import Case
from scripts.doctor.finding import Finding, ok, skipped, warning
from scripts.setup.resources import Resource

_AFFINITY = "run.googleapis.com/sessionAffinity"
_TEMPLATE = ("spec", "template", "metadata", "annotations")


def affinity(case: Case) -> Iterator[Finding]:
    """Warn of session affinity where a rollout decides by what users are answered.

    Source: https://docs.cloud.google.com/run/docs/configuring/session-affinity: a user's requests
    go to one revision, and the split of the traffic is no longer by chance.
    """
    pipeline = case.pipeline
    if not pipeline.environment.rollout.watch:
        return
    for file, value, at in (
        (f"{pipeline.env}.yaml", pipeline.overlay, ["overlay"]),
        ("service.yaml", pipeline.manifest, []),
    ):
        found: Any = value
        for key in _TEMPLATE:
            found = (found or {}).get(key)
        if str((found or {}).get(_AFFINITY, "")).lower() == "true":
            relative = str(Path("pipelines", pipeline.service, file))
            line = YamlFile(case.root / relative, relative).line([*at, *_TEMPLATE, _AFFINITY])
            yield warning(
                "watch",
                f"{relative}:{line}: {_AFFINITY} sends a user to the same revision each time: one"
                " user's bad day counts as many answers, and false alarms are not bounded any more",
                f"{relative}:{line}: delete it, or delete `watch` from {pipeline.env}.yaml",
            )


def receivers(case: Case) -> Iterator[Finding]:
    """Check that each address and key of `notify` can be read."""
    create = f"./ship bootstrap --env {case.pipeline.env}"
    for receiver in case.environment.notify:
        for reference in filter(None, (receiver.url, receiver.key)):
            if reference.startswith("$"):
                if os.environ.get(reference[1:]):
                    yield ok("notify", f"{receiver.to}: {reference} is set")
                else:
                    yield skipped("notify", f"{receiver.to}: {reference} is not set here; the job"
                                  " that delivers needs it")  # fmt: skip
            elif found := secret_name.parse(reference):
                secret = Resource(kind="secret", project=found[0], name=found[1])
                yield cloud.secret(case, "notify", secret, create, cloud.add_value(secret))
