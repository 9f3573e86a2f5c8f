"""Whether a caller may: decisions, and how each API says no.

Source of the errors' form: https://cloud.google.com/iam/docs/permission-error-messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from emulator.errors import ApiError
from emulator.identity import policies
from emulator.identity.policies import Policies
from emulator.identity.principals import Principal, project_of
from emulator.identity.tokens import AccessTokens, BadToken
from emulator.names import Key

Document = dict[str, Any]

_EXPECTED = (
    "Expected OAuth 2 access token, login cookie or other valid authentication credential. See "
    "https://developers.google.com/identity/sign-in/web/devconsole-project."
)
ANYBODY = Principal("allUsers")


class Access:
    """IAM of every resource here.

    `of_service(key)` is the policy of a Cloud Run service. Nothing is refused unless `enforced`.
    """

    def __init__(
        self,
        tokens: AccessTokens,
        kept: Policies,
        of_service: Callable[[Key], Document],
        *,
        enforced: bool,
    ) -> None:
        self.enforced = enforced
        self.policies = kept
        self._tokens = tokens
        self._of_service = of_service

    def caller(self, authorization: str | None) -> Principal:
        """Who sends a request, by its Authorization header; raises ApiError UNAUTHENTICATED."""
        if not self.enforced:
            return ANYBODY
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
        """Whether one of a resource's policies, its own and its ancestors', gives a permission."""
        return not self.enforced or policies.grants(chain, principal, permission)

    def of_project(self, project: str) -> list[Document]:
        """The policies that count for a project."""
        return [self.policies.get(policies.project(project))]

    def of_service(self, key: Key) -> list[Document]:
        """The policies that count for a Cloud Run service."""
        return [self._of_service(key), *self.of_project(key.project)]

    def of_repository(self, project: str, name: str) -> list[Document]:
        """The policies that count for a repository of Artifact Registry."""
        own = self.policies.get(policies.repository(project, name))
        return [own, *self.of_project(project)]

    def of_secret(self, project: str, name: str) -> list[Document]:
        """The policies that count for a secret of Secret Manager."""
        own = self.policies.get(policies.secret(project, name))
        return [own, *self.of_project(project)]

    def of_account(self, email: str) -> list[Document]:
        """The policies that count for a service account."""
        own = self.policies.get(policies.account(email))
        project = project_of(email)
        return [own, *(self.of_project(project) if project else [])]


def denied(permission: str, message: str) -> ApiError:
    """A 403 PERMISSION_DENIED that says which permission is missing."""
    detail = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "IAM_PERMISSION_DENIED",
        "domain": "iam.googleapis.com",
        "metadata": {"permission": permission},
    }
    return ApiError("PERMISSION_DENIED", message, [detail])
