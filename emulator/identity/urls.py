"""Which requests belong to IAM, its token services, and the local issuer."""

from __future__ import annotations

from aiohttp import web

from emulator.identity import github
from emulator.identity.exchange import Exchange
from emulator.identity.responses import Responses

_POOLS = "/v1/projects/{project}/locations/global/workloadIdentityPools"
_POOL = f"{_POOLS}/{{pool:[^/:]+}}"
_PROVIDERS = f"{_POOL}/providers"
_PROVIDER = f"{_PROVIDERS}/{{provider:[^/:]+}}"
_PROJECT = "/v1/projects/{project:[^/:]+}"
_PROJECT_V3 = "/v3/projects/{project:[^/:]+}"
_ACCOUNTS = "/v1/projects/{project}/serviceAccounts"
_ACCOUNT = f"{_ACCOUNTS}/{{email:[^/:]+}}"
_REPOSITORY = "/v1/projects/{project}/locations/{location}/repositories/{repository:[^/:]+}"
_SECRET = "/v1/projects/{project}/secrets/{name:[^/:]+}"  # noqa: S105  (a path)


def routes(answer: Responses, exchange: Exchange) -> list[web.RouteDef]:
    """The routes of everything about identity."""
    found = [
        web.post("/v1/token", exchange.token),
        web.post(f"{_ACCOUNT}:generateAccessToken", exchange.generate_access_token),
        web.post(f"{_ACCOUNT}:generateIdToken", exchange.generate_id_token),
        web.get("/oauth2/v3/certs", exchange.keys),
        web.post("/tokeninfo", exchange.token_info),
        web.get("/v2/token", exchange.docker_token),
        web.get(_ACCOUNTS, answer.list_accounts),
        web.post(_ACCOUNTS, answer.create_account),
        web.get(_ACCOUNT, answer.get_account),
        web.delete(_ACCOUNT, answer.delete_account),
        web.get(_POOLS, answer.list_pools),
        web.post(_POOLS, answer.create_pool),
        web.get(_PROVIDERS, answer.list_providers),
        web.post(_PROVIDERS, answer.create_provider),
        web.get(f"{github.PATH}/.well-known/openid-configuration", answer.discovery),
        web.get(f"{github.PATH}/.well-known/jwks", answer.jwks),
        web.get(f"{github.PATH}/token", answer.job_token),
        web.post(f"{github.PATH}/jobs", answer.start_job),
        web.post("/_local/access-tokens", answer.access_token),
        # Some read policies with GET: Artifact Registry and Secret Manager. Others with POST.
        web.get(f"{_REPOSITORY}:getIamPolicy", answer.get_policy),
        web.get(f"{_SECRET}:getIamPolicy", answer.get_policy),
        web.post(f"{_PROJECT}:getIamPolicy", answer.get_policy),
        web.post(f"{_PROJECT_V3}:getIamPolicy", answer.get_policy),
        web.post(f"{_ACCOUNT}:getIamPolicy", answer.get_policy),
    ]
    for one in (_POOL, _PROVIDER):
        found += [
            web.get(one, answer.get_federation),
            web.patch(one, answer.patch_federation),
            web.delete(one, answer.delete_federation),
            web.post(f"{one}:undelete", answer.undelete_federation),
            web.get(f"{one}/operations/{{operation}}", answer.operation),
        ]
    for base in (_PROJECT, _PROJECT_V3, _ACCOUNT, _REPOSITORY, _SECRET):
        found += [
            web.post(f"{base}:setIamPolicy", answer.set_policy),
            web.post(f"{base}:testIamPermissions", answer.test_permissions),
        ]
    return found
