"""The routes of IAM, its token services, and the local issuer."""

from __future__ import annotations

from emulator.identity import github
from emulator.identity.local_responses import LocalResponses
from emulator.identity.models import Identity
from emulator.identity.responses import Responses
from emulator.identity.token_responses import TokenResponses
from emulator.operations import Operations
from emulator.permissions import LOCAL, OPEN, Asks, On
from emulator.routes import Route, policy_routes

_PROJECT = "/v1/projects/{project:[^/:]+}"
_PROJECT_V3 = "/v3/projects/{project:[^/:]+}"
_ACCOUNTS = "/v1/projects/{project}/serviceAccounts"
_ACCOUNT = f"{_ACCOUNTS}/{{email:[^/:]+}}"
_ROLES = "/v1/projects/{project}/roles"
_ROLE = f"{_ROLES}/{{role:[^/:]+}}"
_POOLS = "/v1/projects/{project}/locations/global/workloadIdentityPools"
_POOL = f"{_POOLS}/{{pool:[^/:]+}}"
_PROVIDERS = f"{_POOL}/providers"
_PROVIDER = f"{_PROVIDERS}/{{provider:[^/:]+}}"
_REPOSITORY = "/v1/projects/{project}/locations/{location}/repositories/{repository:[^/:]+}"
_SECRET = "/v1/projects/{project}/secrets/{name:[^/:]+}"  # noqa: S105  (a path)
_BUCKET_POLICY = "/storage/v1/b/{bucket}/iam"
# Names of resources, as refusals write them.
_OF_PROJECT = "projects/{project}"
_OF_REPOSITORY = f"{_OF_PROJECT}/locations/{{location}}/repositories/{{repository}}"
_OF_SECRET = f"{_OF_PROJECT}/secrets/{{name}}"


def routes(identity: Identity, operations: Operations) -> list[Route]:
    """Return the routes of everything about identity."""
    answer = Responses(identity, operations)
    return [
        *_tokens(TokenResponses(identity)),
        *_accounts(answer),
        *_roles(answer),
        *_federation(answer),
        *_policies(answer),
        *_local(LocalResponses(identity)),
    ]


def _tokens(answer: TokenResponses) -> list[Route]:
    """Return the routes of tokens. The first four return public keys or check their input."""
    access = Asks("iam.serviceAccounts.getAccessToken", On.ACCOUNT)
    identity = Asks("iam.serviceAccounts.getOpenIdToken", On.ACCOUNT)
    return [
        Route("POST", "/v1/token", answer.token, OPEN),
        Route("GET", "/oauth2/v3/certs", answer.keys, OPEN),
        Route("POST", "/tokeninfo", answer.token_info, OPEN),
        Route("GET", "/v2/token", answer.docker_token, OPEN),
        Route("POST", f"{_ACCOUNT}:generateAccessToken", answer.generate_access_token, access),
        Route("POST", f"{_ACCOUNT}:generateIdToken", answer.generate_id_token, identity),
    ]


def _accounts(answer: Responses) -> list[Route]:
    lists = Asks("iam.serviceAccounts.list", On.PROJECT, _OF_PROJECT)
    creates = Asks("iam.serviceAccounts.create", On.PROJECT, _OF_PROJECT)
    gets = Asks("iam.serviceAccounts.get", On.ACCOUNT)
    deletes = Asks("iam.serviceAccounts.delete", On.ACCOUNT)
    return [
        Route("GET", _ACCOUNTS, answer.list_accounts, lists),
        Route("POST", _ACCOUNTS, answer.create_account, creates),
        Route("GET", _ACCOUNT, answer.get_account, gets),
        Route("DELETE", _ACCOUNT, answer.delete_account, deletes),
    ]


def _roles(answer: Responses) -> list[Route]:
    return [
        Route(method, path, handler, Asks(f"iam.roles.{verb}", On.PROJECT, _OF_PROJECT))
        for method, path, handler, verb in (
            ("GET", _ROLES, answer.list_roles, "list"),
            ("POST", _ROLES, answer.create_role, "create"),
            ("GET", _ROLE, answer.get_role, "get"),
            ("PATCH", _ROLE, answer.patch_role, "update"),
            ("DELETE", _ROLE, answer.delete_role, "delete"),
            ("POST", f"{_ROLE}:undelete", answer.undelete_role, "undelete"),
        )
    ] + [Route("GET", "/v1/roles", answer.list_predefined_roles, OPEN)]


def _federation(answer: Responses) -> list[Route]:
    """Return the routes of pools and providers: every permission is needed on the project."""
    found: list[Route] = []
    for several, one, kind, list_all, create in (
        (_POOLS, _POOL, "Pools", answer.list_pools, answer.create_pool),
        (_PROVIDERS, _PROVIDER, "PoolProviders", answer.list_providers, answer.create_provider),
    ):
        for method, path, handler, verb in (
            ("GET", several, list_all, "list"),
            ("POST", several, create, "create"),
            ("GET", one, answer.get_federation, "get"),
            ("PATCH", one, answer.patch_federation, "update"),
            ("DELETE", one, answer.delete_federation, "delete"),
            ("POST", f"{one}:undelete", answer.undelete_federation, "undelete"),
            ("GET", f"{one}/operations/{{operation}}", answer.operation, "get"),
        ):
            asks = Asks(f"iam.workloadIdentity{kind}.{verb}", On.PROJECT, _OF_PROJECT)
            found.append(Route(method, path, handler, asks))
    return found


def _policies(answer: Responses) -> list[Route]:
    of_project = Asks("resourcemanager.projects", On.PROJECT, _OF_PROJECT)
    of_account = Asks("iam.serviceAccounts", On.ACCOUNT)
    of_repository = Asks("artifactregistry.repositories", On.REPOSITORY, _OF_REPOSITORY)
    of_secret = Asks("secretmanager.secrets", On.SECRET, _OF_SECRET)
    handlers = (answer.get_policy, answer.set_policy, answer.test_permissions)
    return [
        *policy_routes(_PROJECT, of_project, handlers),
        *policy_routes(_PROJECT_V3, of_project, handlers),
        *policy_routes(_ACCOUNT, of_account, handlers),
        *policy_routes(_REPOSITORY, of_repository, handlers, read="GET"),
        *policy_routes(_SECRET, of_secret, handlers, read="GET"),
        Route("GET", _BUCKET_POLICY, answer.get_bucket_policy, _on_bucket("getIamPolicy")),
        Route("PUT", _BUCKET_POLICY, answer.set_bucket_policy, _on_bucket("setIamPolicy")),
        Route(
            "GET",
            f"{_BUCKET_POLICY}/testPermissions",
            answer.test_bucket_permissions,
            _on_bucket(""),
        ),
    ]


def _on_bucket(verb: str) -> Asks:
    """Return the requirement of a request about a bucket; "" if every caller may send it."""
    return Asks(f"storage.buckets.{verb}" if verb else "", On.BUCKET, "{bucket}")


def _local(answer: LocalResponses) -> list[Route]:
    """Return the routes of the local issuer, and of tokens for the user of this local Cloud Run."""
    return [
        Route("GET", f"{github.PATH}/.well-known/openid-configuration", answer.discovery, OPEN),
        Route("GET", f"{github.PATH}/.well-known/jwks", answer.jwks, OPEN),
        Route("GET", f"{github.PATH}/token", answer.job_token, OPEN),
        Route("POST", "/_local/github/jobs", answer.start_job, LOCAL),
        Route("POST", "/_local/access-tokens", answer.access_token, LOCAL),
        Route("POST", "/_local/id-tokens", answer.id_token, LOCAL),
    ]
