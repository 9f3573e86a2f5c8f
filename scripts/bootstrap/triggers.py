"""Plan the triggers of Cloud Build: one delivers main, three per environment are run by hand.

Source: https://cloud.google.com/build/docs/api/reference/rest/v1/projects.locations.triggers
"""

from __future__ import annotations

import re
from typing import Literal

from scripts.errors import UsageError
from scripts.setup.identity_provider import BRANCH
from scripts.setup.permissions import Federation
from scripts.setup.wanted import Document, Thing, Write, quoted

_CONNECTED = re.compile(
    r"projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/connections/[^/]+/repositories/[^/]+"
)


def wanted(plan: Federation, env: str, connected: str) -> list[Thing]:
    """Return the triggers of one environment, and the one that all environments share.

    Args:
        plan: who may do what.
        env: the environment's name.
        connected: the repository's name in a connection of Cloud Build.

    Raises:
        UsageError: `connected` is not such a name, or is in another project than the account
            that builds.
    """
    match = _CONNECTED.fullmatch(connected)
    if match is None or match["project"] != plan.provider.project:
        raise UsageError(
            f"--connection {connected}: not a repository connected to Cloud Build in the project"
            f" {plan.provider.project}",
            f"gcloud builds repositories list --project={plan.provider.project}"
            " --connection=NAME --region=REGION --format='value(name)'",
        )
    region = match["region"]
    number = plan.deployer.id.rpartition("-")[2]
    push = {"repository": connected, "push": {"branch": "^main$"}}
    deliver = _trigger(
        plan,
        region,
        f"deliver-{number}",
        {"repositoryEventConfig": push, "filename": "cloudbuild/deliver.yaml"},
        {},
        kind="github",
        flags=f"--repository={connected} --branch-pattern='^main$'"
        " --build-config=cloudbuild/deliver.yaml",
    )
    source = {"repository": connected, "ref": BRANCH, "repoType": "GITHUB"}
    manual = [
        _trigger(
            plan,
            region,
            f"{verb}-{env}-{number}",
            {
                "sourceToBuild": source,
                "gitFileSource": {
                    "path": f"cloudbuild/{verb}.yaml",
                    "repository": connected,
                    "revision": BRANCH,
                    "repoType": "GITHUB",
                },
            },
            {"_ENVIRONMENT": env},
            kind="manual",
            flags=f"--repository={connected} --branch=main --build-config=cloudbuild/{verb}.yaml",
        )
        for verb in ("promote", "rollback", "resume")
    ]
    return [deliver, *manual]


def _trigger(
    plan: Federation,
    region: str,
    name: str,
    source: Document,
    values: dict[str, str],
    *,
    kind: Literal["github", "manual"],
    flags: str,
) -> Thing:
    """Return one trigger; `kind` and `flags` are what gcloud needs to create it."""
    email, project = plan.deployer.email, plan.provider.project
    base = f"/v1/projects/{project}/locations/{region}/triggers"
    settings: Document = {
        **source,
        "serviceAccount": f"projects/{project}/serviceAccounts/{email}",
        "substitutions": {"_SERVICE_ACCOUNT": email, **values},
    }
    given = ",".join(f"{key}={value}" for key, value in settings["substitutions"].items())
    where = f"--service-account={settings['serviceAccount']} --region={region} --project={project}"
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
            f"gcloud builds triggers create {kind} {flags} --name={name} --description=Shipway"
            f" --substitutions={quoted(given)} {where}",
        ),
        settings=settings,
        extensible=True,
        changed=(
            f"gcloud builds triggers update {kind} {name}"
            f" --update-substitutions={quoted(given)} {where}",
        ),
    )
