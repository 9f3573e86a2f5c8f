"""Identity: callers, policies and tokens, in one object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emulator.faults.models import Faults
from emulator.identity import policies
from emulator.identity.access import Access
from emulator.identity.accounts import Accounts
from emulator.identity.custom_roles import CustomRoles
from emulator.identity.deployers import Deployers
from emulator.identity.federation import Federation, Keys
from emulator.identity.github import Issuer
from emulator.identity.invoker import Invoker
from emulator.identity.policies import Policies
from emulator.identity.pools import Pools
from emulator.identity.principals import Principal, service_account
from emulator.identity.rules import PolicyRules
from emulator.identity.services import Services
from emulator.identity.tokens import AccessTokens, IdTokens
from emulator.permissions import On
from emulator.projects.models import Projects
from emulator.store import Store


class Identity:
    """Callers and their permissions.

    Args:
        folder: Where the state is stored.
        url: The base URL of the APIs.
        services: The services of Cloud Run.
        projects: The projects.
        faults: The active faults.
        exists: `exists(kind, project, name)` is whether a repository or a secret exists.
        keys_of: Reads the keys of an OIDC issuer.
        enforced: Whether callers need permissions.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        services: Services,
        projects: Projects,
        faults: Faults,
        exists: Callable[[On, str, str], bool],
        keys_of: Keys,
        enforced: bool,
    ) -> None:
        store = Store(folder)
        self.issuer = Issuer(folder / "keys", url)
        self.pools = Pools(store, projects.is_made)
        self.federation = Federation(self.pools, self.issuer.url, keys_of)
        self.policies = Policies(store)
        self.accounts = Accounts(store, projects)
        self.tokens = AccessTokens(store)
        self.ids = IdTokens(folder / "keys", store)
        self.roles = CustomRoles(store, projects)
        self.access = Access(
            self.tokens, self.policies, self.roles, services.policy, enforced=enforced
        )
        self.rules = PolicyRules(self.accounts, self.pools, self.roles, faults, exists)
        self.deployers = Deployers(self.access, self.accounts, services, faults)
        self.invoker = Invoker(self.access, self.ids, services)

    def forget_secret(self, project: str, name: str) -> None:
        """Drop the policy of a secret that was deleted."""
        self.policies.forget(policies.secret(project, name))

    def forget_repository(self, project: str, name: str) -> None:
        """Drop the policy of a repository that was deleted."""
        self.policies.forget(policies.repository(project, name))

    def may_read_secret(self, secret: str, email: str) -> bool:
        """Return whether a service account may read a secret, `projects/PROJECT/secrets/NAME`."""
        _, project, _, name = secret.split("/")
        chain = self.access.of_secret(project, name)
        account = service_account(email)
        return self.access.may(account, "secretmanager.versions.access", chain)

    def access_token(self, email: str, seconds: float) -> str:
        """Return an access token of a service account, for the metadata server."""
        return self.tokens.make(service_account(email), seconds)

    def owner_token(self, seconds: float) -> str:
        """Return an access token of the owner of every project, for this process itself."""
        return self.tokens.make(Principal(policies.OWNER), seconds)

    def id_token(self, email: str, audience: str) -> str:
        """Return an ID token of a service account, for the metadata server."""
        return self.ids.make(email, audience, include_email=True)
