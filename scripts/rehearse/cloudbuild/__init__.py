"""Run a Cloud Build file on this machine, against a scratch local Cloud Run that enforces IAM.

Its account has the roles that scripts/setup/permissions.py plans for the environment's trigger. The
build is main's, as in the trigger, on whatever branch it runs.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripts.command.progress import Progress
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.config import workflows
from scripts.config.yamlfile import YamlFile
from scripts.errors import UsageError
from scripts.machine import git, scratch
from scripts.rehearse import before
from scripts.rehearse.cloudbuild import build as files
from scripts.rehearse.cloudbuild import metadata, place, runner
from scripts.rehearse.cloudbuild.build import Build
from scripts.rehearse.world import World
from scripts.setup import permissions
from scripts.setup.permissions import Federation, has_first
from scripts.setup.resources import Account


def rehearse(
    root: Path,
    file: str,
    substitutions: Mapping[str, str],
    progress: Progress,
    *,
    builder: str = "cloud-build",
    bake: str = "0s",
    ref: str = workflows.BRANCH,
) -> Result:
    """Run a build file as a trigger does.

    Args:
        root: The repository.
        file: The build file's path in it, such as cloudbuild/deliver.yaml.
        substitutions: The substitutions of the trigger or the user.
        progress: Gets each line of progress.
        builder: "docker" or "cloud-build".
        bake: How long each step of a rollout is watched.
        ref: The branch that a manual run names. If it is not main, main is one commit behind it.

    Returns:
        How each step ended; its code is 0 if every step succeeded, else 1.

    Raises:
        UsageError: Cloud Build would reject the file.
    """
    # A wrong file is reported before anything starts.
    _read(root, file, substitutions, {}, "build@project.iam.gserviceaccount.com")
    # Files that a step wrote as root in its container cannot be deleted.
    with TemporaryDirectory(prefix="shipway-rehearsal-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        progress.line(_begins(file, builder, bake))
        world = World(root, folder, builder=builder, bake=bake, ref=workflows.BRANCH)
        env, wanted = substitutions.get("_ENVIRONMENT"), substitutions.get("_SERVICE", "")
        before.check(world, env, wanted)
        with world:
            before.prepare(world, Path(file).stem, env, wanted, progress)
            if ref != workflows.BRANCH:
                world.leave_main(ref.removeprefix("refs/heads/"))
            ends = play(world, folder, file, substitutions, progress, ref)
            services = world.services()
    return _result(file, ends, services)


def play(
    world: World,
    folder: Path,
    file: str,
    substitutions: Mapping[str, str],
    progress: Progress,
    ref: str = workflows.BRANCH,
) -> list[runner.End]:
    """Run a build file in a prepared world; return how each step ended.

    Args:
        world: The world.
        folder: An empty scratch folder.
        file: The build file's path in the repository.
        substitutions: The substitutions of the trigger or the user.
        progress: Gets each line of progress.
        ref: The branch that a manual run names.
    """
    workspace = _checked_out(world, folder / "workspace", ref)
    main = _checked_out(world, folder / "main", workflows.BRANCH)
    access = _access(world, substitutions.get("_ENVIRONMENT"))
    built_in = _built_in(world, workspace, file, ref)
    made = _read(main, file, substitutions, built_in, access.deployer.email)
    account = _let_in(world, made.build, access)
    return _run(world, made, account, workspace, folder / "build", progress, world.builder)


def _read(
    root: Path, file: str, given: Mapping[str, str], built_in: Mapping[str, str], email: str
) -> files.Loaded:
    """Read the file, with the account that the trigger names unless another one is given."""
    if "$_SERVICE_ACCOUNT" in YamlFile(root / file, file).text:
        given = {"_SERVICE_ACCOUNT": email, **given}
    read = files.load(root, file, built_in, given)
    if not read.build.account.endswith(".iam.gserviceaccount.com"):
        raise UsageError(
            f"{file}: the build names no service account and would run as the project's default",
            "add serviceAccount: projects/$PROJECT_ID/serviceAccounts/$_SERVICE_ACCOUNT",
        )
    return read


def _access(world: World, env: str | None) -> Federation:
    """Return the planned access of the environment's trigger; of the first one's without one."""
    env = env or min(world.environments, key=lambda name: not has_first(world.declared(name)))
    planned, declared = world.access[env], world.declared(env)
    return permissions.for_cloud_build(planned, world.repository, declared)


def _let_in(world: World, build: Build, access: Federation) -> Account:
    """Give the build's account the roles of the trigger's account, and return it."""
    account = Account(email=build.account, purpose="the build")
    for binding in access.bindings:
        if binding.member == access.deployer.member:
            world.owner.grant(account, binding)
    return account


def _checked_out(world: World, workspace: Path, ref: str) -> Path:
    """Check out a branch as Cloud Build does: without the history."""
    source, branch = world.clone.resolve().as_uri(), ref.removeprefix("refs/heads/")
    scratch.git("clone", "--quiet", "--depth", "1", "--branch", branch, source, str(workspace))
    name = f"{world.repository.owner}/{world.repository.name}"
    scratch.git("remote", "set-url", "origin", f"git@github.com:{name}.git", cwd=workspace)
    return workspace


def _fetching(world: World, folder: Path) -> dict[str, str]:
    """Return variables that make git fetch from the clone instead of GitHub."""
    program = folder / "github"
    program.write_text(f"#!/bin/sh\nexec git-upload-pack {shlex.quote(str(world.clone))}\n")
    program.chmod(0o755)
    return {
        "GIT_SSH_COMMAND": shlex.quote(str(program)),
        "GIT_SSH_VARIANT": "simple",
        # In a container the folders belong to another user.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }


def _built_in(world: World, workspace: Path, file: str, ref: str) -> dict[str, str]:
    """Return the substitutions that a trigger fills in.

    Source: https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values
    """
    sha = git.commit(workspace).sha
    project = permissions.home(world.pipelines)
    name = f"{world.repository.owner}/{world.repository.name}"
    return {
        "PROJECT_ID": project,
        "PROJECT_NUMBER": world.owner.number(project),
        "BUILD_ID": str(uuid.uuid4()),
        "LOCATION": world.pipelines[0].environment.regions[0],
        "TRIGGER_NAME": Path(file).stem,
        "COMMIT_SHA": sha,
        "REVISION_ID": sha,
        "SHORT_SHA": sha[:7],
        "REPO_NAME": world.repository.name,
        "REPO_FULL_NAME": name,
        "BRANCH_NAME": ref.removeprefix("refs/heads/"),
        "REF_NAME": ref.removeprefix("refs/heads/"),
        "TRIGGER_BUILD_CONFIG_PATH": file,
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
        lambda: world.owner.access_token(account),
        lambda audience: world.owner.id_token(account, audience),
    ) as host:
        variables = {
            **world.environment,
            "GCE_METADATA_HOST": host,
            "GCE_METADATA_IP": host,
            **_fetching(world, folder.parent),
        }
        secrets = {
            secret.env: world.owner.secret(account, secret.version_name)
            for secret in made.build.available_secrets.secret_manager
        }
        where = place.Place(
            folder, workspace, made.build, variables=variables, mapped=made.variables,
            secrets=secrets, docker=builder == "docker",
            shown=folder.parent,
        )  # fmt: skip
        return runner.run(made.build, where, progress)


def _begins(file: str, builder: str, bake: str) -> str:
    images = "built by Docker" if builder == "docker" else "built by the local Cloud Build"
    return (
        f"rehearsing {file}: images are {images}; bakes take {bake}; a step runs in its own image"
        " if Docker can get it, else its command runs on this machine"
    )


def _result(file: str, ends: list[runner.End], services: dict[str, Any]) -> Result:
    failed = any(end.status != "SUCCESS" and not end.allowed for end in ends)
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
