"""Tell people and programs of each change of a release. A message never delays a change.

Each message is sent once, by a thread of its own, with a deadline; what went wrong is printed once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import requests

from scripts.cloud.google import Google
from scripts.cloud.patience import Patience
from scripts.command.github import run_url
from scripts.config.formats import Receiver
from scripts.config.pipelines import Pipeline
from scripts.errors import ShipError, UsageError
from scripts.release.memory import Event

_CONNECT_SECONDS, _ANSWER_SECONDS = 2.0, 3.0
_AT_THE_END_SECONDS = 6.0  # a command waits as long for messages that are under way
_VERBS = {
    "release": "begins the release of {revision}",
    "rollout": "gives {revision} {percent} % of the traffic",
    "promote": "gives {revision} {percent} % of the traffic",
    "failed": "moved the traffic of {revision} back",
    "rollback": "rolled back to {revision}",
    "hold": "put the service on hold",
    "resume": "released the hold",
}
_UNDO = {
    **dict.fromkeys(("release", "rollout", "promote"), "./ship rollback {where}"),
    "failed": "./ship rollout {where}",
    **dict.fromkeys(("rollback", "hold"), "./ship resume {where}"),
    "resume": "./ship hold {where}",
}


class Notifier:
    """The receivers of one service in one environment.

    Args:
        pipeline: the service's files.
        say: prints a line.
    """

    def __init__(self, pipeline: Pipeline, say: Callable[[str], None]) -> None:
        self._pipeline = pipeline
        # Its own patience: a secret that cannot be read takes no time from the change.
        self._google = Google(pipeline, dry_run=True, patience=Patience(_ANSWER_SECONDS))
        self._say = say
        self._sent: set[tuple[object, ...]] = set()
        self._troubles: set[str] = set()
        self._threads: list[threading.Thread] = []

    def changed(self, event: Event) -> None:
        """Send a change that was written; the same change in another region is no second one."""
        if event.verb not in _VERBS:
            return
        change = (event.verb, event.revision, event.percent)  # each region has its own time
        if change in self._sent:
            return
        self._sent.add(change)
        identity = _identity(self._pipeline, event)
        for receiver in self._pipeline.environment.notify:
            thread = threading.Thread(
                target=self._send, args=(receiver, event, identity), daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Wait a little for messages that are under way."""
        deadline = time.monotonic() + _AT_THE_END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self._trouble("a receiver did not answer in time")

    def _send(self, receiver: Receiver, event: Event, identity: str) -> None:
        try:
            url = self._value(receiver.url)
            body, headers = self._message(receiver, event, identity)
            answer = requests.post(
                url, data=body, headers=headers, allow_redirects=False,
                timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
            )  # fmt: skip
            if answer.status_code >= 300:
                self._trouble(f"{receiver.to} answered {answer.status_code}")
        except ShipError as error:
            self._trouble(error.message)
        except Exception as error:
            # Its text may have the URL, which is a secret.
            self._trouble(f"{receiver.to} cannot be reached: {type(error).__name__}")

    def _trouble(self, reason: str) -> None:
        if reason not in self._troubles:
            self._troubles.add(reason)
            self._say(f"note: not everyone was notified: {reason}")

    def _value(self, reference: str) -> str:
        """Return what a reference stands for: an environment variable, or a secret's value."""
        if reference.startswith("$"):
            value = os.environ.get(reference[1:], "")
            if not value:
                raise UsageError(f"{reference} is not set")
            return value
        if reference.startswith("https://"):
            return reference
        found = self._google.get("secretmanager", f"/v1/{reference}/versions/latest:access")
        return base64.b64decode(found["payload"]["data"]).decode().strip()

    def _message(
        self, receiver: Receiver, event: Event, identity: str
    ) -> tuple[bytes, dict[str, str]]:
        data = self._data(event)
        if receiver.to == "slack":
            return _json({"text": _for_slack(_text(data))}), {"Content-Type": "application/json"}
        if receiver.to == "google-chat":
            return _json({"text": _for_chat(_text(data))}), {"Content-Type": "application/json"}
        place = f"{self._pipeline.environment.project}/{self._pipeline.service}"
        body = _json(
            {
                "specversion": "1.0",
                "id": identity,
                "source": f"/shipway/{place}/{self._pipeline.env}",
                "type": f"dev.shipway.{event.verb}",
                "time": event.at,
                "subject": event.revision or self._pipeline.service,
                "datacontenttype": "application/json",
                "data": data,
            }
        )
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
        if receiver.key:
            headers |= signature(self._value(receiver.key), identity, int(time.time()), body)
        return body, headers

    def _data(self, event: Event) -> dict[str, Any]:
        where = self._pipeline.where
        return {
            "service": self._pipeline.service,
            "environment": self._pipeline.env,
            "project": self._pipeline.environment.project,
            "what": _VERBS[event.verb].format(revision=event.revision, percent=event.percent),
            "verb": event.verb,
            "revision": event.revision,
            "percent": event.percent,
            "by": event.by,
            "why": event.why,
            "at": event.at,
            "undo": _UNDO[event.verb].format(where=where),
            "run": run_url(),
        }


def _identity(pipeline: Pipeline, event: Event) -> str:
    """Return the ID of a change, the same for each receiver."""
    parts: Sequence[object] = (
        pipeline.environment.project, pipeline.service, pipeline.env,
        event.at, event.verb, event.revision, event.percent,
    )  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def signature(key: str, identity: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers that prove who sent a message.

    Source: https://www.standardwebhooks.com (webhook-id, webhook-timestamp, webhook-signature).

    Args:
        key: the key that the receiver knows.
        identity: the message's ID.
        at: the time, in seconds since the epoch.
        body: the message.
    """
    signed = f"{identity}.{at}.".encode() + body
    digest = hmac.new(key.encode(), signed, hashlib.sha256).digest()
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _text(data: dict[str, Any]) -> str:
    lines = [f"{data['service']} in {data['environment']}: {data['by']} {data['what']}"]
    lines += [data["why"]] if data["why"] else []
    lines += [f"To undo it: {data['undo']}"]
    lines += [data["run"]] if data["run"] else []
    return "\n".join(lines)


def _for_slack(text: str) -> str:
    """Source: https://docs.slack.dev/messaging/formatting-message-text#escaping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _for_chat(text: str) -> str:
    """Google Chat has no escapes: <users/all> would call everyone, <url|text> be a link.

    Source: https://developers.google.com/workspace/chat/format-messages.
    """
    return text.replace("<", "(").replace(">", ")")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
