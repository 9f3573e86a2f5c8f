"""A Cloud Build file, run on this machine against a scratch local Cloud Run that enforces IAM.

Its account may do what the pusher and the deployers of scripts/core/federation.py may: a build is
one identity from its first step to its last.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripts.core import federation, git
from scripts.core.errors import UsageError
from scripts.core.federation import Account
from scripts.core.report import Progress, Result, Table, show
from scripts.rehearse import before
from scripts.rehearse.cloudbuild import build as files
from scripts.rehearse.cloudbuild import metadata, place, runner
from scripts.rehearse.cloudbuild.build import Build
from scripts.rehearse.workflow import Workflow
from scripts.rehearse.world import World, pipelines


def rehearse(
    root: Path,
    file: str,
    substitutions: Mapping[str, str],
    progress: Progress,
    *,
    builder: str = "pack",
    bake: str = "0s",
    format_: str = "table",
) -> int:
    """Run a build file as a trigger on main would.

    Args:
        root: the repository.
        file: the build file, below it, such as cloudbuild/deliver.yaml.
        substitutions: what the trigger, or whoever runs it, gives.
        progress: told what happens.
        builder: "docker" or "pack".
        bake: how long each step of a rollout is watched.
        format_: of the result: "table" or "json".

    Returns:
        0 if every step succeeded, else 1.

    Raises:
        UsageError: Cloud Build would not take the file.
    """
    rehearsed = _workflow(file, substitutions)
    # Before anything is started: what is wrong in the file is said at once.
    read = _read(root, file, substitutions, {})
    with TemporaryDirectory(prefix="shipway-rehearsal-") as scratch:
        folder = Path(scratch)
        progress.line(_told(file, builder, bake))
        world = World(root, folder, builder=builder, bake=bake, ref="refs/heads/main")
        before.check(world, rehearsed)
        with world:
            before.prepare(world, rehearsed, progress)
            account = _account(world, read.build)
            workspace = _checked_out(world, folder / "workspace")
            made = _read(workspace, file, substitutions, _built_in(world, workspace, account, file))
            ends = _run(world, made, account, workspace, folder / "build", progress, builder)
            services = world.services()
    return show(_result(file, ends, services), format_)


def _workflow(file: str, substitutions: Mapping[str, str]) -> Workflow:
    """What has to be there before: the same as for the workflow of that name."""
    name = f"{Path(file).stem}.yml"
    env = substitutions.get("_ENVIRONMENT")
    data: dict[str, Any] = {"on": {"workflow_dispatch": {}} if env else {"push": {}}, "jobs": {}}
    return Workflow(name=name, data=data, inputs={"environment": env} if env else {})


def _read(
    root: Path, file: str, given: Mapping[str, str], built_in: Mapping[str, str]
) -> files.Loaded:
    """The file, with the account that a trigger names where nobody gave one."""
    text = (root / file).read_text(encoding="utf-8") if (root / file).is_file() else ""
    if "$_SERVICE_ACCOUNT" in text:
        given = {"_SERVICE_ACCOUNT": _default_account(root), **given}
    return files.load(root, file, built_in, given)


def _default_account(root: Path) -> str:
    return f"cloud-build@{federation.home(pipelines(root))}.iam.gserviceaccount.com"


def _account(world: World, build: Build) -> Account:
    """The build's account, with the roles of the pusher and of every deployer.

    Raises:
        UsageError: the file names none: it would be the project's default account.
    """
    if not build.account.endswith(".iam.gserviceaccount.com"):
        raise UsageError(
            "the build names no service account: it would run as the project's default one",
            "serviceAccount: projects/$PROJECT_ID/serviceAccounts/$_SERVICE_ACCOUNT",
        )
    account = Account(email=build.account, purpose="the build")
    for access in world.access.values():
        theirs = {access.pusher.member, access.deployer.member}
        for binding in access.bindings:
            if binding.member in theirs:
                world.grant(account, binding)
    return account


def _checked_out(world: World, workspace: Path) -> Path:
    """The commit as Cloud Build checks it out: alone, without the history before it."""
    source = world.clone.resolve().as_uri()
    command = ["git", "clone", "--quiet", "--depth", "1", source, str(workspace)]
    subprocess.run(command, check=True, capture_output=True)
    return workspace


def _built_in(world: World, workspace: Path, account: Account, file: str) -> dict[str, str]:
    """What a trigger on main fills in.

    Source: https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values
    """
    sha = git.commit(workspace).sha
    project = federation.home(world.pipelines)
    name = f"{world.repository.owner}/{world.repository.name}"
    return {
        "PROJECT_ID": project,
        "PROJECT_NUMBER": world.number(project),
        "BUILD_ID": str(uuid.uuid4()),
        "LOCATION": world.pipelines[0].environment.regions[0],
        "TRIGGER_NAME": Path(file).stem,
        "COMMIT_SHA": sha,
        "REVISION_ID": sha,
        "SHORT_SHA": sha[:7],
        "REPO_NAME": world.repository.name,
        "REPO_FULL_NAME": name,
        "BRANCH_NAME": "main",
        "REF_NAME": "main",
        "TRIGGER_BUILD_CONFIG_PATH": file,
        "SERVICE_ACCOUNT_EMAIL": account.email,
        "SERVICE_ACCOUNT": f"projects/{account.project}/serviceAccounts/{account.email}",
    }


def _run(
    world: World,
    made: files.Loaded,
    account: Account,
    workspace: Path,
    folder: Path,
    progress: Progress,
    builder: str,
) -> list[runner.End]:
    with metadata.serve(
        account.project,
        account.email,
        lambda: world.access_token(account),
        lambda audience: world.id_token(account, audience),
    ) as host:
        variables = {
            **world.environment,
            "GCE_METADATA_HOST": host,
            "GCE_METADATA_IP": host,
            # Where the commit is fetched from, in the place of what Cloud Build is connected to.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        secrets = {
            secret.env: world.secret(account, secret.version_name)
            for secret in made.build.available_secrets.secret_manager
        }
        where = place.Place(
            folder, workspace, made.build, variables=variables, mapped=made.variables,
            secrets=secrets, docker=builder == "docker",
        )  # fmt: skip
        return runner.run(made.build, where, progress)


def _told(file: str, builder: str, bake: str) -> str:
    images = "built by Docker" if builder == "docker" else "packed without Docker"
    return (
        f"rehearsing {file}: images are {images}; bakes take {bake}; a step runs in its own image"
        " where Docker has it, else its command runs on this machine"
    )


def _result(file: str, ends: list[runner.End], services: dict[str, Any]) -> Result:
    failed = any(end.status != "SUCCESS" and not end.note.endswith(", allowed") for end in ends)
    return Result(
        data={
            "file": file,
            "steps": {end.title: end.status for end in ends},
            "services": services,
        },
        table=Table(
            columns=["STEP", "STATUS", "TOOK", "WHERE"],
            rows=[
                [end.title, end.status, f"{end.seconds:.1f} s", end.note or end.where]
                for end in ends
            ],
        ),
        code=1 if failed else 0,
    )
