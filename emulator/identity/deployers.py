"""The checks of a caller who writes a service or a build, after the permission to write it.

Sources: https://cloud.google.com/run/docs/reference/iam/roles#additional-configuration and
https://cloud.google.com/run/docs/securing/managing-access#invoker_check.
"""

from __future__ import annotations

from typing import Any

from emulator.errors import ApiError, precondition_failure
from emulator.faults.models import Faults
from emulator.faults.settings import INVOKER
from emulator.identity.access import PULL, Access
from emulator.identity.accounts import Accounts
from emulator.identity.invoker import is_open
from emulator.identity.principals import Principal
from emulator.identity.refusals import denied, denied_on, denied_on_image
from emulator.identity.services import Services
from emulator.names import Key, default_service_account

Document = dict[str, Any]

_ACT_AS = "iam.serviceAccounts.actAs"
_SET_POLICY = "run.services.setIamPolicy"


class Deployers:
    """Checks callers who write a service or start a build."""

    def __init__(
        self, access: Access, accounts: Accounts, services: Services, faults: Faults
    ) -> None:
        self._access = access
        self._accounts = accounts
        self._services = services
        self._faults = faults

    def check(
        self, principal: Principal, project: str, service: Key | None, wanted: Document
    ) -> None:
        """Check that a caller may use the revision's account and every image that is new.

        Args:
            principal: The caller.
            project: The ID of the service's project.
            service: The service; None if it does not exist yet.
            wanted: The service as the request writes it.

        Raises:
            ApiError: PERMISSION_DENIED, FAILED_PRECONDITION.
        """
        template = _template(wanted)
        email = str(template.get("serviceAccountName") or default_service_account(project))
        may = self._access.may(principal, _ACT_AS, self._access.of_account(email))
        if not may or not self._accounts.exists(email):
            raise denied(
                _ACT_AS,
                f"Permission 'iam.serviceaccounts.actAs' denied on service account {email} (or it "
                "may not exist).",
            )
        current = (self._services.service(service) if service else None) or {}
        self._check_opening(principal, project, service, wanted, current)
        for image in _images(template) - _images(_template(current)):
            name = image.partition("/")[2]
            if not self._access.may_on_image(principal, PULL, name):
                location = image.partition("-docker.pkg.dev/")[0]
                raise denied_on_image(PULL, name, location)

    def check_build(self, principal: Principal, wanted: Document) -> None:
        """Check that a caller may use a build's account; raises ApiError PERMISSION_DENIED.

        Source: https://cloud.google.com/build/docs/securing-builds/configure-user-specified-service-accounts.

        Args:
            principal: The caller.
            wanted: The build as the request writes it.
        """
        email = str(wanted.get("serviceAccount") or "").rpartition("/")[2]
        if not email:
            return
        may = self._access.may(principal, _ACT_AS, self._access.of_account(email))
        if not may or not self._accounts.exists(email):
            raise denied(
                _ACT_AS,
                f"caller does not have permission to act as service account {email}",
            )

    def _check_opening(
        self,
        principal: Principal,
        project: str,
        service: Key | None,
        wanted: Document,
        current: Document,
    ) -> None:
        """Check that a caller who turns the invoker check on or off may change the policy."""
        if is_open(wanted) == is_open(current):
            return
        if is_open(wanted) and self._faults.is_active(INVOKER):
            raise _must_be_checked(project)
        of = self._access.of_service(service) if service else self._access.of_project(project)
        if not self._access.may(principal, _SET_POLICY, of):
            name = (wanted.get("metadata") or {}).get("name", "")
            raise denied_on(_SET_POLICY, f"namespaces/{project}/services/{name}")


def _must_be_checked(project: str) -> ApiError:
    """Recollected: Google documents the constraint, not its message in the Admin API."""
    constraint = "constraints/run.managed.requireInvokerIam"
    detail = precondition_failure(
        constraint, f"orgpolicy:projects/{project}", "The Invoker IAM check must be enabled."
    )
    message = f'Operation denied by org policy: ["{constraint}": "Invoker IAM is required."].'
    return ApiError("FAILED_PRECONDITION", message, [detail])


def _template(service: Document) -> Document:
    """Return the specification of a service's template; an empty one if it has none."""
    for step in ("spec", "template", "spec"):
        service = service.get(step) or {}
        if not isinstance(service, dict):
            return {}
    return service


def _images(template: Document) -> set[str]:
    containers = template.get("containers")
    found = [c.get("image") for c in containers or [] if isinstance(c, dict)]
    return {str(image) for image in found if image}
