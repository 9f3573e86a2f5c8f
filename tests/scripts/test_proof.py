"""I4: whose answers passed the checks. Cloud Run proves it: no service has to know its commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
import requests
from msgspec import structs

from scripts.config import pipelines
from scripts.config.formats import BUILT_IN, Check, Expect
from scripts.config.image_reference import ImageReference
from scripts.config.pipelines import ENDPOINT_VARIABLE
from scripts.errors import Failed
from scripts.machine.platform import host_platform
from scripts.service import checks
from scripts.service.smoke import require_images
from tests.conftest import ROOT
from tests.relay import Answer, Relay
from tests.scripts.conftest import Project
from tests.scripts.test_hostile_revision import server
from tests.scripts.test_images import INDEX, OCI, Pushed

# What Cloud Run's front end answers for a service that the caller may not invoke.
FORBIDDEN = "<html><head><title>403 Forbidden</title></head>\n<body><h1>Error: Forbidden</h1>"


def silent(project: Project) -> Project:
    """Let the service know no commit, and declare no checks."""
    (project.pipeline / "smoke.yaml").write_text("# none\n")
    file = project.folder / project.name / "Dockerfile"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if "COMMIT_SHA" not in line) + "\n")
    return project


def test_an_ordinary_service_is_delivered_as_it_is(project: Project) -> None:
    """I4: no commit in its answers, no Dockerfile line of ours, no declared check."""
    silent(project).commit()
    project.done("deliver")
    second = project.commit()
    ended = project.ship("deliver")
    assert ended.returncode == 0, ended.stderr
    assert "1 of 1 checks passed" in ended.stderr
    assert project.shares() == {project.revision(second): 100}


def outcome(status: int, body: str = "", header: str = "", check: Check = BUILT_IN) -> str:
    """Return the problem of a check whose answer is this one; "" if it passes."""
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{header}Connection: close\r\n\r\n"
    with server(lambda: iter([head.encode() + body.encode()])) as url:
        [one] = checks.run(url, [check], "")
    assert one.ok is not bool(one.problem)
    return one.problem


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_ROUTING_SECONDS", 0)


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 405])
def test_an_answer_of_the_services_own_shows_that_it_works(status: int) -> None:
    """A redirect to a login, or a refusal of its own, is an answer."""
    assert outcome(status, "<h1>Sign in</h1>", 'WWW-Authenticate: Basic realm="x"\r\n') == ""


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503])
@pytest.mark.usefixtures("impatient")
def test_an_answer_that_does_not(status: int) -> None:
    assert outcome(status) == f"status {status}, expected any but 404, 429 and 5xx"


@pytest.mark.parametrize("expected", ["any", 403])
def test_a_refusal_of_cloud_runs_own_is_not_the_services(expected: int) -> None:
    """I4: whatever the check expects, no revision has answered it."""
    check = Check(path="/", expect=Expect(status=expected))
    assert outcome(403, "<h1>Forbidden</h1>", check=check) == "", "the service's own page"
    assert "403 from Cloud Run, not from the service" in outcome(403, FORBIDDEN, check=check)


def test_a_sign_in_at_identity_aware_proxy_is_not_the_services() -> None:
    header = "Location: https://accounts.google.com/\r\nX-Goog-IAP-Generated-Response: true\r\n"
    assert "302 from Identity-Aware Proxy" in outcome(302, header=header)


MOVES = """
import urllib.request
API = {api!r}


def moved():
    # As someone else would, with gcloud, while the check waits for its answer.
    service = json.load(urllib.request.urlopen(API))
    service.pop("status")
    for target in service["spec"]["traffic"]:
        if target.get("tag", "").startswith("sha-"):
            target["revisionName"] = {other!r}
    data = json.dumps(service).encode()
    headers = {{"Content-Type": "application/json"}}
    urllib.request.urlopen(urllib.request.Request(API, data, headers, method="PUT"))


def health():
    moved()
    return 200, body()
"""


@pytest.mark.parametrize("verb", ["deliver", "promote"])
def test_a_tag_that_is_moved_during_the_checks_stops_the_release(
    served: Project, verb: str
) -> None:
    """I4: the answer may be another revision's."""
    before = served.shares()
    served.serve_with(MOVES.format(api=served.service_path, other=next(iter(before))))
    served.commit()
    if verb == "promote":
        served.done("build")
        served.done("deploy")
    ended = served.ship(verb)
    assert ended.returncode == 1
    assert "someone else moved it during the checks" in ended.stderr
    assert served.shares() == before


def test_a_revision_of_the_same_name_with_another_image_is_refused() -> None:
    """I4: someone deleted it and made another one, after the deploy."""
    app, proxy = (f"h/p/r/{name}@sha256:{name[0] * 64}" for name in ("app", "b"))
    images = {"app": ImageReference.parse(app), "proxy": ImageReference.parse(proxy)}
    containers = [{"name": "proxy", "image": "proxy"}, {"name": "main", "image": "app"}]
    pipeline = structs.replace(
        pipelines.load(ROOT, "app", "local"),
        manifest={
            "metadata": {"annotations": {"shipway/source.proxy": "proxy"}},
            "spec": {"template": {"spec": {"containers": containers}}},
        },
        overlay={},
    )

    def revision(**runs: str) -> dict[str, Any]:
        made = [{"name": name, "image": image} for name, image in runs.items()]
        return {"metadata": {"name": "app-1"}, "spec": {"containers": made}}

    require_images(pipeline, revision(main=app, proxy=proxy), images)
    with pytest.raises(Failed, match=f"app-1 runs {app}, not sha256:b+, which was deployed"):
        require_images(pipeline, revision(main=proxy, proxy=app), images)
    with pytest.raises(Failed, match=r"app-1 runs , not sha256:b+"):
        require_images(pipeline, revision(main=app), images)


def index_of(pushed: Pushed) -> str:
    """Push the commit's image again, as BuildKit does: in an index. Return the image's digest."""
    os, architecture = host_platform().split("/")
    entries = [
        {"mediaType": OCI, "size": 1, "digest": digest, "platform": platform}
        for digest, platform in (
            (pushed.digest, {"os": os, "architecture": architecture}),
            (pushed.digest, {"os": "unknown", "architecture": "unknown"}),
        )
    ]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    pushed.put(pushed.commit.sha, document, INDEX)
    return pushed.digest


def test_cloud_run_reports_the_image_in_an_index(project: Project) -> None:
    """I2, I4: the revision names the index; Cloud Run reports the image that it found there."""
    image = index_of(Pushed(project))
    done = project.done("deliver")
    assert done["digest"] != image
    path = project.service_path.rpartition("/services/")[0]
    answer = requests.get(f"{path}/revisions/{done['revision']}", timeout=10)
    assert answer.json()["status"]["imageDigest"].endswith(image)


def replaced(old: str, new: str) -> Callable[[str, Answer], Answer]:
    """Change what Cloud Run reports that its revisions run."""

    def change(path: str, answer: Answer) -> Answer:
        status, headers, body = answer
        if "/revisions" not in path or status != 200:
            return answer
        document = json.loads(body)
        for one in document.get("items", [document]):
            if found := one.get("status", {}).get("imageDigest"):
                one["status"]["imageDigest"] = found.replace(old, new)
        return status, headers, json.dumps(document).encode()

    return change


def test_an_image_that_cloud_run_found_elsewhere_gets_no_traffic(served: Project) -> None:
    """I4: the image that it reports is not the one that was built, nor part of it."""
    before = served.shares()
    served.commit()
    digest = served.done("build")["digest"]
    with Relay(served.cloud_run.url, change=replaced(digest, "sha256:" + "0" * 64)) as relay:
        ended = served.ship("deliver", **{ENDPOINT_VARIABLE: relay.url})
    assert ended.returncode == 1
    assert "which is not part of" in ended.stderr
    assert served.shares() == before


def test_its_own_tag_is_checked_before_one_that_others_move(candidate: Project) -> None:
    """I8, I4: a tag of someone else's may lead elsewhere in the next moment."""
    service = candidate.service()
    revision = candidate.revision(candidate.git("rev-parse", "HEAD"))
    service["spec"]["traffic"].insert(0, {"revisionName": revision, "tag": "blue"})
    candidate.put(service)
    [region] = candidate.done("smoke")["regions"]
    assert region["tag"].startswith("sha-")
