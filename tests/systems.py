"""The systems of tests/services: what each one needs beside its files, and what it does for users.

`works` of a system is given its URL, and fails unless the system does what its document promises.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import requests

Document = dict[str, Any]
KEY = "s3same"
SECRET = "api-key"
_SECONDS = 20


def _unchanged(_service: Document) -> None:
    pass


def put_key(url: str, project: str) -> None:
    """Give the key that `secret-key` asks for to a project at a local Cloud Run."""
    secrets = f"{url}/v1/projects/{project}/secrets"
    value = {"payload": {"data": base64.b64encode(KEY.encode()).decode()}}
    for path, body in (
        (f"?secretId={SECRET}", {"replication": {"automatic": {}}}),
        (f"/{SECRET}:addVersion", value),
    ):
        requests.post(secrets + path, json=body, timeout=_SECONDS).raise_for_status()


class System(NamedTuple):
    """A folder of tests/services.

    Attributes:
        name: the folder's name.
        works: checks the system at its URL.
        path: a path that it answers with 200 to everyone.
        settles: completes service.yaml after `init`.
        second: changes service.yaml for the second release.
        file: the file that starts it.
        is_fixed: whether it listens on one port whatever $PORT says.
    """

    name: str
    works: Callable[[str], None]
    path: str = "/"
    settles: Callable[[Document], None] = _unchanged
    second: Callable[[Document], None] = _unchanged
    file: str = "main.py"
    is_fixed: bool = False

    @property
    def breaks(self) -> str:
        """The line that, first in `file`, keeps the system from starting."""
        how = "throw new Error" if self.file.endswith(".js") else "raise RuntimeError"
        return f'{how}("broken on purpose")\n'

    @property
    def comment(self) -> str:
        """A line that changes nothing, at the end of `file`."""
        return f"{'//' if self.file.endswith('.js') else '#'} the second release\n"


def container(service: Document) -> Document:
    """Return the only container of a Service."""
    [one] = service["spec"]["template"]["spec"]["containers"]
    found: Document = one
    return found


def _call(method: str, url: str, body: Any = None, status: int = 200, **headers: str) -> Any:
    answer = requests.request(method, url, json=body, headers=headers, timeout=_SECONDS)
    assert answer.status_code == status, (url, answer.status_code, answer.text)
    is_json = answer.headers["Content-Type"].startswith("application/json")
    return answer.json() if is_json else answer.text


@contextmanager
def _browser(url: str) -> Iterator[Callable[[], Document]]:
    """Open the chat's page; yields what waits for the next message."""
    assert "EventSource" in _call("GET", url)
    with requests.get(f"{url}/events", stream=True, timeout=_SECONDS) as answer:
        lines = answer.iter_lines(chunk_size=1, decode_unicode=True)

        def next_message() -> Document:
            while next(lines) != "event: message":
                pass
            message: Document = json.loads(next(lines).removeprefix("data: "))
            return message

        assert next(lines) == "event: instance"
        yield next_message


def _chat(url: str) -> None:
    with _browser(url) as one, _browser(url) as other:
        for text in ("Hello", "¿Qué tal?"):
            sent = _call("POST", f"{url}/messages", {"nickname": "Ana", "text": text}, 201)
            assert one() == other() == sent == {"nickname": "Ana", "text": text}
    _call("POST", f"{url}/messages", {"nickname": "", "text": "Hello"}, 400)


def _todo(url: str) -> None:
    assert "<ul" in _call("GET", url)
    item = _call("POST", f"{url}/items", {"title": "Buy milk"}, 201)
    at = f"{url}/items/{item['id']}"
    assert _call("PATCH", at, {"done": True}) == {**item, "done": True}
    edited = _call("PATCH", at, {"title": "Buy oat milk"})
    assert edited == {"id": item["id"], "title": "Buy oat milk", "done": True}
    assert edited in _call("GET", f"{url}/items")
    _call("DELETE", at, status=204)
    assert edited not in _call("GET", f"{url}/items")


def _gemini(url: str) -> None:
    assert "gemini-2.5-flash" in _call("GET", url)
    for _ in range(10):  # on a busy machine, pieces may come together
        asked = {"message": "Hi there"}
        answer = requests.post(f"{url}/chat", json=asked, stream=True, timeout=_SECONDS)
        pieces = [piece.decode() for piece in answer.iter_content(chunk_size=None)]
        assert "".join(pieces).endswith('does not think. You wrote: "Hi there"'), pieces
        if len(pieces) > 1:
            return
    raise AssertionError("the answer does not stream")


def _hello(url: str) -> None:
    assert _call("GET", url) == "Hello World!"


def _large(service: Document) -> None:
    """2 CPUs, 2Gi, 300 s, at most 10 instances, and variables."""
    service["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/maxScale"] = (
        "10"
    )
    service["spec"]["template"]["spec"]["timeoutSeconds"] = 300
    container(service)["resources"] = {"limits": {"cpu": "2", "memory": "2Gi"}}
    container(service)["env"] = [{"name": "GREETING", "value": "Good day"}]


def _api_server(url: str) -> None:
    assert _call("GET", url) == {"message": "Good day", "environment": "local"}
    made = _call("POST", f"{url}/items", {"name": "cup", "price": 2.5}, 201)
    assert _call("GET", f"{url}/items/{made['id']}") == made
    refused = _call("POST", f"{url}/containers", {}, 503)
    assert "Docker is not available" in refused["detail"]


def _ai(url: str) -> None:
    assert _call("GET", f"{url}/health") == {"status": "healthy"}
    answer = _call("POST", f"{url}/predict", {"text": "A great day"})
    assert answer == {"label": "positive", "score": 1}, answer


def _api(url: str) -> None:
    answer = _call("POST", f"{url}/analyze", {"text": "A bad, sad day"})
    assert answer == {"label": "negative", "score": -2}, answer


def _one_instance(service: Document) -> None:
    """One room for everyone."""
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    annotations["autoscaling.knative.dev/maxScale"] = "1"


def _from_a_variable(service: Document) -> None:
    """The key comes from the secret before the container starts."""
    reference = {"secretKeyRef": {"name": SECRET, "key": "latest"}}
    container(service)["env"] = [{"name": "API_KEY", "valueFrom": reference}]


def _secret_key(url: str) -> None:
    assert _call("GET", f"{url}/private", **{"X-API-Key": KEY}) == {"message": "the key is right"}
    _call("GET", f"{url}/private", status=401, **{"X-API-Key": "guessed"})


SYSTEMS = {
    one.name: one
    for one in (
        System("chat", _chat, settles=_one_instance, is_fixed=True),
        System("todo", _todo),
        System("gemini", _gemini),
        System("hello", _hello),
        System("api-server", _api_server, settles=_large, is_fixed=True),
        System("ai", _ai, path="/health", is_fixed=True),
        System("api", _api, file="server.js"),
        System("secret-key", _secret_key, second=_from_a_variable, is_fixed=True),
    )
}
