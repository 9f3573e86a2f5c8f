"""Workload identity pools, their providers, and whom a credential of a provider stands for.

Sources: https://cloud.google.com/iam/docs/reference/rest/v1/projects.locations.workloadIdentityPools
and https://cloud.google.com/iam/docs/workload-identity-federation. The descriptions of refusals,
the minute of patience with clocks and the token's lifetime are what others measured at Google's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import jwt

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.identity import expressions
from emulator.identity.issuers import IssuerUnreachable, keys_of
from emulator.identity.keys import ALGORITHM
from emulator.identity.principals import Principal, federated, pool_name
from emulator.identity.tokens import HOUR
from emulator.store import Store

Document = dict[str, Any]

_ID = re.compile(r"[a-z0-9-]{4,32}")
_AUDIENCE = re.compile(
    r"//iam\.googleapis\.com/(?P<provider>(?P<pool>projects/\d+/locations/global"
    r"/workloadIdentityPools/[a-z0-9-]+)/providers/[a-z0-9-]+)"
)
GITHUB = "https://token.actions.githubusercontent.com"
_ACTIVE, _DELETED, _KEPT_DAYS = "ACTIVE", "DELETED", 30
_POOL_FIELDS = {"displayName", "description", "disabled"}
_PROVIDER_FIELDS = _POOL_FIELDS | {"attributeMapping", "attributeCondition", "oidc"}
_LEEWAY = 60
_LONGEST_SUBJECT = 127


class Refused(Exception):
    """A credential that is not exchanged: `code` and `description` are RFC 6749 section 5.2's."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


class Exchanged(NamedTuple):
    """Whom a credential stands for, and for how many seconds."""

    principal: Principal
    seconds: float


class Federation:
    """The pools and providers of every project. One that is deleted keeps its name for 30 days.

    `is_made(project)` says of which projects a pool has to be there to be named. A provider that
    names GitHub's own issuer means the local one, at `github`: nothing here leaves the machine.
    """

    def __init__(self, store: Store, is_made: Callable[[str], bool], github: str) -> None:
        self._store = store
        self._is_made = is_made
        self._github = github

    def is_there(self, project: str, pool: str) -> bool:
        """Whether a policy may name identities of a pool."""
        found = self._store.read(_file(pool_name(project, pool))) if _ID.fullmatch(pool) else None
        return not self._is_made(project) or bool(found and found["state"] == _ACTIVE)

    def pool(self, project: str, pool: str) -> Document:
        """A pool; raises ApiError NOT_FOUND."""
        return self._existing(pool_name(project, pool), pool)

    def pools(self, project: str, *, deleted: bool) -> list[Document]:
        """A project's pools, by name; with the deleted ones if wanted."""
        return self._within(pool_name(project, ""), deleted=deleted)

    def provider(self, project: str, pool: str, provider: str) -> Document:
        """A provider; raises ApiError NOT_FOUND."""
        name = f"{pool_name(project, pool)}/providers/{provider}"
        return self._existing(name, pool, provider)

    def providers(self, project: str, pool: str, *, deleted: bool) -> list[Document]:
        """A pool's providers, by name; raises ApiError NOT_FOUND."""
        return self._within(f"{self.pool(project, pool)['name']}/providers/", deleted=deleted)

    def create_pool(self, project: str, pool: str, body: Document) -> Document:
        """Make a pool; raises ApiError (INVALID_ARGUMENT, ALREADY_EXISTS)."""
        return self._create(pool_name(project, pool), pool, _known(body, _POOL_FIELDS))

    def create_provider(self, project: str, pool: str, provider: str, body: Document) -> Document:
        """Make an OIDC provider; raises ApiError (INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS)."""
        if self.pool(project, pool)["state"] != _ACTIVE:
            raise _not_found()
        fields = _known(body, _PROVIDER_FIELDS)
        _check_provider(fields)
        return self._create(f"{pool_name(project, pool)}/providers/{provider}", provider, fields)

    def patch(self, document: Document, body: Document, mask: str) -> Document:
        """Change the fields of a pool or provider that `mask` names; INVALID_ARGUMENT, NOT_FOUND.

        A mask may name a part of `oidc`, such as `oidc.issuerUri`.
        """
        if document["state"] != _ACTIVE:
            raise _not_found()
        is_provider = "/providers/" in document["name"]
        names = _PROVIDER_FIELDS if is_provider else _POOL_FIELDS
        fields = _known({k: v for k, v in body.items() if k not in ("name", "state")}, names)
        changed = dict(document)
        for path in filter(None, mask.split(",")):
            name, _, part = _camel(path).partition(".")
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
        """Delete a pool or provider for 30 days, and then for good; NOT_FOUND when it is deleted.

        Source: https://cloud.google.com/iam/docs/manage-workload-identity-pools-providers.
        """
        if document["state"] != _ACTIVE:
            raise _not_found()
        until = clock.rfc3339(datetime.now(UTC) + timedelta(days=_KEPT_DAYS))
        changed = {**document, "state": _DELETED, "expireTime": until}
        self._store.write(_file(changed["name"]), changed)
        return changed

    def undelete(self, document: Document) -> Document:
        """Bring a deleted pool or provider back; FAILED_PRECONDITION when it is not deleted."""
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
        # What is no ID never becomes a path.
        is_name = all(_ID.fullmatch(part) for part in ids)
        document = self._read(name) if is_name else None
        if document is None:
            raise _not_found()
        return document

    def _read(self, name: str) -> Document | None:
        """What goes by a name, unless it was deleted for good."""
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

    async def exchange(self, audience: str, token: str) -> Exchanged:
        """Verify a provider's token and find whom it stands for; raises Refused.

        `audience` is the provider's full name: //iam.googleapis.com/projects/…/providers/….
        """
        provider = self._enabled(audience)
        claims = await _verified(token, self._here(provider))
        variables: Document = {"assertion": claims}
        mapped = _mapped(provider["attributeMapping"], variables)
        condition = provider.get("attributeCondition")
        variables |= _as_variables(mapped)
        if condition and not _holds(condition, variables):
            raise Refused(
                "unauthorized_client",
                "The given credential is rejected by the attribute condition.",
            )
        attributes = {
            key.removeprefix("attribute."): value
            for key, value in mapped.items()
            if key.startswith("attribute.") and isinstance(value, str)
        }
        pool = provider["name"].partition("/providers/")[0]
        groups = mapped.get("google.groups") or []
        principal = federated(pool, mapped["google.subject"], attributes, groups)
        return Exchanged(principal, min(max(claims["exp"] - time.time(), _LEEWAY), HOUR))

    def _here(self, provider: Document) -> Document:
        oidc = provider["oidc"]
        if oidc["issuerUri"] != GITHUB:
            return provider
        return {**provider, "oidc": {**oidc, "issuerUri": self._github}}

    def _enabled(self, audience: str) -> Document:
        name = _AUDIENCE.fullmatch(audience)
        if name is None:
            raise Refused(
                "invalid_request",
                'Invalid value for "audience". This value should be the full resource name of the '
                "Identity Provider. See https://cloud.google.com/iam/docs/reference/sts/rest/v1/"
                "TopLevel/token for the list of possible formats.",
            )
        provider, pool = self._read(name["provider"]), self._read(name["pool"])
        if provider is None or not (_is_usable(provider) and _is_usable(pool)):
            raise Refused(
                "invalid_target",
                'The target service indicated by the "audience" parameters is invalid. This might '
                "either be because the pool or provider is disabled or deleted or because it "
                "doesn't exist.",
            )
        return provider


def _is_usable(document: Document | None) -> bool:
    return bool(document and document["state"] == _ACTIVE and not document.get("disabled"))


def _not_found() -> ApiError:
    return ApiError("NOT_FOUND", "Requested entity was not found.")


def _camel(path: str) -> str:
    """A field mask's path as JSON names it: gcloud sends `attributeMapping`, others snake case."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), path)


def _file(name: str) -> str:
    return f"federation/{name}.json"


def _known(body: Document, names: set[str]) -> Document:
    for name in body:
        if name not in names:
            raise invalid(f'Invalid JSON payload received. Unknown name "{name}"', name)
    return {name: body[name] for name in sorted(names) if name in body}


def _check_provider(fields: Document) -> None:
    issuer = (fields.get("oidc") or {}).get("issuerUri", "")
    # Google's takes https alone; the local issuer is on loopback.
    if not re.match(r"https://|http://(127\.0\.0\.1|localhost)[:/]", str(issuer)):
        raise invalid("Invalid OIDC issuer URI. The scheme must be https.", "oidc.issuerUri")
    mapping = fields.get("attributeMapping") or {}
    if not isinstance(mapping, dict) or "google.subject" not in mapping:
        raise invalid("The mapping of google.subject is required.", "attributeMapping")
    for key, expression in mapping.items():
        if not re.fullmatch(r"google\.(subject|groups|display_name)|attribute\.[a-z0-9_]+", key):
            raise invalid(f"'{key}' is not an attribute that can be mapped.", "attributeMapping")
        _check_expression(expression, "attributeMapping")
    condition = fields.get("attributeCondition", "")
    if condition:
        _check_expression(condition, "attributeCondition")
    if "github" in issuer and "assertion." not in condition:
        # GitHub's issuer is shared by all of GitHub: Google insists on a condition.
        raise invalid(
            "The attribute condition must reference one of the provider's claims. For more "
            "information, see https://cloud.google.com/iam/docs/"
            "workload-identity-federation-with-deployment-pipelines#conditions",
        )


def _check_expression(expression: Any, field: str) -> None:
    try:
        expressions.check(str(expression))
    except expressions.BadExpression as error:
        raise invalid(f"Invalid expression: {error}", field) from None


async def _verified(token: str, provider: Document) -> Document:
    """A token's claims, once its signature, issuer, audience and times are good; raises Refused."""
    try:
        header = jwt.get_unverified_header(token)
        claims: Document = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        raise Refused("invalid_grant", "The ID Token is malformed; unable to parse.") from None
    issuer = provider["oidc"]["issuerUri"]
    if claims.get("iss") != issuer:
        said = claims.get("iss", "null")
        raise Refused(
            "invalid_grant",
            f"The issuer in ID Token {said} does not match the expected one in config: {issuer}.",
        )
    try:
        keys = await keys_of(provider["oidc"])
    except IssuerUnreachable:
        raise _no_key() from None
    # Whatever the token says of its algorithm: "none", or an HMAC with the public key as secret.
    key = keys.get(str(header.get("kid")))
    if key is None or header.get("alg") != ALGORITHM:
        raise _no_key() if key is None else _unverifiable()
    name = provider["name"]
    audiences = provider["oidc"].get("allowedAudiences") or [
        f"https://iam.googleapis.com/{name}",
        f"//iam.googleapis.com/{name}",
    ]
    try:
        jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=audiences,
            issuer=issuer,
            leeway=_LEEWAY,
            options={"require": ["exp", "iat"]},
        )
    except (jwt.InvalidAudienceError, jwt.MissingRequiredClaimError) as error:
        if getattr(error, "claim", "aud") == "aud":
            said = claims.get("aud", "")
            raise Refused(
                "invalid_grant",
                f"The audience in ID Token [{said}] does not match the expected audience.",
            ) from None
        raise _stale(claims) from None
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError):
        raise _stale(claims) from None
    except jwt.InvalidTokenError:
        raise _unverifiable() from None
    return claims


def _no_key() -> Refused:
    return Refused("invalid_grant", "Error connecting to the given credential's issuer.")


def _unverifiable() -> Refused:
    return Refused("invalid_grant", "Unable to verify the ID Token signature.")


def _stale(claims: Document) -> Refused:
    issued = claims.get("iat", "null")
    return Refused("invalid_grant", f"ID Token issued at {issued} is stale to sign-in.")


def _mapped(mapping: dict[str, str], variables: Document) -> Document:
    """The attributes that a mapping gives; one whose claim is missing is left out."""
    mapped = {}
    for key, expression in mapping.items():
        try:
            mapped[key] = expressions.evaluate(expression, variables)
        except expressions.BadExpression:
            continue
    subject = mapped.get("google.subject")
    if not isinstance(subject, str) or not subject:
        raise Refused(
            "invalid_grant", "The mapped attribute google.subject must be a non-empty string."
        )
    if len(subject.encode()) > _LONGEST_SUBJECT:
        raise Refused(
            "invalid_grant",
            "The size of mapped attribute google.subject exceeds the 127 bytes limit. Either "
            "modify your attribute mapping or the incoming assertion to produce a mapped attribute "
            "that is less than 127 bytes.",
        )
    return mapped


def _as_variables(mapped: Document) -> Document:
    """Mapped attributes as a condition sees them: `google.subject`, `attribute.NAME`."""
    variables: Document = {"google": {}, "attribute": {}}
    for key, value in mapped.items():
        group, _, name = key.partition(".")
        variables[group][name] = value
    return variables


def _holds(condition: str, variables: Document) -> bool:
    try:
        return expressions.evaluate(condition, variables) is True
    except expressions.BadExpression:
        return False
