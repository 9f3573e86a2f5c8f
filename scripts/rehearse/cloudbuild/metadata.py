"""The metadata server that gives Cloud Build's steps tokens of the build's account.

Source: https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_ACCOUNTS = "instance/service-accounts/"


@contextmanager
def serve(
    project: str, email: str, access: Callable[[], str], identity: Callable[[str], str]
) -> Iterator[str]:
    """Run a metadata server on loopback for the length of the block.

    Args:
        project: The project that the build runs in.
        email: The build's service account.
        access: Returns an access token of this account.
        identity: An audience -> an ID token of this account.

    Yields:
        HOST:PORT, the value of GCE_METADATA_HOST.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/computeMetadata/v1/")
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            if parts.path != "/" and self.headers["Metadata-Flavor"] != "Google":
                self._answer(403, "")
                return
            try:
                text = self._text(path, query)
            except Exception as error:
                self._answer(500, str(error))
                return
            self._answer(404 if text is None else 200, text or "")

        def _text(self, path: str, query: dict[str, str]) -> str | None:
            if path in ("/", ""):
                return "computeMetadata/\n"
            if path == "project/project-id":
                return project
            account, _, what = path.removeprefix(_ACCOUNTS).partition("/")
            if not path.startswith(_ACCOUNTS) or account not in ("default", email):
                return None
            if what == "" and "recursive" in query:
                return json.dumps({"aliases": ["default"], "email": email, "scopes": []})
            if what == "email":
                return email
            if what == "token":
                made = {"access_token": access(), "expires_in": 3000, "token_type": "Bearer"}
                return json.dumps(made)
            if what == "identity" and query.get("audience"):
                return identity(query["audience"])
            return None

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Metadata-Flavor", "Google")
            kind = "application/json" if text.startswith("{") else "application/text"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a request may contain a token."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
