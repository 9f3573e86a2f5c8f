"""Builds of the local Cloud Build, and the objects of Cloud Storage that they read and write."""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import tarfile
import uuid
from typing import Any

import pytest
import requests

from tests.conftest import LocalCloudRun
from tests.emulator.registry_help import until

DOCKER = "gcr.io/cloud-builders/docker"
DOCKERFILE = 'FROM python:3.13-slim\nCOPY main.py /srv/\nCMD ["python", "/srv/main.py"]\n'
ENDS = ("SUCCESS", "FAILURE", "CANCELLED", "TIMEOUT", "INTERNAL_ERROR")


class Place:
    """One project of a local Cloud Run, with its bucket."""

    def __init__(self, url: str, http: requests.Session | None = None) -> None:
        self.url = url
        self.http = http or requests.Session()
        self.project = f"b-{uuid.uuid4().hex[:8]}"
        self.bucket = f"{self.project}_cloudbuild"
        self.image = f"us-central1-docker.pkg.dev/{self.project}/services/x:one"
        self.builds = f"{url}/v1/projects/{self.project}/locations/us-central1/builds"

    def upload(self, name: str, contents: bytes, **params: str) -> requests.Response:
        return self.http.post(
            f"{self.url}/upload/storage/v1/b/{self.bucket}/o", data=contents, timeout=60,
            params={"uploadType": "media", "name": name, **params},
            headers={"Content-Type": "application/gzip"},
        )  # fmt: skip

    def source(self, dockerfile: str = DOCKERFILE, folder: str = "") -> dict[str, Any]:
        packed = io.BytesIO()
        files = {"Dockerfile": dockerfile, f"{folder}/main.py".lstrip("/"): "print(1)\n"}
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
        return self.stored(packed.getvalue())

    def stored(self, archive: bytes) -> dict[str, Any]:
        """Upload an archive; return it as a build's source."""
        stored = self.upload(f"{uuid.uuid4().hex}.tgz", archive).json()
        kept = {key: stored[key] for key in ("bucket", "generation")}
        return {"storageSource": {**kept, "object": stored["name"]}}

    def build(self, dockerfile: str = DOCKERFILE, **changes: Any) -> Any:
        """Start a build and wait for its end; return it."""
        body = {
            "source": self.source(dockerfile),
            "steps": [{"name": DOCKER, "args": ["build", "-t", self.image, "."]}],
            "images": [self.image],
            **changes,
        }
        return self.ended(self.start(body))

    def start(self, body: dict[str, Any]) -> str:
        """Start a build; return its ID."""
        started = self.http.post(self.builds, json=body, timeout=60)
        assert started.ok, started.text
        return str(started.json()["metadata"]["build"]["id"])

    def log(self, build: Any) -> str:
        return self.http.get(build["logUrl"], timeout=60).text

    def ended(self, build: str) -> Any:
        found: dict[str, Any] = {}

        def has_ended() -> bool:
            found.update(self.http.get(f"{self.builds}/{build}", timeout=60).json())
            return found["status"] in ENDS

        until(has_ended, 60)
        return found


@pytest.fixture(scope="module")
def place(local_cloud_run: LocalCloudRun) -> Place:
    return Place(local_cloud_run.url)


def test_a_source_becomes_an_image_with_the_same_bytes_each_time(place: Place) -> None:
    first, second = place.build(), place.build(tags=["again"])
    assert (first["status"], second["status"]) == ("SUCCESS", "SUCCESS")
    assert first["results"]["images"] == second["results"]["images"]
    [image] = first["results"]["images"]
    manifest = f"{place.url}/v2/{place.project}/services/x/manifests/{image['digest']}"
    found = requests.get(manifest, timeout=60).json()
    assert found["annotations"]["dev.shipway.builder"] == "pack"
    listed = requests.get(place.builds, params={"filter": 'tags="again"'}, timeout=60).json()
    assert [one["id"] for one in listed["builds"]] == [second["id"]]


def test_every_line_that_is_in_the_way_is_named(place: Place) -> None:
    build = place.build(DOCKERFILE.replace("COPY", "RUN make one\nRUN make two\nCOPY"))
    assert build["status"] == "FAILURE"
    assert "2 instructions cannot be packed" in build["failureInfo"]["detail"]
    for line in ("Dockerfile:2: RUN make one", "Dockerfile:3: RUN make two", "start Docker"):
        assert line in place.log(build)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ({"name": "gcr.io/k8s-skaffold/pack", "args": ["build", "x"]}, "buildpacks"),
        ({"name": "ubuntu", "args": ["true"]}, "runs no images"),
        ({"name": DOCKER, "args": ["run", "x"]}, "only build and push"),
        ({"name": DOCKER, "args": ["build", "--secret", "x", "."]}, "--secret"),
        ({"name": DOCKER, "args": ["build", "-t", "x", "../.."]}, "outside the source"),
    ],
)
def test_other_steps_are_refused_by_name(place: Place, step: Any, error: str) -> None:
    build = place.build(steps=[step])
    assert build["status"] == "FAILURE"
    assert error in build["statusDetail"]


def _archive(fields: dict[str, Any]) -> bytes:
    """Return an archive of one header without contents."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo()
        for name, value in fields.items():
            setattr(member, name, value)
        tar.addfile(member)
    return packed.getvalue()


_LINK = {"name": "a", "type": tarfile.SYMTYPE, "linkname": "/etc"}
_HOSTILE: dict[str, tuple[Any, str]] = {
    "too large": ({"name": "a", "size": 3 << 30}, "more than"),
    "a negative size": ({"name": "a", "size": -512}, "negative size"),
    "a long name": ({"name": "a" * (1 << 20)}, "too long a header"),
    "upwards": ({"name": "../a"}, "leads outside"),
    "absolute": ({"name": "/etc/a"}, "leads outside"),
    "a link": (_LINK, "leads outside"),
    "a hard link": ({**_LINK, "type": tarfile.LNKTYPE, "linkname": "../x"}, "leads outside"),
    "a device": ({"name": "a", "type": tarfile.CHRTYPE}, "neither a file"),
    "no tar": (b"a" * 4000, "cannot be unpacked"),
    "no gzip": (b"\x1f\x8b\x08\x00" + b"\0" * 6 + b"\xff" * 90, "cannot be unpacked"),
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_source_fails_its_build_by_name(place: Place, name: str) -> None:
    made, error = _HOSTILE[name]
    if not isinstance(made, bytes):
        made = _archive(made)
    build = place.build(source=place.stored(made))
    assert build["status"] == "FAILURE"
    assert error in build["statusDetail"]


def test_a_build_that_has_ended_cannot_be_cancelled(place: Place) -> None:
    build = place.build()
    answer = requests.post(f"{place.builds}/{build['id']}:cancel", json={}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "FAILED_PRECONDITION")


def test_the_pip_of_a_build_that_is_cancelled_ends(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(30)
        install = f"RUN pip install --no-index -f http://127.0.0.1:{index.getsockname()[1]}/ x\nCMD"
        source = place.source(DOCKERFILE.replace("CMD", install))
        step = {"name": DOCKER, "args": ["build", "-t", place.image, "."]}
        build = place.start({"source": source, "steps": [step]})
        asked, _ = index.accept()
        with asked:
            asked.settimeout(30)
            assert asked.recv(1 << 16).startswith(b"GET / ")
            cancelled = requests.post(f"{place.builds}/{build}:cancel", json={}, timeout=60)
            assert cancelled.json()["status"] == "CANCELLED"
            assert asked.recv(1) == b"", "the process has ended"
    assert place.ended(build)["status"] == "CANCELLED"


def test_substitutions(place: Place) -> None:
    words = ["build", "-t", "$_HOST/${PROJECT_ID}/services/x:$$one", "."]
    build = place.build(
        steps=[{"name": DOCKER, "args": words}], images=[],
        substitutions={"_HOST": "us-central1-docker.pkg.dev"},
    )  # fmt: skip
    assert build["status"] == "SUCCESS"


def test_an_object_is_written_once_where_that_is_asked_for(place: Place) -> None:
    name = f"{uuid.uuid4().hex}/a b.txt"
    stored = place.upload(name, b"one", ifGenerationMatch="0").json()
    assert stored["md5Hash"] == base64.b64encode(hashlib.md5(b"one").digest()).decode()
    assert place.upload(name, b"two", ifGenerationMatch="0").status_code == 412
    path = f"{place.url}/storage/v1/b/{place.bucket}/o/{requests.utils.quote(name, '')}"
    read = requests.get(path, params={"alt": "media"}, headers={"Range": "bytes=1-"}, timeout=60)
    assert (read.status_code, read.content) == (206, b"ne")
    past = requests.get(path, params={"alt": "media"}, headers={"Range": "bytes=3-"}, timeout=60)
    assert past.status_code == 416
    assert requests.delete(path, timeout=60).status_code == 204
    gone = requests.get(path, timeout=60).json()["error"]
    assert (gone["code"], gone["errors"][0]["reason"]) == (404, "notFound")


def test_a_resumable_upload(place: Place) -> None:
    url = f"{place.url}/resumable/upload/storage/v1/b/{place.bucket}/o"
    begun = requests.post(url, params={"uploadType": "resumable", "name": "r"}, json={}, timeout=60)
    where = begun.headers["Location"]
    half = requests.put(where, data=b"abc", headers={"Content-Range": "bytes 0-2/6"}, timeout=60)
    assert (half.status_code, half.headers["Range"]) == (308, "bytes=0-2")
    whole = requests.put(where, data=b"def", headers={"Content-Range": "bytes 3-5/6"}, timeout=60)
    assert whole.json()["size"] == "6"


def test_a_content_type_that_is_no_header_is_refused(place: Place) -> None:
    url = f"{place.url}/upload/storage/v1/b/{place.bucket}/o?uploadType=resumable&name=typed"
    for kind, status in (("text/html\r\nX-More: 1", 400), ("text/html; charset=utf-8", 200)):
        assert requests.post(url, json={"contentType": kind}, timeout=60).status_code == status


def test_a_bucket_that_does_not_exist(place: Place) -> None:
    url = f"{place.url}/storage/v1/b/nobody-made-this"
    assert requests.get(url, timeout=60).status_code == 404
