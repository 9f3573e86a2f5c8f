"""Blobs through HTTP: OCI distribution specification, "Pull", "Push", "Content Management"."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.registry.models import Registry
from tests.emulator.registry_help import Client, code_of, digest_of, files_below, serving, until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    with serving(Registry(root)) as url:
        yield Client(url, "acme/services/app")


def start(client: Client) -> str:
    answer = client("POST", "/blobs/uploads/")
    assert answer.status_code == 202
    return answer.headers["Location"]


def test_the_root_confirms_that_it_is_a_registry(client: Client) -> None:
    answer = client("GET", "/v2/")
    assert answer.status_code == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_cloud_loggings_path_is_left_to_it(client: Client) -> None:
    assert client("POST", "/v2/entries:list", json={}).json() == {"entries": []}


def test_a_blob_in_one_request(client: Client, root: Path) -> None:
    contents = os.urandom(100_000)
    digest = digest_of(contents)
    answer = client("POST", f"/blobs/uploads/?digest={digest}", data=contents)
    assert answer.status_code == 201
    assert answer.headers["Docker-Content-Digest"] == digest
    blob = client("GET", answer.headers["Location"])
    assert blob.content == contents
    assert blob.headers["Docker-Content-Digest"] == digest
    head = client("HEAD", answer.headers["Location"])
    assert (head.status_code, head.headers["Content-Length"]) == (200, "100000")
    hex_digits = digest.removeprefix("sha256:")
    assert (root / "blobs/sha256" / hex_digits[:2] / hex_digits).read_bytes() == contents


def test_a_blob_by_post_and_put(client: Client) -> None:
    answer = client("PUT", f"{start(client)}?digest={digest_of(b'abc')}", data=b"abc")
    assert answer.status_code == 201
    assert client("GET", f"/blobs/{digest_of(b'abc')}").content == b"abc"


def test_a_stream_without_a_length(client: Client) -> None:
    """docker and skopeo push so: one PATCH with Transfer-Encoding chunked, then an empty PUT."""
    contents = os.urandom(9_000_000)
    pieces = (contents[at : at + 65536] for at in range(0, len(contents), 65536))
    answer = client("PATCH", start(client), data=pieces)
    assert answer.status_code == 202
    assert answer.headers["Range"] == "0-8999999"
    done = client("PUT", f"{answer.headers['Location']}?digest={digest_of(contents)}")
    assert done.status_code == 201
    assert client("GET", f"/blobs/{digest_of(contents)}").content == contents


def test_a_blob_in_chunks(client: Client) -> None:
    location = start(client)
    assert client("GET", location).headers["Range"] == "0-0"
    first = client("PATCH", location, data=b"abc", headers={"Content-Range": "0-2"})
    assert (first.status_code, first.headers["Range"]) == (202, "0-2")
    status = client("GET", location)
    assert (status.status_code, status.headers["Range"]) == (204, "0-2")
    assert status.headers["Location"] == location
    second = client("PATCH", location, data=b"def", headers={"Content-Range": "3-5"})
    assert (second.status_code, second.headers["Range"]) == (202, "0-5")
    last = client(
        "PUT",
        f"{location}?digest={digest_of(b'abcdefg')}",
        data=b"g",
        headers={"Content-Range": "6-6"},
    )
    assert last.status_code == 201
    assert client("GET", f"/blobs/{digest_of(b'abcdefg')}").content == b"abcdefg"
    assert client("GET", location).status_code == 404


@pytest.mark.parametrize("content_range", ["4-6", "0-2", "3-2", "three to five"])
def test_a_chunk_out_of_order_changes_nothing(client: Client, content_range: str) -> None:
    location = start(client)
    client("PATCH", location, data=b"abc", headers={"Content-Range": "0-2"})
    answer = client("PATCH", location, data=b"def", headers={"Content-Range": content_range})
    assert answer.status_code == 416
    assert code_of(answer) == "BLOB_UPLOAD_INVALID"
    assert (answer.headers["Range"], answer.headers["Location"]) == ("0-2", location)
    done = client("PUT", f"{location}?digest={digest_of(b'abc')}")
    assert done.status_code == 201


def test_a_chunk_shorter_than_announced_is_refused(client: Client, root: Path) -> None:
    location = start(client)
    answer = client("PATCH", location, data=b"abc", headers={"Content-Range": "0-9"})
    assert (answer.status_code, code_of(answer)) == (400, "SIZE_INVALID")
    assert client("GET", location).status_code == 404
    assert files_below(root) == []


@pytest.mark.parametrize("way", ["at once", "session"])
def test_an_upload_with_a_wrong_digest_leaves_nothing(client: Client, root: Path, way: str) -> None:
    location = f"/v2/{client.name}/blobs/uploads/" if way == "at once" else start(client)
    method = "POST" if way == "at once" else "PUT"
    answer = client(method, f"{location}?digest={digest_of(b'other')}", data=b"abc")
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")
    assert client("HEAD", f"/blobs/{digest_of(b'other')}").status_code == 404
    assert client("HEAD", f"/blobs/{digest_of(b'abc')}").status_code == 404
    assert files_below(root) == []


@pytest.mark.parametrize("digest", ["sha256:abc", "md5:900150983cd24fb0", "../../etc/passwd", ""])
def test_an_invalid_digest_is_refused(client: Client, root: Path, digest: str) -> None:
    answer = client("PUT", f"{start(client)}?digest={digest}", data=b"abc")
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")
    assert files_below(root) == []


def test_a_broken_upload_leaves_nothing(client: Client, root: Path) -> None:
    digest = digest_of(b"x" * 1000)
    address = client.host.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as connection:
        request = f"POST /v2/{client.name}/blobs/uploads/?digest={digest} HTTP/1.1\r\n"
        connection.sendall(f"{request}Host: localhost\r\nContent-Length: 1000\r\n\r\n".encode())
        connection.sendall(b"x" * 500)
        until(lambda: len(files_below(root)) == 1)
    until(lambda: files_below(root) == [])
    assert client("HEAD", f"/blobs/{digest}").status_code == 404


def test_a_broken_session_can_be_resumed(client: Client) -> None:
    location = start(client)
    address = client.host.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as connection:
        request = f"PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(request.encode() + b"x" * 500)
    until(lambda: client("GET", location).headers["Range"] == "0-499")
    rest = client("PATCH", location, data=b"x" * 500, headers={"Content-Range": "500-999"})
    assert rest.status_code == 202
    done = client("PUT", f"{location}?digest={digest_of(b'x' * 1000)}")
    assert done.status_code == 201


def test_a_cancelled_upload_leaves_nothing(client: Client, root: Path) -> None:
    location = start(client)
    client("PATCH", location, data=b"abc")
    assert client("DELETE", location).status_code == 204
    answer = client("GET", location)
    assert (answer.status_code, code_of(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert files_below(root) == []


def test_a_session_belongs_to_its_repository(client: Client) -> None:
    location = start(client).replace("services/app", "services/other")
    assert code_of(client("PATCH", location, data=b"abc")) == "BLOB_UPLOAD_UNKNOWN"


def test_a_range_of_a_blob(client: Client) -> None:
    digest = client.blob(b"0123456789")["digest"]
    answer = client("GET", f"/blobs/{digest}", headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.content) == (206, b"234")
    assert answer.headers["Content-Range"] == "bytes 2-4/10"
    beyond = client("GET", f"/blobs/{digest}", headers={"Range": "bytes=20-"})
    assert beyond.status_code == 416


def test_an_unknown_blob_is_not_found(client: Client) -> None:
    answer = client("GET", f"/blobs/{digest_of(b'never')}")
    assert (answer.status_code, code_of(answer)) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("digest", ["sha256:abc", "sha512:" + "0" * 128, "sha256:.."])
def test_a_digest_of_another_algorithm_is_refused(client: Client, digest: str) -> None:
    answer = client("GET", f"/blobs/{digest}")
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")


def test_a_blob_belongs_to_its_repository_until_mounted(client: Client) -> None:
    digest = client.blob(b"shared")["digest"]
    other = Client(client.host, "acme/services/other")
    assert other("HEAD", f"/blobs/{digest}").status_code == 404
    mounted = other("POST", f"/blobs/uploads/?mount={digest}&from={client.name}")
    assert mounted.status_code == 201
    assert other("GET", mounted.headers["Location"]).content == b"shared"


def test_mounting_a_missing_blob_opens_a_session(client: Client) -> None:
    answer = client("POST", f"/blobs/uploads/?mount={digest_of(b'no')}&from=acme/none")
    assert answer.status_code == 202
    done = client("PUT", f"{answer.headers['Location']}?digest={digest_of(b'no')}", data=b"no")
    assert done.status_code == 201


def test_a_deleted_blob_is_not_found(client: Client) -> None:
    digest = client.blob(b"gone")["digest"]
    assert client("DELETE", f"/blobs/{digest}").status_code == 202
    assert client("GET", f"/blobs/{digest}").status_code == 404
    assert client("DELETE", f"/blobs/{digest}").status_code == 404


@pytest.mark.parametrize("name", ["Acme/app", "acme//app", "acme/-app", "acme/app_", "a" * 300])
def test_invalid_names_are_refused(client: Client, root: Path, name: str) -> None:
    answer = client("POST", f"/v2/{name}/blobs/uploads/")
    assert (answer.status_code, code_of(answer)) == (400, "NAME_INVALID")
    answer = client("GET", f"/v2/{name}/tags/list")
    assert (answer.status_code, code_of(answer)) == (400, "NAME_INVALID")


def test_a_path_out_of_the_folder_is_not_a_name(client: Client, root: Path) -> None:
    outside = root.parent / "outside"
    answer = client("POST", "/v2/acme/%2e%2e/%2e%2e/%2e%2e/outside/blobs/uploads/")
    assert (answer.status_code, code_of(answer)) == (400, "NAME_INVALID")
    assert not outside.exists()


def test_other_requests_are_answered_during_a_large_upload(client: Client) -> None:
    """A hundred small requests are answered during one large upload."""
    piece = os.urandom(1 << 19)

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield piece
            assert client("GET", "/v2/").status_code == 200

    path = f"/blobs/uploads/?digest={digest_of(piece * 100)}"
    assert Client(client.host, client.name)("POST", path, data=pieces()).status_code == 201
