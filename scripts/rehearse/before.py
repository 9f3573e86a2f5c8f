"""What has happened before the workflow runs: nobody rehearses on an empty stage.

The commit before is delivered. For `promote` the commit itself is deployed too, without traffic;
for `rollback` it is delivered; for `resume` it is delivered and rolled back.
"""

from __future__ import annotations

from scripts.command.progress import Progress
from scripts.errors import UsageError, did_you_mean
from scripts.rehearse.workflow import Workflow
from scripts.rehearse.world import World


def check(world: World, workflow: Workflow) -> None:
    """See that the environment that was typed is one of pipelines/.

    Raises:
        UsageError: it is not.
    """
    env = workflow.inputs.get("environment")
    if env is not None and env not in world.environments:
        known = did_you_mean(env, world.environments, "environments of pipelines/")
        raise UsageError(f"--input environment={env}: there is no such environment", known)


def prepare(world: World, workflow: Workflow, progress: Progress) -> None:
    """Bring the services of the scratch Cloud Run to where the workflow begins.

    Raises:
        Failed: what was there before cannot be delivered itself.
    """
    if workflow.event == "pull_request":
        world.take_up()
        return
    env = workflow.inputs.get("environment")
    services = sorted({p.service for p in world.pipelines if env in (None, p.env)})
    with progress.step("before", "what is there already") as step:
        for service in services:
            _deliver(world, service, _way(world, service, None))
        world.take_up()
        if env:
            for service in services:
                _prepare(world, workflow.name, service, env)
        step.done("the commit before is delivered" + (f"; {env} is prepared" if env else ""))


def _prepare(world: World, workflow: str, service: str, env: str) -> None:
    last = "deploy" if workflow == "promote.yml" else "deliver"
    _deliver(world, service, _way(world, service, env), last=last)
    if workflow == "resume.yml":
        world.ship("rollback", service, "--env", env, environment=env)


def _way(world: World, service: str, last: str | None) -> list[str]:
    """The environments that a commit passes on its way to `last` (else to all), in order."""
    after = {p.env: p.environment.after for p in world.pipelines if p.service == service}
    way: list[str] = []
    for env in [last] if last else sorted(after):
        here: str | None = env
        passed: list[str] = []
        while here and here in after and here not in (*passed, *way):
            passed.insert(0, here)
            here = after[here]
        way += passed
    return way


def _deliver(world: World, service: str, way: list[str], *, last: str = "deliver") -> None:
    """Build the clone's commit and deliver it all the way; `last` is the verb where it ends."""
    digest = str(world.ship("build", service, "--env", way[0])["digest"])
    for env in way:
        verb = last if env == way[-1] else "deliver"
        world.ship(verb, service, "--env", env, "--digest", digest, environment=env)
