"""Bring the scratch Cloud Run to the state in which the workflow would find it.

The previous commit is delivered, if it can be: the rehearsed commit may be its fix. For `promote`
the commit itself is also deployed, without traffic; for `rollback` it is delivered; for `resume` it
is delivered and rolled back. For `deliver-after` it is delivered to the environments that come
first.
"""

from __future__ import annotations

from scripts.command.progress import Progress
from scripts.config import relations
from scripts.errors import Failed, UsageError, did_you_mean
from scripts.rehearse.world import World


def check(world: World, env: str | None, services: str) -> None:
    """Check that the environment and the services of the inputs are those of pipelines/.

    Raises:
        UsageError: they are not.
    """
    known = sorted({p.service for p in world.pipelines})
    for name in _listed(services):
        if name not in known:
            raise UsageError(f"there is no service '{name}'", did_you_mean(name, known, "services"))
    if env is not None and env not in world.environments:
        hint = did_you_mean(env, world.environments, "environments of pipelines/")
        raise UsageError(f"there is no environment '{env}'", hint)


def prepare(world: World, name: str, env: str | None, services: str, progress: Progress) -> None:
    """Bring the services to the state in which the workflow begins.

    Args:
        world: The world of the rehearsal.
        name: The workflow, such as "deliver".
        env: The environment that it is started for; None for all of them.
        services: The services that it is started for, such as "ai,api"; "" for all of them.
        progress: Gets each line of progress.

    Raises:
        Failed: the previous commit cannot be delivered, and the workflow needs it: to roll back to.
    """
    wanted = _listed(services) or {p.service for p in world.pipelines if env in (None, p.env)}
    order = relations.read(world.clone).in_order(wanted)
    with progress.step("before", "deliver the previous commit") as step:
        left_out = []
        for service in order:
            try:
                _deliver(world, service, _way(world, service, None))
            except Failed as failed:
                if name != "deliver":
                    raise
                lines = failed.evidence or [failed.message]
                why = next((line for line in lines if line.startswith("ship: ")), lines[-1])
                of = f" of {service}" if len(order) > 1 else ""
                left_out.append(
                    f"the previous commit{of} cannot be delivered, and is left out ({why})"
                )
        world.take_up()
        if env:
            for service in order:
                _prepare(world, name, service, env)
        outcome = "; ".join(left_out) or "the previous commit is delivered"
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


def _listed(services: str) -> set[str]:
    return {name.strip() for name in services.split(",") if name.strip()}
