"""Which requests belong to IAM, its token services, and the local issuer."""

from __future__ import annotations

from aiohttp import web

from emulator.identity import github
from emulator.identity.exchange import Exchange
from emulator.identity.responses import Responses

_POOL = "/v1/projects/{project}/locations/global/workloadIdentityPools"
_PROJECT = "/v1/projects/{project:[^/:]+}"
_ACCOUNT = "/v1/projects/{project}/serviceAccounts/{email:[^/:]+}"
_REPOSITORY = "/v1/projects/{project}/locations/{location}/repositories/{repository:[^/:]+}"
_SECRET = "/v1/projects/{project}/secrets/{name:[^/:]+}"  # noqa: S105  (a path)


def routes(answer: Responses, exchange: Exchange) -> list[web.RouteDef]:
    """The routes of everything about identity."""
    found = [
        web.post("/v1/token", exchange.token),
        web.post(f"{_ACCOUNT}:generateAccessToken", exchange.generate_access_token),
        web.post(f"{_ACCOUNT}:generateIdToken", exchange.generate_id_token),
        web.get("/oauth2/v3/certs", exchange.keys),
        web.get("/v2/token", exchange.docker_token),
        web.post(_POOL, answer.create_pool),
        web.get(f"{_POOL}/{{pool}}", answer.get_pool),
        web.post(f"{_POOL}/{{pool}}/providers", answer.create_provider),
        web.get(f"{_POOL}/{{pool}}/providers/{{provider}}", answer.get_provider),
        web.get(f"{github.PATH}/.well-known/openid-configuration", answer.discovery),
        web.get(f"{github.PATH}/.well-known/jwks", answer.jwks),
        web.get(f"{github.PATH}/token", answer.job_token),
        web.post(f"{github.PATH}/jobs", answer.start_job),
        web.post("/_local/access-tokens", answer.access_token),
        # Some read policies with GET: Artifact Registry and Secret Manager. Others with POST.
        web.get(f"{_REPOSITORY}:getIamPolicy", answer.get_policy),
        web.get(f"{_SECRET}:getIamPolicy", answer.get_policy),
        web.post(f"{_PROJECT}:getIamPolicy", answer.get_policy),
        web.post(f"{_ACCOUNT}:getIamPolicy", answer.get_policy),
    ]
    for base in (_PROJECT, _ACCOUNT, _REPOSITORY, _SECRET):
        found += [
            web.post(f"{base}:setIamPolicy", answer.set_policy),
            web.post(f"{base}:testIamPermissions", answer.test_permissions),
        ]
    return found
