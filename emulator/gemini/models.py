"""A stand-in for Gemini's models: its answers depend on the question alone.

Source: the discovery document aiplatform.v1beta1 (projects.locations.publishers.models). The
messages are from memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, TypedDict

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.fields import typed

Document = dict[str, Any]

_WORDS = 4  # of a piece of an answer
_QUOTED = 300  # characters
_ROLES = ("", "user", "model")


class _Part(TypedDict, total=False):
    text: str


class _Content(TypedDict, total=False):
    role: str
    parts: list[_Part]


class _Config(TypedDict, total=False):
    maxOutputTokens: int


class _Request(TypedDict, total=False):
    contents: list[_Content]
    generationConfig: _Config


def pieces(name: str, body: Document) -> Iterator[Document]:
    """Yield the responses of a stream: each holds some words of the answer, the last one the end.

    Args:
        name: The model, `projects/P/locations/L/publishers/google/models/MODEL`.
        body: A GenerateContentRequest.

    Raises:
        ApiError: NOT_FOUND: it is not one of Gemini's models; INVALID_ARGUMENT.
    """
    text, finish, tokens = _answer(name, body)
    made = {
        "createTime": clock.now(),
        "modelVersion": name.rpartition("/")[2],
        "responseId": hashlib.sha256(text.encode()).hexdigest()[:22],
    }
    words = re.findall(r"\S+\s*", text)
    cuts = range(0, len(words), _WORDS)
    for start in cuts:
        content = {"role": "model", "parts": [{"text": "".join(words[start : start + _WORDS])}]}
        candidate: Document = {"content": content}
        last = start == cuts[-1]
        end: Document = {"usageMetadata": tokens} if last else {}
        if last:
            candidate["finishReason"] = finish
        yield {"candidates": [candidate], **made, **end}


def whole(name: str, body: Document) -> Document:
    """Return the answer in one piece; arguments and errors as for `pieces`."""
    *before, last = pieces(name, body)
    parts = [one["candidates"][0]["content"]["parts"][0]["text"] for one in [*before, last]]
    last["candidates"][0]["content"]["parts"] = [{"text": "".join(parts)}]
    return last


def _answer(name: str, body: Document) -> tuple[str, str, Document]:
    """Return the text of an answer, why it ends, and the number of its tokens: here, words."""
    *_, publisher, _, model = name.split("/")
    if publisher != "google" or not model.startswith("gemini-"):
        raise ApiError(
            "NOT_FOUND",
            f"Publisher Model `{name}` was not found or your project does not have access to it. "
            "Please ensure you are using a valid model version. For more information, see: "
            "https://cloud.google.com/vertex-ai/generative-ai/docs/learn/model-versions",
        )
    asked = typed(body, _Request)
    contents = asked.get("contents") or []
    if not contents:
        raise invalid("Unable to submit request because at least one contents field is required.")
    if any(content.get("role", "") not in _ROLES for content in contents):
        raise invalid("Please use a valid role: user, model.")
    texts = ["".join(part.get("text", "") for part in c.get("parts", [])) for c in contents]
    if not texts[-1].strip():
        raise invalid("Unable to submit request because it must have a text parameter.")
    question = " ".join(texts[-1].split())[:_QUOTED]
    words = f'The local stand-in for {model} does not think. You wrote: "{question}"'.split()
    limit = asked.get("generationConfig", {}).get("maxOutputTokens", len(words))
    if limit < 1:
        raise invalid("The maxOutputTokens parameter must be positive.")
    said = words[:limit]
    prompt = sum(len(text.split()) for text in texts)
    tokens = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": len(said),
        "totalTokenCount": prompt + len(said),
    }
    return " ".join(said), "STOP" if said == words else "MAX_TOKENS", tokens
