"""Bring the scratch Cloud Run to the state in which the workflow would find it.

The previous commit is delivered, if it can be: the rehearsed commit may be its fix. For `promote`
the commit itself is also deployed, without traffic; for `rollback` it is delivered; for `resume` it
is delivered and rolled back. For `deliver-after` it is delivered to the environments that come
first.
"""

from __future__ import annotations

from scripts.command.progress import Progress
from scripts.errors import Failed, UsageError, did_you_mean
from scripts.rehearse.world import World


def check(world: World, env: str | None) -> None:
    """Check that the environment of the inputs is one of pipelines/.

    Raises:
        UsageError: it is not.
    """
    if env is not None and env not in world.environments:
        known = did_you_mean(env, world.environments, "environments of pipelines/")
        raise UsageError(f"there is no environment '{env}'", known)


def prepare(world: World, name: str, env: str | None, progress: Progress) -> None:
    """Bring the services to the state in which the workflow begins.

    Args:
        world: The world of the rehearsal.
        name: The workflow, such as "deliver".
        env: The environment that it is started for; None for all of them.
        progress: Gets each line of progress.

    Raises:
        Failed: the previous commit cannot be delivered, and the workflow needs it: to roll back to.
    """
    services = sorted({p.service for p in world.pipelines if env in (None, p.env)})
    with progress.step("before", "deliver the previous commit") as step:
        outcome = "the previous commit is delivered"
        for service in services:
            try:
                _deliver(world, service, _way(world, service, None))
            except Failed as failed:
                if name != "deliver":
                    raise
                lines = failed.evidence or [failed.message]
                why = next((line for line in lines if line.startswith("ship: ")), lines[-1])
                outcome = f"the previous commit cannot be delivered, and is left out ({why})"
        world.take_up()
        if env:
            for service in services:
                _prepare(world, name, service, env)
        step.done(outcome + (f"; {env} is prepared" if env else ""))


def _prepare(world: World, name: str, service: str, env: str) -> None:
    if name == "deliver":
        return
    way = _way(world, service, env)
    if name == "deliver-after":
        way = way[:-1]
    if way:
        _deliver(world, service, way, last="deploy" if name == "promote" else "deliver")
    if name == "resume":
        world.ship("rollback", service, "--env", env, environment=env)


def _way(world: World, service: str, last: str | None) -> list[str]:
    """Return the environments that a commit passes on its way to `last` (or to all), in order."""
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
    """Build the clone's commit and deliver it all the way; `last` is the verb in the last one."""
    digest = str(world.ship("build", service, "--env", way[0])["digest"])
    for env in way:
        verb = last if env == way[-1] else "deliver"
        world.ship(verb, service, "--env", env, "--digest", digest, environment=env)
