"""Decides whether a caller has a permission."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from emulator.errors import ApiError
from emulator.identity import policies
from emulator.identity.custom_roles import CustomRoles
from emulator.identity.policies import Policies
from emulator.identity.principals import Principal, project_of
from emulator.identity.tokens import AccessTokens, BadToken
from emulator.names import Key

Document = dict[str, Any]

_EXPECTED = (
    "Expected OAuth 2 access token, login cookie or other valid authentication credential. See "
    "https://developers.google.com/identity/sign-in/web/devconsole-project."
)
ALL_USERS = Principal("allUsers")
PULL = "artifactregistry.repositories.downloadArtifacts"
# The project of Google's sample images. Everyone may pull them.
_SAMPLES = "cloudrun"


class Access:
    """The callers and the policies of every resource, whose roles are in `roles`.

    `of_service(key)` is the policy of a Cloud Run service. Unless `enforced`, every caller has
    every permission.
    """

    def __init__(
        self,
        tokens: AccessTokens,
        kept: Policies,
        roles: CustomRoles,
        of_service: Callable[[Key], Document],
        *,
        enforced: bool,
    ) -> None:
        self.enforced = enforced
        self._policies = kept
        self._roles = roles
        self._tokens = tokens
        self._of_service = of_service

    def caller(self, authorization: str | None) -> Principal:
        """Return the sender of a request.

        Args:
            authorization: The request's header Authorization.

        Raises:
            ApiError: UNAUTHENTICATED.
        """
        if not self.enforced:
            return ALL_USERS
        if not authorization:
            raise ApiError(
                "UNAUTHENTICATED",
                f"Request is missing required authentication credential. {_EXPECTED}",
            )
        scheme, _, token = authorization.partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise BadToken
            return self._tokens.principal(token.strip())
        except BadToken:
            raise ApiError(
                "UNAUTHENTICATED",
                f"Request had invalid authentication credentials. {_EXPECTED}",
            ) from None

    def may(self, principal: Principal, permission: str, chain: Iterable[Document]) -> bool:
        """Return whether a policy of a resource or of its ancestors grants a permission.

        Args:
            principal: The caller.
            permission: The permission.
            chain: The policies, as one of the methods below returns them.
        """
        return not self.enforced or policies.grants(
            chain, principal, permission, self._roles.permissions_of
        )

    def may_on_image(self, principal: Principal, permission: str, image: str) -> bool:
        """Return whether a caller has a permission on the repository of an image."""
        project, _, rest = image.partition("/")
        if project == _SAMPLES and permission == PULL:
            return True
        chain = self.of_repository(project, rest.partition("/")[0])
        return self.may(principal, permission, chain)

    def of_project(self, project: str) -> list[Document]:
        """Return the policies that apply to a project."""
        return [self._policies.get(policies.project(project))]

    def of_service(self, key: Key) -> list[Document]:
        """Return the policies that apply to a Cloud Run service."""
        return [self._of_service(key), *self.of_project(key.project)]

    def of_repository(self, project: str, name: str) -> list[Document]:
        """Return the policies that apply to a repository of Artifact Registry."""
        own = self._policies.get(policies.repository(project, name))
        return [own, *self.of_project(project)]

    def of_secret(self, project: str, name: str) -> list[Document]:
        """Return the policies that apply to a secret of Secret Manager."""
        own = self._policies.get(policies.secret(project, name))
        return [own, *self.of_project(project)]

    def of_bucket(self, project: str, name: str) -> list[Document]:
        """Return the policies that apply to a bucket of Cloud Storage."""
        return [self._policies.get(policies.bucket(name)), *self.of_project(project)]

    def of_account(self, email: str) -> list[Document]:
        """Return the policies that apply to a service account."""
        own = self._policies.get(policies.account(email))
        project = project_of(email)
        return [own, *(self.of_project(project) if project else [])]
