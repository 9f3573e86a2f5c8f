"""Service accounts.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts. The messages
are Google's, as users of gcloud and Terraform quote them. Missing here: keys, disabling,
undeletion, and that a binding of a deleted account does not apply to a new one of the same name.
"""

from __future__ import annotations

import base64
import re
from typing import Any, TypedDict

from emulator.errors import ApiError, invalid
from emulator.fields import check_known, typed
from emulator.identity.principals import checked_email, project_of, unique_id
from emulator.names import default_service_account, project_number
from emulator.projects.models import Projects
from emulator.store import Store

Document = dict[str, Any]

_DEFAULT = re.compile(r"([0-9]{1,19})-compute@developer\.gserviceaccount\.com")
_ID = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
_SETTABLE = ("displayName", "description")


class _Create(TypedDict, total=False):
    accountId: str
    serviceAccount: dict[str, str]


class Accounts:
    """The service accounts of every project, by e-mail."""

    def __init__(self, store: Store, projects: Projects) -> None:
        self._store = store
        self._projects = projects
        self._known: dict[str, Document] = {
            document["email"]: document for document in store.documents("service-accounts")
        }

    def create(self, project: str, body: Document) -> Document:
        """Create an account; raises ApiError (INVALID_ARGUMENT, ALREADY_EXISTS)."""
        body = typed(body, _Create)
        name, fields = body.get("accountId", ""), body.get("serviceAccount", {})
        check_known([*(body.keys() - {"accountId", "serviceAccount"}), *fields], _SETTABLE)
        if not _ID.fullmatch(name):
            raise invalid(
                "The account ID must be 6 to 30 lowercase letters, digits and hyphens.",
                "account_id",
            )
        project = self._projects.id_of(project)
        email = f"{name}@{project}.iam.gserviceaccount.com"
        resource = f"projects/{project}/serviceAccounts/{email}"
        if email in self._known:
            raise ApiError(
                "ALREADY_EXISTS",
                f"Service account {name} already exists within project projects/{project}.",
                [
                    {
                        "@type": "type.googleapis.com/google.rpc.ResourceInfo",
                        "resourceName": resource,
                    }
                ],
            )
        document = _document(project, email, fields)
        self._store.write(f"service-accounts/{document['uniqueId']}.json", document)
        self._known[email] = document
        return document

    def get(self, email: str) -> Document:
        """Return an account that was created, or a project's default one; raises NOT_FOUND."""
        if known := self._known.get(checked_email(email)):
            return known
        if found := _DEFAULT.fullmatch(email):
            project = self._projects.id_of(found[1])
            return _document(project, email, {"displayName": "Default compute service account"})
        raise _unknown()

    def all(self, project: str) -> list[Document]:
        """Return a project's accounts that were created, sorted by e-mail."""
        number = project_number(project)
        found = sorted(self._known.items())
        return [one for _, one in found if project_number(one["projectId"]) == number]

    def delete(self, email: str) -> None:
        """Delete an account; raises ApiError NOT_FOUND."""
        document = self.get(email)
        self._store.delete(f"service-accounts/{document['uniqueId']}.json")
        self._known.pop(email, None)

    def exists(self, email: str) -> bool:
        """Return whether an account exists.

        In a project that was created, an account has to be created, too, except the default one.
        Elsewhere every account exists.
        """
        project = project_of(email)
        if email in self._known or project is None or not self._projects.is_made(project):
            return True
        return email == default_service_account(project)

    def check_exists(self, email: str) -> None:
        """Raise ApiError NOT_FOUND for an account that does not exist."""
        if not self.exists(email):
            raise _unknown()


def _document(project: str, email: str, fields: Document) -> Document:
    number = unique_id(email)
    return {
        "name": f"projects/{project}/serviceAccounts/{email}",
        "projectId": project,
        "uniqueId": number,
        "email": email,
        **fields,
        "etag": base64.b64encode(number.encode()).decode(),
        "oauth2ClientId": number,
    }


def _unknown() -> ApiError:
    return ApiError("NOT_FOUND", "Unknown service account")
