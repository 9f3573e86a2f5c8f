"""What has to have happened before a workflow: promote needs a release, rollback one to go back from."""

from __future__ import annotations

from scripts.core.report import Progress
from scripts.rehearse.workflow import Workflow
from scripts.rehearse.world import World


def prepare(world: World, workflow: Workflow, progress: Progress) -> None:
    """Deliver what promote or rollback is to find in their environment.

    For `promote`, a release that has no traffic yet; for `rollback`, one that has all of it and
    one before it. The other workflows begin with nothing.
    """
    wanted = workflow.inputs.get("environment")
    if wanted not in world.access or workflow.event != "workflow_dispatch":
        return
    services = [p for p in world.pipelines if p.env == wanted]
    for pipeline in services:
        with progress.step("before", f"{pipeline.service} {wanted}: two releases") as step:
            way = _way(world, pipeline.service, wanted)
            _deliver(world, pipeline.service, way)
            world.commit("The next release")
            rolls_back = workflow.name.startswith("rollback")
            _deliver(world, pipeline.service, way if rolls_back else way[:-1])
            if not rolls_back:
                digest = _build(world, pipeline.service, way)
                words = ("deploy", pipeline.service, "--env", wanted, "--digest", digest)
                world.ship(*words, environment=wanted)
            step.done(f"{pipeline.service} {wanted}: there is something to {workflow.name[:-4]}")


def _way(world: World, service: str, env: str) -> list[str]:
    """The environments that a commit passes on its way to `env`, in order."""
    after = {p.env: p.environment.after for p in world.pipelines if p.service == service}
    way = [env]
    while (earlier := after.get(way[0])) and earlier not in way:
        way.insert(0, earlier)
    return way


def _build(world: World, service: str, way: list[str]) -> str:
    return str(world.ship("build", service, "--env", way[0])["digest"])


def _deliver(world: World, service: str, way: list[str]) -> None:
    digest = _build(world, service, way) if way else ""
    for env in way:
        words = ("deliver", service, "--env", env, "--digest", digest)
        world.ship(*words, environment=env)
