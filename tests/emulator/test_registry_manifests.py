"""Manifests, tags and referrers through HTTP: OCI distribution specification v1.1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.registry.models import Registry
from tests.emulator.registry_help import INDEX, LAYER, MANIFEST, Client, code_of, digest_of, serving


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(Registry(tmp_path / "registry")) as url:
        yield Client(url, "acme/services/app")


def test_a_manifest_is_kept_byte_for_byte(client: Client) -> None:
    layer = client.blob(b"layer")
    spaced = json.dumps({"schemaVersion": 2, "layers": [layer], "x": "\u00fc"}, indent=5) + "\n\n"
    body = spaced.encode()
    media_type = "application/vnd.acme.manifest.v1+json"
    headers = {"Content-Type": media_type}
    put = client("PUT", "/manifests/v1", data=body, headers=headers)
    assert put.status_code == 201
    assert put.headers["Docker-Content-Digest"] == digest_of(body)
    for reference in ("v1", digest_of(body)):
        got = client("GET", f"/manifests/{reference}")
        assert got.content == body
        assert got.headers["Content-Type"] == media_type
        assert got.headers["Docker-Content-Digest"] == digest_of(body)
        head = client("HEAD", f"/manifests/{reference}")
        assert head.status_code == 200
        assert head.headers["Content-Length"] == str(len(body))
        assert head.headers["Content-Type"] == media_type
        assert head.headers["Docker-Content-Digest"] == digest_of(body)


def test_a_tag_moves_and_the_digest_stays(client: Client) -> None:
    first = client.image("latest")["digest"]
    second = client.image("latest", annotations={"n": "2"})["digest"]
    assert first != second
    moved = client("HEAD", "/manifests/latest").headers["Docker-Content-Digest"]
    assert moved == second
    assert client("HEAD", f"/manifests/{first}").status_code == 200


def test_a_manifest_under_a_wrong_digest_is_refused(client: Client) -> None:
    headers = {"Content-Type": MANIFEST}
    answer = client("PUT", f"/manifests/{digest_of(b'other')}", data=b"{}", headers=headers)
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("kind", ["config", "layer", "child"])
def test_a_manifest_with_a_missing_reference_is_refused(client: Client, kind: str) -> None:
    held = client.blob(b"held")
    missing = {"mediaType": LAYER, "digest": digest_of(b"missing"), "size": 7}
    document = {
        "config": {"mediaType": MANIFEST, "config": missing, "layers": [held]},
        "layer": {"mediaType": MANIFEST, "config": held, "layers": [missing]},
        "child": {"mediaType": INDEX, "manifests": [missing]},
    }[kind]
    headers = {"Content-Type": document["mediaType"]}
    answer = client("PUT", "/manifests/v1", data=json.dumps(document), headers=headers)
    assert (answer.status_code, code_of(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert missing["digest"] in answer.text
    assert client("GET", "/manifests/v1").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'{"layers": {}}',
        b'{"layers": [{}]}',
        b'{"config": "c"}',
        b'{"mediaType": "application/vnd.oci.image.index.v1+json"}',
    ],
)
def test_a_body_that_is_not_a_manifest_is_refused(client: Client, body: bytes) -> None:
    answer = client("PUT", "/manifests/v1", data=body, headers={"Content-Type": MANIFEST})
    assert (answer.status_code, code_of(answer)) == (400, "MANIFEST_INVALID")


def test_a_manifest_that_is_too_large_is_refused(client: Client) -> None:
    body = b"{" + b" " * (5 << 20) + b"}"
    answer = client("PUT", "/manifests/v1", data=body, headers={"Content-Type": MANIFEST})
    assert answer.status_code == 413


@pytest.mark.parametrize("tag", [".hidden", "-x", "a" * 129, "a b"])
def test_invalid_tags_are_refused(client: Client, tag: str) -> None:
    answer = client("PUT", f"/manifests/{tag}", data=b"{}", headers={"Content-Type": MANIFEST})
    assert (answer.status_code, code_of(answer)) == (400, "TAG_INVALID")


def test_an_unknown_manifest_is_not_found(client: Client) -> None:
    for reference in ("none", digest_of(b"none")):
        answer = client("GET", f"/manifests/{reference}")
        assert (answer.status_code, code_of(answer)) == (404, "MANIFEST_UNKNOWN")
        assert client("HEAD", f"/manifests/{reference}").status_code == 404
        assert client("DELETE", f"/manifests/{reference}").status_code == 404


def test_deleting_a_tag_keeps_the_manifest(client: Client) -> None:
    digest = client.image("v1")["digest"]
    client.image("v2")
    assert client("DELETE", "/manifests/v1").status_code == 202
    assert client("GET", "/manifests/v1").status_code == 404
    assert client("GET", "/manifests/v2").status_code == 200
    assert client("GET", f"/manifests/{digest}").status_code == 200


def test_deleting_a_manifest_deletes_its_tags(client: Client) -> None:
    digest = client.image("v1")["digest"]
    client.image("other", annotations={"n": "2"})
    assert client("DELETE", f"/manifests/{digest}").status_code == 202
    assert client("GET", f"/manifests/{digest}").status_code == 404
    assert client("GET", "/tags/list").json()["tags"] == ["other"]


def test_tags_are_sorted_and_have_pages(client: Client) -> None:
    for tag in ("b", "C", "a", "d"):
        client.image(tag)
    assert client("GET", "/tags/list").json() == {"name": client.name, "tags": ["a", "b", "C", "d"]}
    page = client("GET", "/tags/list?n=2")
    assert page.json()["tags"] == ["a", "b"]
    rest = client("GET", page.links["next"]["url"])
    assert rest.json()["tags"] == ["C", "d"]
    assert "Link" not in rest.headers
    assert client("GET", "/tags/list?last=b").json()["tags"] == ["C", "d"]
    assert client("GET", "/tags/list?n=0").json()["tags"] == []
    assert client("GET", "/tags/list?n=x").status_code == 400


def test_an_empty_repository_has_no_tags(client: Client) -> None:
    answer = client("GET", "/tags/list")
    assert (answer.status_code, code_of(answer)) == (404, "NAME_UNKNOWN")


def test_referrers(client: Client) -> None:
    subject = {"mediaType": MANIFEST, "digest": digest_of(b"not pushed yet"), "size": 14}
    path = f"/referrers/{subject['digest']}"
    assert client("GET", path).json()["manifests"] == []
    extra = {"subject": subject, "artifactType": "text/signature", "annotations": {"by": "me"}}
    body = json.dumps({"mediaType": MANIFEST, "config": client.blob(b"{}"), **extra}).encode()
    put = client("PUT", "/manifests/signed", data=body, headers={"Content-Type": MANIFEST})
    assert put.headers["Oci-Subject"] == subject["digest"]
    client.image("by-config", subject=subject)
    answer = client("GET", path)
    assert answer.headers["Content-Type"] == INDEX
    found = {entry["artifactType"]: entry for entry in answer.json()["manifests"]}
    assert found["text/signature"] == {
        "mediaType": MANIFEST,
        "digest": digest_of(body),
        "size": len(body),
        "artifactType": "text/signature",
        "annotations": {"by": "me"},
    }
    assert len(found) == 2
    filtered = client("GET", f"{path}?artifactType=text/signature")
    assert filtered.headers["Oci-Filters-Applied"] == "artifactType"
    assert [entry["digest"] for entry in filtered.json()["manifests"]] == [digest_of(body)]
    client("DELETE", f"/manifests/{digest_of(body)}")
    assert len(client("GET", path).json()["manifests"]) == 1


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/tags/list"), ("POST", "/manifests/v1"), ("PUT", "/blobs/x")]
)
def test_an_undefined_method_is_refused(client: Client, method: str, path: str) -> None:
    answer = client(method, path)
    assert (answer.status_code, code_of(answer)) == (405, "UNSUPPORTED")
