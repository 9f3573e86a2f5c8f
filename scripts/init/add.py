"""Add a service beside the existing ones: its files, from theirs and from its own code. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml

from scripts.config import relations, yamledit
from scripts.errors import UsageError, did_you_mean
from scripts.image.source import Source
from scripts.init import environments, fitting, fork
from scripts.init.environments import LOCAL
from scripts.init.fork import Answers, Fork
from scripts.init.tree import Files

_ACCOUNT = ("overlay", "spec", "template", "spec", "serviceAccountName")
_MANIFEST = """\
# The Cloud Run manifest of this service, in the format of `gcloud run services replace` and
# `gcloud run services describe --format export`. Differences between environments are in their own
# files. Releases decide traffic and revision names; files do not.
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: {name}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/maxScale: "10"
        run.googleapis.com/startup-cpu-boost: "true"
    spec:
      containers:
        - name: app
          image: app # a placeholder for the commit's own image
          ports:
            - containerPort: 8080
          resources:
            limits: {{cpu: "1", memory: 512Mi}}
"""
_RELATIONS = """\
# yaml-language-server: $schema=services.schema.json
# What the services have to do with each other. docs/several-services.md describes every key.
"""


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """The service to add.

    Attributes:
        name: its name.
        source: the folder that it is built from.
        calls: the services that it calls.
        access: "public" or "private"; None for that of the existing services.
    """

    name: str
    source: str
    calls: Sequence[str] = ()
    access: str | None = None


def check(files: Files, added: Added, known: list[str]) -> None:
    """Refuse a service that cannot be added.

    Raises:
        UsageError: its name is taken, there is nothing to take its environments from, its runtime
            account would be another service's, or a service that it calls does not exist.
    """
    name = added.name
    if name in known:
        raise UsageError(
            f"--add {name}: pipelines/{name}/ already exists",
            f"./ship init {name} changes it; to add another service, give it another name",
        )
    if left := sorted(path for path in files if path.startswith(f"pipelines/{name}/")):
        raise UsageError(
            f"--add {name}: pipelines/{name}/ has no service.yaml, but {left[0]}",
            f"write pipelines/{name}/service.yaml, or delete the folder and run it again",
        )
    if not known:
        raise UsageError("--add: there is no service yet", f"./ship init {name}")
    for callee in added.calls:
        if callee not in known:
            raise UsageError(
                f"--calls {callee}: no such service", did_you_mean(callee, known, "services here")
            )
    account = fork.runtime_account(name)
    for other in known:
        if fork.runtime_account(other) == account:
            raise UsageError(
                f"--add {name}: it would run as {account}, which is the account of {other}",
                "give it another name: the first 22 characters must differ",
            )


def added_to(files: Files, added: Added, code: Source, known: Sequence[str]) -> Files:
    """Return the files with the service in them. No other service's file changes.

    Args:
        files: the result of `tree.read`.
        added: the service, which `check` has checked.
        code: the folder that it is built from.
        known: the existing services.
    """
    folder = f"pipelines/{added.name}"
    answers = Answers(service=added.name, source=added.source, projects={})
    manifest = fork.with_source(_MANIFEST.format(name=yamledit.scalar(added.name)), answers)
    made = dict(files)
    made[f"{folder}/service.yaml"] = fitting.manifest(manifest, code)
    made[f"{folder}/smoke.yaml"] = fitting.smoke_for(code)
    # A service that it calls is a poor model: that one may be private where this one is not.
    models = sorted(known, key=lambda name: name in added.calls)
    for env, text in _environments(files, models).items():
        made[f"{folder}/{env}.yaml"] = _environment(text, added)
    if added.calls:
        made[relations.FILE] = calling(
            files.get(relations.FILE, _RELATIONS), added.name, added.calls
        )
    return made


def _environments(files: Files, models: Sequence[str]) -> Mapping[str, str]:
    """Return environment -> its file of the first service that has it."""
    found: dict[str, str] = {}
    for model in models:
        for env in [LOCAL, *Fork(files, model).projects]:
            if text := files.get(f"pipelines/{model}/{env}.yaml"):
                found.setdefault(env, text)
    return found


def _environment(text: str, added: Added) -> str:
    """Return another service's file as this one's: without what is about that service alone."""
    account = yamledit.get(text, _ACCOUNT)
    text = yamledit.remove(text, ["overlay"])
    text = text if text.endswith("\n") else f"{text}\n"
    if added.access and yamledit.get(text, ["access"]) is None:
        text = yamledit.insert_after(text, ["registry"], f"access: {added.access}")
    elif added.access:
        text = yamledit.replace(text, ["access"], added.access)
    if not account:
        return text
    domain = str(account).partition("@")[2]
    return environments.with_account(text, f"{fork.runtime_account(added.name)}@{domain}")


def calling(text: str, caller: str, callees: Sequence[str]) -> str:
    """Return services.yaml in which a service calls others, with every comment kept.

    Raises:
        UsageError: its `calls` is not as the format has it.
    """
    calls = yamledit.get(text, ["calls"])
    entry = f"{yamledit.scalar(caller)}: {yamledit.flow(callees)}"
    if calls is None and "calls" not in (yamledit.get(text, []) or {}):
        return f"{text if text.endswith(chr(10)) else text + chr(10)}calls:\n  {entry}\n"
    if not calls:
        return yamledit.replace(text, ["calls"], f"{{{entry}}}")
    if not isinstance(calls, dict):
        raise UsageError(f"{relations.FILE}: calls: expected SERVICE: [CALLEE, ...]")
    if (present := calls.get(caller)) is not None:
        more = [name for name in callees if name not in present]
        if not more:
            return text
        if not isinstance(present, list):
            raise UsageError(
                f"{relations.FILE}: calls.{caller} is there already, without {', '.join(more)}",
                "add it there; then run the same command without --calls",
            )
        return yamledit.replace(text, ["calls", caller], yamledit.flow([*present, *more]))
    made = yamledit.insert_after(text, ["calls", [*calls][-1]], entry)
    if _calls(made) == {**calls, caller: [*callees]}:
        return made
    # The mapping is on one line: write it as JSON, which is YAML too.
    return yamledit.replace(text, ["calls"], json.dumps({**calls, caller: [*callees]}))


def _calls(text: str) -> Any:
    try:
        return yamledit.get(text, ["calls"])
    except yaml.YAMLError:
        return None
