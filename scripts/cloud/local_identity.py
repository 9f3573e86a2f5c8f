"""Tokens of a user or service account that the local Cloud Run of a checkout knows.

It gives them to whoever can read the secret in its state folder.
"""

from __future__ import annotations

import re
from typing import Any

import requests

from scripts.config.running import Running
from scripts.errors import Failed

OWNER = "user:owner@localhost"
"""The owner of every project at a local Cloud Run."""


def is_member(credentials: str) -> bool:
    """Return whether an environment's `credentials` name a user or a service account."""
    return re.match("(user|serviceAccount):", credentials) is not None


def send(
    local: Running, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]
) -> requests.Response:
    """Send a request to a local Cloud Run, past every proxy."""
    with requests.Session() as http:
        http.trust_env = False
        return http.request(method, local.url + path, json=body, headers=headers, timeout=10)


class LocalIdentity:
    """A member of IAM policies at a local Cloud Run.

    Args:
        local: the local Cloud Run.
        member: user:EMAIL or serviceAccount:EMAIL.
    """

    def __init__(self, local: Running, member: str) -> None:
        self._local = local
        self.member = member
        self._token = ""

    def token(self) -> str:
        """Return an access token, valid for an hour from the first call on."""
        self._token = self._token or str(self._make("access-tokens").json()["access_token"])
        return self._token

    def id_token(self, audience: str) -> str:
        """Return an ID token for a private service.

        Args:
            audience: the service's own URL.
        """
        return self._make("id-tokens", audience=audience).text

    def _make(self, kind: str, **more: str) -> requests.Response:
        try:
            body = {"member": self.member, **more}
            answer = send(self._local, "POST", f"/_local/{kind}", body, self._local.secret)
            answer.raise_for_status()
            return answer
        except (requests.RequestException, OSError) as error:
            raise Failed(
                f"the local Cloud Run at {self._local.url} gives no token for {self.member}",
                "start it again: ./ship up --stop, then ./ship up --background",
                evidence=[type(error).__name__],
            ) from None
