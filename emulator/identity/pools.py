"""Workload identity pools and their providers.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/projects.locations.workloadIdentityPools.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.fields import camel, check_known, typed
from emulator.identity import expressions
from emulator.identity.principals import pool_name
from emulator.store import Store

Document = dict[str, Any]

_ID = re.compile(r"[a-z0-9-]{4,32}")
_ACTIVE, _DELETED, _KEPT_DAYS = "ACTIVE", "DELETED", 30
_POOL_FIELDS = {"displayName", "description", "disabled"}
_PROVIDER_FIELDS = _POOL_FIELDS | {"attributeMapping", "attributeCondition", "oidc"}


class _Oidc(TypedDict, total=False):
    issuerUri: str
    allowedAudiences: list[str]
    jwksJson: str


class _Fields(TypedDict, total=False):
    """The types of the fields of pools and providers."""

    displayName: str
    description: str
    disabled: bool
    attributeMapping: dict[str, str]
    attributeCondition: str
    oidc: _Oidc


class Pools:
    """The pools and providers of every project. A deleted one keeps its name for 30 days.

    `is_made(project)` is whether a pool of the project has to exist before a policy names it.
    """

    def __init__(self, store: Store, is_made: Callable[[str], bool]) -> None:
        self._store = store
        self._is_made = is_made

    def may_be_named(self, project: str, pool: str) -> bool:
        """Return whether a policy may name identities of a pool."""
        found = self._store.read(_file(pool_name(project, pool))) if _ID.fullmatch(pool) else None
        return not self._is_made(project) or bool(found and found["state"] == _ACTIVE)

    def usable_provider(self, pool: str, provider: str) -> Document | None:
        """Return a provider by the full names of its pool and itself.

        None if one of the two does not exist, is deleted or is disabled.
        """
        found = self._read(provider)
        return found if _is_usable(found) and _is_usable(self._read(pool)) else None

    def pool(self, project: str, pool: str) -> Document:
        """Return a pool, also a deleted one; raises ApiError NOT_FOUND."""
        return self._existing(pool_name(project, pool), pool)

    def pools(self, project: str, *, deleted: bool) -> list[Document]:
        """Return a project's pools, sorted by name; the deleted ones only if wanted."""
        return self._within(pool_name(project, ""), deleted=deleted)

    def provider(self, project: str, pool: str, provider: str) -> Document:
        """Return a provider, also a deleted one; raises ApiError NOT_FOUND."""
        name = f"{pool_name(project, pool)}/providers/{provider}"
        return self._existing(name, pool, provider)

    def providers(self, project: str, pool: str, *, deleted: bool) -> list[Document]:
        """Return a pool's providers, sorted by name; raises ApiError NOT_FOUND."""
        return self._within(f"{self.pool(project, pool)['name']}/providers/", deleted=deleted)

    def create_pool(self, project: str, pool: str, body: Document) -> Document:
        """Create a pool; raises ApiError (INVALID_ARGUMENT, ALREADY_EXISTS)."""
        return self._create(pool_name(project, pool), pool, _chosen(body, _POOL_FIELDS))

    def create_provider(self, project: str, pool: str, provider: str, body: Document) -> Document:
        """Create an OIDC provider.

        Raises:
            ApiError: INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS.
        """
        if self.pool(project, pool)["state"] != _ACTIVE:
            raise _not_found()
        fields = _chosen(body, _PROVIDER_FIELDS)
        _check_provider(fields)
        return self._create(f"{pool_name(project, pool)}/providers/{provider}", provider, fields)

    def patch(self, document: Document, body: Document, mask: str) -> Document:
        """Change a pool or a provider.

        Args:
            document: The pool or provider.
            body: The new values.
            mask: The fields to change. One may be a part of `oidc`, such as `oidc.issuerUri`.

        Raises:
            ApiError: INVALID_ARGUMENT, NOT_FOUND.
        """
        if document["state"] != _ACTIVE:
            raise _not_found()
        is_provider = is_provider_name(document["name"])
        names = _PROVIDER_FIELDS if is_provider else _POOL_FIELDS
        fields = _chosen({k: v for k, v in body.items() if k not in ("name", "state")}, names)
        changed = dict(document)
        for path in filter(None, mask.split(",")):
            name, _, part = camel(path).partition(".")
            if name not in names or (part and name != "oidc"):
                raise invalid(f"The field mask '{path}' names no field.", "updateMask")
            if part:
                whole = {**changed.get(name, {}), part: (fields.get(name) or {}).get(part)}
                changed[name] = {key: value for key, value in whole.items() if value is not None}
            else:
                changed[name] = fields.get(name)
        if not mask:
            raise invalid("The update mask is required.", "updateMask")
        changed = {key: value for key, value in changed.items() if value not in (None, "")}
        if is_provider:
            _check_provider(changed)
        self._store.write(_file(changed["name"]), changed)
        return changed

    def delete(self, document: Document) -> Document:
        """Delete a pool or provider: for 30 days, in which it can be undeleted, then for good.

        Source: https://cloud.google.com/iam/docs/manage-workload-identity-pools-providers.

        Raises:
            ApiError: NOT_FOUND; it is deleted.
        """
        if document["state"] != _ACTIVE:
            raise _not_found()
        until = clock.rfc3339(datetime.now(UTC) + timedelta(days=_KEPT_DAYS))
        changed = {**document, "state": _DELETED, "expireTime": until}
        self._store.write(_file(changed["name"]), changed)
        return changed

    def undelete(self, document: Document) -> Document:
        """Restore a deleted pool or provider; raises ApiError FAILED_PRECONDITION for another."""
        if document["state"] != _DELETED:
            raise ApiError("FAILED_PRECONDITION", "Precondition check failed.")
        changed = {key: value for key, value in document.items() if key != "expireTime"}
        changed["state"] = _ACTIVE
        self._store.write(_file(changed["name"]), changed)
        return changed

    def _create(self, name: str, short: str, fields: Document) -> Document:
        if not _ID.fullmatch(short) or short.startswith("gcp-"):
            raise invalid(f"The ID '{short}' must have 4 to 32 of a-z, 0-9 and -, and no gcp-.")
        if self._read(name) is not None:
            raise ApiError("ALREADY_EXISTS", "Requested entity already exists")
        document = {"name": name, "state": _ACTIVE, **fields}
        self._store.write(_file(name), document)
        return document

    def _existing(self, name: str, *ids: str) -> Document:
        # An ID becomes part of a file's path only if it has the form of one.
        is_name = all(_ID.fullmatch(part) for part in ids)
        document = self._read(name) if is_name else None
        if document is None:
            raise _not_found()
        return document

    def _read(self, name: str) -> Document | None:
        """Read a pool or provider, unless it was deleted for good."""
        document: Document | None = self._store.read(_file(name))
        if document and document.get("expireTime", "~") < clock.now():
            return None
        return document

    def _within(self, prefix: str, *, deleted: bool) -> list[Document]:
        found = []
        for document in self._store.documents("federation"):
            name = document["name"]
            inside = name.startswith(prefix) and "/" not in name.removeprefix(prefix)
            if inside and self._read(name) and (deleted or document["state"] == _ACTIVE):
                found.append(document)
        return sorted(found, key=lambda document: str(document["name"]))


def is_provider_name(name: str) -> bool:
    """Return whether a full name is a provider's; otherwise it is a pool's."""
    return "/providers/" in name


def _is_usable(document: Document | None) -> bool:
    return bool(document and document["state"] == _ACTIVE and not document.get("disabled"))


def _not_found() -> ApiError:
    return ApiError("NOT_FOUND", "Requested entity was not found.")


def _file(name: str) -> str:
    return f"federation/{name}.json"


def _chosen(body: Document, names: set[str]) -> Document:
    """Return a body's fields, all of which have to be in `names`."""
    check_known(body, names)
    body = typed(body, _Fields)
    return {name: body[name] for name in sorted(names) if name in body}


def _check_provider(fields: Document) -> None:
    issuer = fields.get("oidc", {}).get("issuerUri", "")
    # Google takes https only. The local issuer is on loopback.
    if not re.match(r"https://|http://(127\.0\.0\.1|localhost)[:/]", issuer):
        raise invalid("Invalid OIDC issuer URI. The scheme must be https.", "oidc.issuerUri")
    mapping = fields.get("attributeMapping", {})
    if "google.subject" not in mapping:
        raise invalid("The mapping of google.subject is required.", "attributeMapping")
    for key, expression in mapping.items():
        if not re.fullmatch(r"google\.(subject|groups|display_name)|attribute\.[a-z0-9_]+", key):
            raise invalid(f"'{key}' is not an attribute that can be mapped.", "attributeMapping")
        _check_expression(expression, "attributeMapping")
    condition = fields.get("attributeCondition", "")
    if condition:
        _check_expression(condition, "attributeCondition")
    if "github" in issuer and "assertion." not in condition:
        # All of GitHub shares one issuer: Google insists on a condition.
        raise invalid(
            "The attribute condition must reference one of the provider's claims. For more "
            "information, see https://cloud.google.com/iam/docs/"
            "workload-identity-federation-with-deployment-pipelines#conditions",
        )


def _check_expression(expression: str, field: str) -> None:
    try:
        expressions.check(expression)
    except expressions.BadExpression as error:
        raise invalid(f"Invalid expression: {error}", field) from None
