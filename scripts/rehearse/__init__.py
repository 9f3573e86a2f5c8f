"""Run a workflow of GitHub or Cloud Build on this machine, against a scratch local Cloud Run.

It runs the real file with its jobs, conditions and outputs. Tokens come from a local issuer, images
go into a local registry. WORKFLOW is deliver (the default), ci, promote, rollback or resume, run
with act; or a file such as cloudbuild/deliver.yaml, run step by step.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripts.command import options
from scripts.command.terminal import Progress, Result, Table, show
from scripts.image import docker_command
from scripts.rehearse import act, before, workflow
from scripts.rehearse.world import World


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workflow", nargs="?", default="deliver", metavar="WORKFLOW")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        type=_input,
        metavar="NAME=VALUE",
        help="a value of the Run workflow form, or a substitution",
    )
    parser.add_argument(
        "--actions",
        type=Path,
        metavar="FOLDER",
        help="checked-out actions, as FOLDER/OWNER/NAME (default: act fetches them from GitHub)",
    )
    parser.add_argument(
        "--ref",
        type=_ref,
        default="refs/heads/main",
        help="the branch that it runs on (default: %(default)s)",
    )
    parser.add_argument(
        "--bake", type=options.duration, default="0s", metavar="TIME",
        help="how long each step is watched (default: %(default)s)",
    )  # fmt: skip
    options.builder(parser)
    parser.add_argument(
        "--format", choices=["table", "json"], default="table",
        help="of the result; json contains the services as they are afterwards",
    )  # fmt: skip


def run(arguments: argparse.Namespace, root: Path) -> int:
    started = time.monotonic()
    inputs = dict(arguments.input)
    if arguments.workflow.endswith(".yaml"):
        from scripts.rehearse import cloudbuild

        return cloudbuild.rehearse(
            root,
            arguments.workflow,
            inputs,
            Progress(),
            builder=_builder(arguments.builder),
            bake=arguments.bake,
            format_=arguments.format,
        )
    rehearsed = workflow.load(root, arguments.workflow, inputs)
    actions = act.local(rehearsed.actions, arguments.actions)
    progress = Progress()
    builder = _builder(arguments.builder)
    with TemporaryDirectory(prefix="shipway-rehearsal-") as scratch:
        folder = Path(scratch)
        progress.line(_begins(rehearsed, builder, arguments))
        world = World(root, folder, builder=builder, bake=arguments.bake, ref=arguments.ref)
        env = inputs.get("environment")
        before.check(world, env)
        with world:
            if rehearsed.event == "pull_request":
                world.take_up()
            else:
                before.prepare(world, Path(rehearsed.file).stem, env, progress)
            copies = folder / "workflows"
            copies.mkdir()
            for file, text in rehearsed.copies(
                f"./{os.path.relpath(copies, world.clone)}",
                world.variables_of,
                lambda job: world.token_request(job, rehearsed.file, rehearsed.event),
            ).items():
                (copies / file).write_text(text)
            event = folder / "event.json"
            event.write_text(json.dumps(world.event(rehearsed)))
            ends = act.run(
                rehearsed,
                copies / rehearsed.file,
                world.clone,
                event,
                environment=world.environment,
                variables=world.variables,
                actions=actions,
                cache=folder / "act",
            )
            services = world.services() if arguments.format == "json" else {}
    return show(_result(ends, services, time.monotonic() - started), arguments.format)


def _input(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}': write NAME=VALUE")
    return name, value


def _ref(text: str) -> str:
    if not re.fullmatch(r"refs/heads/[A-Za-z0-9_][\w./-]*", text):
        raise argparse.ArgumentTypeError(
            f"'{text}': write a branch in full, such as refs/heads/main"
        )
    return text


def _builder(wanted: str | None) -> str:
    return wanted or ("docker" if docker_command.engine_answers() else "pack")


def _begins(rehearsed: workflow.Workflow, builder: str, arguments: argparse.Namespace) -> str:
    images = (
        "built by Docker" if builder == "docker" else "packed, because no Docker engine answers"
    )
    if arguments.builder == "pack":
        images = "packed"
    others = f"read from {arguments.actions}" if arguments.actions else "fetched from GitHub"
    return (
        f"rehearsing {rehearsed.file}: images are {images}; bakes take {arguments.bake};"
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
