"""Everything about identity in one place, as the other rooms see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from emulator.faults import Faults
from emulator.identity import policies, urls
from emulator.identity.access import Access
from emulator.identity.accounts import Accounts
from emulator.identity.exchange import Exchange
from emulator.identity.federation import Federation
from emulator.identity.github import Issuer
from emulator.identity.guard import Guard
from emulator.identity.invoker import Invoker
from emulator.identity.policies import Policies
from emulator.identity.principals import service_account
from emulator.identity.responses import Responses
from emulator.identity.rules import PolicyRules
from emulator.identity.tokens import AccessTokens, IdTokens
from emulator.operations import Operations
from emulator.projects.models import Projects
from emulator.routes import Handler, On, Route
from emulator.run.resources import Resources
from emulator.store import Store


class Identity:
    """Who calls and what they may, with its state in `folder`; `url` is the APIs' base URL.

    `is_there(kind, project, name)` says whether a repository or secret is there.
    """

    def __init__(
        self,
        folder: Path,
        resources: Resources,
        projects: Projects,
        operations: Operations,
        faults: Faults,
        url: str,
        is_there: Callable[[On, str, str], bool],
        *,
        enforced: bool,
    ) -> None:
        store = Store(folder)
        issuer = Issuer(folder / "keys", url)
        federation = Federation(store, projects.is_made, issuer.url)
        kept, accounts = Policies(store), Accounts(store, projects)
        self._kept = kept
        self._tokens = AccessTokens(store)
        self._ids = IdTokens(folder / "keys", store)
        self._access = access = Access(self._tokens, kept, resources.policy, enforced=enforced)
        rules = PolicyRules(accounts, federation, faults)
        self._guard = Guard(access, resources, projects, accounts, rules, faults, url)
        self._answer = Responses(
            federation, accounts, kept, issuer, self._tokens, operations, is_there
        )
        self._exchange = Exchange(federation, accounts, access, self._tokens, self._ids)
        self.own = self._answer.own
        self.invoker = Invoker(access, self._ids, resources)

    def routes(self) -> list[Route]:
        """Return the routes of everything about identity."""
        return urls.routes(self._answer, self._exchange)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware that refuses what a caller may not."""
        return await self._guard.check(request, handler)

    def forget_secret(self, project: str, name: str) -> None:
        """Drop the policy of a secret that was deleted."""
        self._kept.forget(policies.secret(project, name))

    def forget_repository(self, project: str, name: str) -> None:
        """Drop the policy of a repository that was deleted."""
        self._kept.forget(policies.repository(project, name))

    def may_read_secret(self, secret: str, email: str) -> bool:
        """Whether a service account may read a secret, `projects/PROJECT/secrets/NAME`."""
        _, project, _, name = secret.split("/")
        chain = self._access.of_secret(project, name)
        account = service_account(email)
        return self._access.may(account, "secretmanager.versions.access", chain)

    def access_token(self, email: str, seconds: float) -> str:
        """An access token of a service account, for the metadata server."""
        return self._tokens.make(service_account(email), seconds)

    def id_token(self, email: str, audience: str) -> str:
        """An ID token of a service account, for the metadata server."""
        return self._ids.make(email, audience, include_email=True)
