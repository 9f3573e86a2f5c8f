"""Run a workflow of GitHub or Cloud Build on this machine, against a scratch local Cloud Run.

Runs the real file with its jobs, conditions and outputs. Tokens come from a local issuer, images go
into a local registry. WORKFLOW is deliver (the default), ci, promote, rollback or resume, which
run with act, or a file such as cloudbuild/deliver.yaml, which runs step by step.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from scripts.command import options, values
from scripts.command.call import Call
from scripts.command.options import Format, option
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.image import docker_command
from scripts.rehearse import act, before, workflow
from scripts.rehearse.world import World


class Options(options.Options, frozen=True, kw_only=True):
    workflow: Annotated[
        str, option(metavar="WORKFLOW", help="the workflow or file (default: %(default)s)")
    ] = "deliver"
    input: Annotated[
        tuple[tuple[str, str], ...],
        option(
            "--input",
            parse=values.name_and_value,
            metavar="NAME=VALUE",
            help="an input of the Run workflow form, or a substitution; may be repeated",
        ),
    ] = ()
    actions: Annotated[
        Path | None,
        option(
            "--actions",
            metavar="FOLDER",
            help="checked-out actions, as FOLDER/OWNER/NAME (default: act fetches them)",
        ),
    ] = None
    ref: Annotated[
        str,
        option("--ref", parse=values.branch, help="the branch it runs on (default: %(default)s)"),
    ] = "refs/heads/main"
    bake: options.FixedBake = "0s"
    builder: Annotated[
        Literal["docker", "cloud-build"] | None,
        option("--builder", help="default: docker if an engine answers, else cloud-build"),
    ] = None
    format: Format = "table"


def run(options: Options, call: Call) -> int:
    started = time.monotonic()
    root = call.root
    inputs = dict(options.input)
    if options.workflow.endswith(".yaml"):
        from scripts.rehearse import cloudbuild

        result = cloudbuild.rehearse(
            root,
            options.workflow,
            inputs,
            call.progress,
            builder=_builder(options.builder),
            bake=options.bake,
            ref=options.ref,
        )
        return call.show(result, options.format)
    rehearsed = workflow.load(root, options.workflow, inputs)
    actions = act.local(rehearsed.actions, options.actions)
    progress = call.progress
    builder = _builder(options.builder)
    with TemporaryDirectory(prefix="shipway-rehearsal-") as scratch:
        folder = Path(scratch)
        progress.line(_begins(rehearsed, builder, options))
        world = World(root, folder, builder=builder, bake=options.bake, ref=options.ref)
        env, services = inputs.get("environment"), inputs.get("service", "")
        before.check(world, env, services)
        with world:
            if rehearsed.event == "pull_request":
                world.take_up()
            else:
                before.prepare(world, Path(rehearsed.file).stem, env, services, progress)
            ends = play(world, rehearsed, actions)
            live = world.services() if options.format == "json" else {}
    return call.show(_result(ends, live, time.monotonic() - started), options.format)


def play(world: World, rehearsed: workflow.Workflow, actions: list[str]) -> list[act.JobEnd]:
    """Run a workflow in a prepared world; return how each job ended.

    Args:
        world: The world.
        rehearsed: The workflow.
        actions: The result of `act.local`.
    """
    copies = world.folder / "workflows"
    copies.mkdir(exist_ok=True)
    for file, text in rehearsed.copies(
        f"./{os.path.relpath(copies, world.clone)}",
        world.variables_of,
        lambda job: world.token_request(job, rehearsed.file, rehearsed.event),
        world.builder,
    ).items():
        (copies / file).write_text(text)
    event = world.folder / "event.json"
    event.write_text(json.dumps(world.event(rehearsed)))
    return act.run(
        rehearsed,
        copies / rehearsed.file,
        world.clone,
        event,
        environment=world.environment,
        variables=world.variables,
        actions=actions,
        cache=world.folder / "act",
    )


def _builder(wanted: str | None) -> str:
    return wanted or ("docker" if docker_command.engine_answers() else "cloud-build")


def _begins(rehearsed: workflow.Workflow, builder: str, options: Options) -> str:
    images = "built by Docker" if builder == "docker" else "built by the local Cloud Build"
    if not options.builder and builder != "docker":
        images += ", because no Docker engine answers"
    others = f"read from {options.actions}" if options.actions else "fetched from GitHub"
    return (
        f"rehearsing {rehearsed.file}: images are {images}; bakes take {options.bake};"
        f" third-party actions are {others}; no approval is asked for"
    )


def _result(ends: list[act.JobEnd], services: dict[str, Any], seconds: float) -> Result:
    failed = [end for end in ends if end.result not in ("success", "skipped")]
    return Result(
        data={"jobs": {end.id: end.result for end in ends}, "services": services},
        table=Table(
            columns=["JOB", "RESULT", "FAILED STEP"],
            rows=[[end.id, end.result, end.failed_step] for end in ends],
            notes=[f"rehearsed in {seconds:.0f} s"],
        ),
        code=1 if failed else 0,
    )
