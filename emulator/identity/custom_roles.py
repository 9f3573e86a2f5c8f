"""Custom roles of projects.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/projects.roles. A deleted role grants
nothing and keeps its name; here it can be undeleted for ever, at Google's for 7 days
(https://cloud.google.com/iam/docs/creating-custom-roles#undeleting-custom-role). The messages are
Google's, as users of gcloud and Terraform quote them.
"""

from __future__ import annotations

import re
from typing import Any

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.fields import camel, check_known
from emulator.hashes import hex_of
from emulator.identity.roles import PERMISSIONS, ROLES
from emulator.names import project_number
from emulator.projects.models import Projects
from emulator.store import Store

Document = dict[str, Any]

_ID = re.compile(r"[a-zA-Z0-9_.]{3,64}")
_NAME = re.compile(r"projects/(?P<project>[^/]+)/roles/(?P<role>[^/]+)")
_SETTABLE = ("title", "description", "includedPermissions", "stage")


class CustomRoles:
    """The custom roles of every project, by project number and ID."""

    def __init__(self, store: Store, projects: Projects) -> None:
        self._store = store
        self._projects = projects
        self._known: dict[tuple[str, str], Document] = {}
        for document in store.documents("roles"):
            self._known[_key(document["name"])] = document

    def create(self, project: str, body: Document) -> Document:
        """Create a role; raises ApiError (INVALID_ARGUMENT, ALREADY_EXISTS)."""
        check_known(body, ("roleId", "role"))
        role, fields = str(body.get("roleId", "")), body.get("role") or {}
        if not isinstance(fields, dict):
            raise invalid("Expected a role.", "role")
        if not _ID.fullmatch(role):
            raise invalid(
                "The role ID must be 3 to 64 letters, digits, underscores and periods.", "role_id"
            )
        name = f"projects/{self._projects.id_of(project)}/roles/{role}"
        existing = self._known.get(_key(name))
        if existing and existing.get("deleted"):
            message = f"You can't create a role_id ({role}) which has been marked for deletion."
            raise ApiError("FAILED_PRECONDITION", message)
        if existing:
            parent = name.partition("/roles/")[0]
            raise ApiError("ALREADY_EXISTS", f"A role named {role} in {parent} already exists.")
        return self._keep({"name": name, "stage": "ALPHA"}, fields)

    def get(self, project: str, role: str) -> Document:
        """Return a role, also a deleted one; raises ApiError NOT_FOUND."""
        found = self._known.get((project_number(project), role))
        if found is None:
            name = f"projects/{project}/roles/{role}"
            raise ApiError("NOT_FOUND", f"The role named {name} was not found.")
        return found

    def all(self, project: str, *, deleted: bool) -> list[Document]:
        """Return a project's roles, sorted by name; the deleted ones only if wanted."""
        number = project_number(project)
        found = [one for key, one in self._known.items() if key[0] == number]
        kept = [one for one in found if deleted or not one.get("deleted")]
        return sorted(kept, key=lambda one: str(one["name"]))

    def patch(self, document: Document, body: Document, mask: str) -> Document:
        """Change the fields that `mask` names; without one, those in the body.

        Raises:
            ApiError: INVALID_ARGUMENT.
        """
        body = {key: value for key, value in body.items() if key not in ("name", "etag", "deleted")}
        names = [camel(part) for part in mask.split(",") if part] or [*body]
        check_known([*names, *body], _SETTABLE)
        return self._keep(document, {name: body.get(name) for name in names})

    def set_deleted(self, document: Document, *, deleted: bool) -> Document:
        """Delete a role or restore it."""
        kept = {key: value for key, value in document.items() if key != "deleted"}
        return self._keep({**kept, **({"deleted": True} if deleted else {})}, {})

    def permissions_of(self, role: str) -> frozenset[str]:
        """Return the permissions of a role, predefined or custom; none of an unknown role."""
        if role in ROLES or not _NAME.fullmatch(role):
            return ROLES.get(role, frozenset())
        found = self._known.get(_key(role), {})
        if found.get("deleted") or found.get("stage") == "DISABLED":
            return frozenset()
        return frozenset(found.get("includedPermissions") or [])

    def check_exists(self, role: str, project: str) -> None:
        """Raise ApiError INVALID_ARGUMENT for a custom role that a project's policies cannot name.

        Args:
            role: The full name of a role; a predefined one always exists.
            project: The ID or number of the project that the resource is in.
        """
        named = _NAME.fullmatch(role)
        is_here = named and project_number(named["project"]) == project_number(project)
        if named and not (is_here and _key(role) in self._known):
            message = f"Role ({role}) does not exist in the resource's hierarchy."
            raise ApiError("INVALID_ARGUMENT", message)

    def _keep(self, document: Document, fields: Document) -> Document:
        check_known(fields, _SETTABLE)
        permissions = fields.get("includedPermissions") or []
        if not isinstance(permissions, list):
            raise invalid("Expected a list.", "role.included_permissions")
        for permission in permissions:
            if not isinstance(permission, str) or permission not in PERMISSIONS:
                raise ApiError("INVALID_ARGUMENT", f"Permission {permission} is not valid.")
        made = {**document, **fields, "etag": clock.next_version()}
        made = {key: value for key, value in made.items() if value not in (None, "")}
        self._store.write(f"roles/{hex_of(made['name'])}.json", made)
        self._known[_key(made["name"])] = made
        return made


def _key(name: str) -> tuple[str, str]:
    """Return the key of a role's full name: its project's number, and its ID."""
    found = _NAME.fullmatch(name)
    assert found
    return project_number(found["project"]), found["role"]
