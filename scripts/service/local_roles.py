"""At the local Cloud Run: the roles with which services call each other.

In a project of Google's, `bootstrap` grants them, before the first delivery.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from scripts.cloud.google import Google, NotFound
from scripts.config import relations
from scripts.config.pipelines import Pipeline
from scripts.errors import UsageError
from scripts.service.context import Context


def let_call(context: Context) -> None:
    """Let a service invoke the private services that it calls."""
    if context.callees.called:
        _grant(context, [context.pipeline])


def let_callers(context: Context) -> None:
    """Let the callers of a service invoke it, as a new service has no policy."""
    with suppress(UsageError):  # what is wrong with a caller's files stops its own delivery
        _grant(context, relations.callers_of(context.pipeline))


def _grant(context: Context, callers: Sequence[Pipeline]) -> None:
    if not context.pipeline.uses_up or context.dry_run:
        return
    for caller in callers:
        for line in _granted(context, caller):
            context.progress.line(line)


def _granted(context: Context, caller: Pipeline) -> Iterator[str]:
    """Grant what is missing, as the owner of the local Cloud Run; yield a line for each role."""
    # Imported here: most services call no other, and verbs start sooner without it.
    from scripts.setup import cloud, permissions, resources, steps
    from scripts.setup.resources import Account

    as_owner = msgspec.structs.replace(caller.environment, credentials="none")
    google = Google(
        msgspec.structs.replace(caller, environment=as_owner),
        writes=context.record.writes,
        patience=context.google.patience,
    )
    # Source: https://cloud.google.com/run/docs/securing/service-identity (the default account)
    email = resources.runs_as(caller) or (
        f"{cloud.number(google, caller.environment.project)}-compute@developer.gserviceaccount.com"
    )
    account = Account(email=email, purpose=f"{caller.service} runs as this account")
    for binding in permissions.to_call(caller, account):
        try:
            policy = cloud.policy(google, binding.resource)
        except NotFound:
            continue  # it is not delivered yet
        if not steps.granted(policy.get("bindings") or [], binding):
            cloud.do(google, steps.grant(binding))
            yield f"{binding.why}: granted {binding.role} to {email}"
