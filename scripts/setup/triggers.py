"""Plan the triggers of Cloud Build: in each environment one delivers main, three are run by hand.

A trigger that names a file of the repository runs it as it is on the branch of a manual run. Then
everyone who may push a branch decides what runs as the trigger's account. These triggers hold the
build itself instead: a copy of the file, made here. No branch changes it, and its first step
refuses a commit that is not on main. All values except the user's input are written into the copy,
because a manual run may replace any substitution.

Sources: https://cloud.google.com/build/docs/api/reference/rest/v1/projects.locations.triggers
(`build`, `approvalConfig`) and
https://cloud.google.com/build/docs/api/reference/rest/v1/RepoSource (what a manual run chooses).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.config.pipelines import Pipeline
from scripts.config.workflows import BRANCH
from scripts.config.yamlfile import YamlFile
from scripts.errors import UsageError
from scripts.setup.permissions import Federation, has_first
from scripts.setup.wanted import Document, Thing, Write, quoted

FOLDER = "cloudbuild"
_CONNECTED = re.compile(
    r"projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/connections/[^/]+/repositories/[^/]+"
)
_ON_MAIN = "--branch-pattern='^main$'"
_NAME = re.compile(r"\$\$|\$(\w+)|\$\{(\w+)\}")  # $$ is a $, not a name


def wanted(plan: Federation, declared: Sequence[Pipeline], connected: str) -> list[Thing]:
    """Return the triggers of one environment.

    Args:
        plan: who may do what.
        declared: every service that has the environment.
        connected: the repository's name in a connection of Cloud Build.

    Raises:
        UsageError: `connected` is not such a name, or is in another project than the account
            that builds; or a file in cloudbuild/ is missing or wrong.
    """
    match = _CONNECTED.fullmatch(connected)
    if match is None or match["project"] != plan.provider.project:
        raise UsageError(
            f"--connection {connected}: not a repository connected to Cloud Build in the project"
            f" {plan.provider.project}",
            f"gcloud builds repositories list --project={plan.provider.project}"
            " --connection=NAME --region=REGION --format='value(name)'",
        )
    root, env = declared[0].root, declared[0].env
    is_first = has_first(declared)
    number = plan.deployer.id.rpartition("-")[2]
    pushed = {"repositoryEventConfig": {"repository": connected, "push": {"branch": "^main$"}}}
    by_hand = {"sourceToBuild": {"repository": connected, "ref": BRANCH, "repoType": "GITHUB"}}
    made = []
    for verb, file, waits in (
        ("deliver", "deliver" if is_first else "deliver-after", not is_first),
        ("promote", "promote", not is_first),
        # An approval would stop a rollback at night, and resume gives no traffic.
        ("rollback", "rollback", False),
        ("resume", "resume", False),
    ):
        name = f"{verb}-{env}-{number}"
        build = rendered(
            root,
            f"{FOLDER}/{file}.yaml",
            {
                "PROJECT_ID": plan.provider.project,
                "TRIGGER_NAME": name,
                "_ENVIRONMENT": env,
                "_SERVICE_ACCOUNT": plan.deployer.email,
            },
        )
        source = pushed if verb == "deliver" else by_hand
        made.append(_trigger(plan, match["region"], name, source, build, waits=waits))
    return made


def rendered(root: Path, file: str, values: Mapping[str, str]) -> Document:
    """Return the build of a file, with some of its substitutions written in as text.

    Args:
        root: the repository.
        file: the build file's path in it.
        values: the substitutions to write in: name -> value.

    Raises:
        UsageError: the file is missing or not a build.
    """

    def write(value: Any) -> Any:
        if isinstance(value, str):
            return _NAME.sub(lambda m: values.get(m[1] or m[2] or "", m[0]), value)
        if isinstance(value, list):
            return [write(item) for item in value]
        if isinstance(value, dict):
            # A script is never substituted in: $NAME is its own variable there.
            return {k: v if k == "script" else write(v) for k, v in value.items()}
        return value

    data = YamlFile(root / file, file).data
    if not isinstance(data, dict) or not data.get("steps"):
        raise UsageError(f"{file}: no build steps are specified")
    build: Document = write(data)
    return build


def _trigger(
    plan: Federation,
    region: str,
    name: str,
    source: Document,
    build: Document,
    *,
    waits: bool,
) -> Thing:
    """Return one trigger. `waits` is whether its builds wait for an approval."""
    email, project = plan.deployer.email, plan.provider.project
    base = f"/v1/projects/{project}/locations/{region}/triggers"
    account = f"projects/{project}/serviceAccounts/{email}"
    settings: Document = {**source, "build": build, "serviceAccount": account}
    common = f"--inline-config=/dev/stdin --service-account={account}"
    if waits:
        settings["approvalConfig"] = {"approvalRequired": True}
        common += " --require-approval"
    [where] = source.values()
    which = f"--repository={where['repository']}"
    kind, ref = ("manual", "--branch=main") if "ref" in where else ("github", _ON_MAIN)
    piped = f"printf %s {quoted(json.dumps(build))} |"
    common += f" --region={region} --project={project}"
    return Thing(
        kind="trigger",
        name=name,
        project=project,
        api="cloudbuild",
        path=f"{base}/{name}",
        create=Write(
            method="POST",
            api="cloudbuild",
            path=base,
            body={"name": name, "description": "Shipway", **settings},
        ),
        gcloud=(
            f"{piped} gcloud builds triggers create {kind} --name={name} --description=Shipway"
            f" {which} {ref} {common}",
        ),
        settings=settings,
        extensible=True,
        changed=(f"{piped} gcloud builds triggers update {kind} {name} {common}",),
    )
