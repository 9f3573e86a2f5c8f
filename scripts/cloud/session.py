"""The HTTP session for requests that carry credentials."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests

from scripts.errors import Failed


class Session(requests.Session):
    """A session that follows no redirect.

    requests removes the Authorization header before it follows one to another host, but sends a
    token in a body again.
    """

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request; a redirect is an error unless the caller passes `allow_redirects=False`.

        Raises:
            Failed: the answer is a redirect.
        """
        follow = kwargs.pop("allow_redirects", True)
        answer = super().send(request, allow_redirects=False, **kwargs)
        if follow and answer.is_redirect:
            raise redirected(answer)
        return answer


def redirected(answer: requests.Response) -> Failed:
    """Make the error for an answer that redirects a request with credentials."""
    answer.close()
    asked = urlsplit(str(answer.request.url))
    return Failed(
        f"{asked.scheme}://{asked.netloc} redirects {answer.request.method} {asked.path} to"
        f" {answer.headers['Location'][:200]}: a request with credentials follows no redirect",
        "check the address: the endpoint in the environment's file, and the proxy",
    )
