"""The stand-in for Gemini's models. `tests/scripts/test_systems.py` asks it with Google's SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.conftest import LocalCloudRun

MODEL = "projects/acme/locations/global/publishers/google/models/gemini-2.5-flash"
QUESTION = {"contents": [{"role": "user", "parts": [{"text": "How are\nyou?"}]}]}
ANSWER = 'The local stand-in for gemini-2.5-flash does not think. You wrote: "How are you?"'


def ask(cloud_run: LocalCloudRun, how: str, body: Any = QUESTION, model: str = MODEL) -> Any:
    url = f"{cloud_run.url}/v1beta1/{model}:{how}"
    return requests.post(url, json=body, stream=True, timeout=60)


def texts(pieces: list[Any]) -> list[str]:
    return [one["candidates"][0]["content"]["parts"][0]["text"] for one in pieces]


def test_an_answer_comes_in_pieces_or_whole(local_cloud_run: LocalCloudRun) -> None:
    answer = ask(local_cloud_run, "streamGenerateContent?alt=sse")
    assert answer.headers["Content-Type"] == "text/event-stream"
    chunks = [chunk for chunk in answer.raw.read_chunked() if chunk]
    pieces = [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]
    assert len(pieces) > 2
    assert "".join(texts(pieces)) == ANSWER
    assert [one["candidates"][0].get("finishReason") for one in pieces[-2:]] == [None, "STOP"]
    assert len({one["responseId"] for one in pieces}) == 1
    assert pieces[-1]["usageMetadata"] == {
        "promptTokenCount": 3, "candidatesTokenCount": 13, "totalTokenCount": 16,
    }  # fmt: skip
    assert texts(ask(local_cloud_run, "streamGenerateContent").json()) == texts(pieces)
    whole = ask(local_cloud_run, "generateContent").json()
    assert texts([whole]) == [ANSWER]
    assert whole["usageMetadata"] == pieces[-1]["usageMetadata"]


def test_a_limit_of_tokens_ends_an_answer(local_cloud_run: LocalCloudRun) -> None:
    limited = {**QUESTION, "generationConfig": {"maxOutputTokens": 3, "temperature": 0.5}}
    whole = ask(local_cloud_run, "generateContent", limited).json()
    assert (texts([whole]), whole["candidates"][0]["finishReason"]) == (
        ["The local stand-in"],
        "MAX_TOKENS",
    )


@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent?alt=sse"])
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "at least one contents field is required"),
        ({"contents": [{"parts": []}]}, "must have a text parameter"),
        ({"contents": [{**QUESTION["contents"][0], "role": "system"}]}, "a valid role"),
        ({"contents": "hello"}, "contents: Invalid value"),
        ({**QUESTION, "generationConfig": {"maxOutputTokens": 0}}, "must be positive"),
    ],
)
def test_a_bad_request_is_refused_before_an_answer_begins(
    local_cloud_run: LocalCloudRun, method: str, body: Any, told: str
) -> None:
    refused = ask(local_cloud_run, method, body)
    assert (refused.status_code, told in refused.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize(("part", "other"), [("gemini", "gemmini"), ("google", "x")])
def test_an_unknown_model_is_not_found(
    local_cloud_run: LocalCloudRun, part: str, other: str
) -> None:
    model = MODEL.replace(part, other)
    refused = ask(local_cloud_run, "generateContent", model=model)
    assert refused.status_code == 404
    assert f"Publisher Model `{model}` was not found" in refused.json()["error"]["message"]


def test_a_call_without_a_model_is_explained(local_cloud_run: LocalCloudRun) -> None:
    """What google-genai sends if the code names neither project nor location."""
    refused = requests.post(local_cloud_run.url, json=QUESTION, timeout=60)
    assert refused.status_code == 404
    assert "Name both in the code: genai.Client(" in refused.json()["error"]["message"]
