"""The owner of every project of a scratch Cloud Run, who also acts for Google's own machines."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec
import requests

from scripts.errors import Failed
from scripts.machine.scratch import LocalCloudRun
from scripts.setup.permissions import Binding
from scripts.setup.resources import Account, Resource

_OWNER = "user:owner@localhost"


class Owner:
    """The user with every permission at a local Cloud Run; `token` is its token."""

    def __init__(self, cloud_run: LocalCloudRun) -> None:
        self.url = cloud_run.url
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers.update(cloud_run.secret)
        self.token = str(self.post("/_local/access-tokens", {"member": _OWNER})["access_token"])
        self._http.headers["Authorization"] = f"Bearer {self.token}"

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """Return the answer to a GET; raise Failed if it is refused."""
        return self._answer(self._http.get(self.url + path, timeout=30))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the answer to a POST; raise Failed if it is refused."""
        return self._answer(self._http.post(self.url + path, json=body, timeout=30))

    @staticmethod
    def _answer(answer: requests.Response) -> Any:
        if not answer.ok:
            raise Failed(f"{answer.request.method} {answer.url}", evidence=[answer.text[:500]])
        return answer.json()

    def number(self, project: str) -> str:
        """Return a project's number."""
        return str(self.get(f"/v1/projects/{project}")["projectNumber"])

    def grant(self, account: Account, binding: Binding) -> None:
        """Give an account the role that a binding gives to another member."""
        self._grant(msgspec.structs.replace(binding, member=account.member))

    def access_token(self, account: Account) -> str:
        """Return an access token of an account, as Google's own machines get it."""
        made = self.post("/_local/access-tokens", {"member": account.member})
        return str(made["access_token"])

    def id_token(self, account: Account, audience: str) -> str:
        """Return an ID token of an account, as Google's own machines get it."""
        resource = Resource(kind="account", project=account.project, name=account.email)
        role = "roles/iam.serviceAccountOpenIdTokenCreator"
        self._grant(Binding(role=role, resource=resource, member=_OWNER, why="metadata"))
        body = {"audience": audience, "includeEmail": True}
        path = f"/v1/projects/-/serviceAccounts/{account.email}:generateIdToken"
        return str(self.post(path, body)["token"])

    def secret(self, account: Account, version: str) -> str:
        """Return the value of a secret's version, as the account reads it.

        Raises:
            Failed: the account may not read it, or it does not exist.
        """
        token = self.access_token(account)
        answer = requests.get(
            f"{self.url}/v1/{version}:access",
            headers={"Authorization": f"Bearer {token}"}, timeout=30,
        )  # fmt: skip
        return base64.b64decode(self._answer(answer)["payload"]["data"]).decode()

    def _grant(self, binding: Binding) -> None:
        resource = binding.resource
        bound = {"role": binding.role, "members": [binding.member]}
        if resource.kind == "bucket":
            url = f"{self.url}/storage/v1/{resource.path}/iam"
            policy = self._answer(self._http.get(url, timeout=30))
            policy["bindings"] = [*policy.get("bindings", []), bound]
            self._answer(self._http.put(url, json=policy, timeout=30))
            return
        path = f"/v1/{resource.path}"
        if resource.kind in ("repository", "secret", "service"):
            policy = self.get(f"{path}:getIamPolicy")
        else:
            policy = self.post(f"{path}:getIamPolicy", {})
        policy["bindings"] = [*policy.get("bindings", []), bound]
        self.post(f"{path}:setIamPolicy", {"policy": policy})
