"""Answers that are lost, cut, spoiled or late: what verbs try again, find out, and report."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from scripts.cloud.cloud_run import CloudRun
from scripts.cloud.google import ApiError, Google, NoAnswer, Unreachable
from scripts.cloud.patience import Patience
from scripts.cloud.referrers import Referrers
from scripts.cloud.session import Session
from scripts.config import pipelines
from scripts.config.pipelines import ENDPOINT_VARIABLE
from scripts.errors import Failed, Unknown
from scripts.release import changes
from scripts.release.changes import Actor
from tests.conftest import LocalCloudRun
from tests.emulator.registry_help import Client
from tests.relay import Relay, Spoiled
from tests.scripts.conftest import LOCAL, Project
from tests.scripts.test_redirects import credentials
from tests.scripts.test_registry_client import Answer, answering

PAGE = "<html>\x1b[2JSign in to the guest network</html>"
CLOSED, CUT, HALF = (Spoiled(how) for how in ("closed", "cut", "half"))
NOT_DONE = Spoiled(json.dumps({"error": {"status": "UNAVAILABLE"}}), 503, done=False)
LOST = [CLOSED, CUT, HALF, Spoiled(PAGE), Spoiled(PAGE, 408), Spoiled(PAGE, 503)]

Spoil = Callable[[str, str], Spoiled | None]


def once(method: str, part: str, *spoiled: Spoiled) -> Spoil:
    """Spoil the first answers to a method and path, one after the other."""
    left = list(spoiled)

    def spoil(asked: str, path: str) -> Spoiled | None:
        return left.pop(0) if left and asked == method and part in path else None

    return spoil


@contextmanager
def spoiling(project: Project, spoil: Spoil) -> Iterator[Callable[..., CompletedProcess[str]]]:
    """Yield a function that runs a command whose answers are spoiled."""
    with Relay(project.cloud_run.url, spoil=spoil) as relay:

        def ship(*words: str) -> CompletedProcess[str]:
            ended = project.ship(*words, **{ENDPOINT_VARIABLE: relay.url})
            assert "this should not happen" not in ended.stderr
            return ended

        yield ship


@pytest.fixture(scope="module")
def released(
    tmp_path_factory: pytest.TempPathFactory, local_cloud_run: LocalCloudRun
) -> tuple[Project, dict[str, Any]]:
    """Return a repository with a candidate, and the service as it is then."""
    folder = tmp_path_factory.mktemp("spoiled") / "repository"
    project = Project(folder, local_cloud_run, f"svc-{uuid.uuid4().hex[:8]}")
    project.commit()
    project.done("deliver")
    project.commit()
    project.done("build")
    project.done("deploy")
    return project, project.service()


@pytest.fixture
def candidate(released: tuple[Project, dict[str, Any]]) -> Project:
    """One revision serves, the next one is deployed without traffic, as before each test."""
    project, before = released
    now = project.service()
    now["metadata"]["annotations"] = before["metadata"]["annotations"]
    now["spec"]["traffic"] = before["spec"]["traffic"]
    project.put(now)
    return project


def generation(project: Project) -> int:
    found: int = project.service()["metadata"]["generation"]
    return found


def test_a_write_whose_answer_is_lost_is_found_to_be_done(candidate: Project) -> None:
    """I3: one write for one change, whatever comes instead of its answer."""
    new = candidate.revision(candidate.git("rev-parse", "HEAD"))
    for percent, spoiled in enumerate(LOST, 10):
        before = generation(candidate)
        with spoiling(candidate, once("PUT", "/services/", spoiled)) as ship:
            ended = ship("promote", "--to", str(percent), "--format", "json")
        assert ended.returncode == 0, (spoiled, ended.stderr)
        assert json.loads(ended.stdout)["regions"][0]["changed"], "it is our change"
        assert candidate.shares()[new] == percent
        assert generation(candidate) == before + 1, spoiled
    before = generation(candidate)
    with spoiling(candidate, once("PUT", "/services/", CLOSED)) as ship:
        ended = ship("rollback")
    assert (ended.returncode, generation(candidate)) == (0, before + 1), ended.stderr
    assert new not in candidate.shares()


def test_a_first_release_whose_answer_is_lost(project: Project) -> None:
    project.done("build")
    with spoiling(project, once("POST", "/services", CLOSED)) as ship:
        ended = ship("deploy")
    assert ended.returncode == 0, ended.stderr
    assert generation(project) == 1


def test_a_write_that_was_not_done_is_sent_again(candidate: Project) -> None:
    new = candidate.revision(candidate.git("rev-parse", "HEAD"))
    spoil = once("PUT", "/services/", NOT_DONE, Spoiled("closed", done=False))
    with spoiling(candidate, spoil) as ship:
        ended = ship("promote", "--to", "10")
    assert ended.returncode == 0, ended.stderr
    assert candidate.shares()[new] == 10
    assert "not written: PUT" in ended.stderr
    assert "; try 3, next in " in ended.stderr


def test_a_write_that_is_never_done(candidate: Project) -> None:
    def spoil(method: str, _path: str) -> Spoiled | None:
        return NOT_DONE if method == "PUT" else None

    before = candidate.shares()
    with spoiling(candidate, spoil) as ship:
        ended = ship("promote", "--to", "10", "--timeout", "1s")
    assert ended.returncode == 1
    assert f"{candidate.name} in us-central1 was not changed: PUT /v1/" in ended.stderr
    assert ": 503 UNAVAILABLE" in ended.stderr
    assert candidate.shares() == before


@pytest.mark.parametrize("keeps", [True, False], ids=["keeps its ID", "drops its ID"])
def test_someone_else_writes_after_a_write_whose_answer_is_lost(
    candidate: Project, keeps: bool
) -> None:
    """I8: their change stays. A change that drops the ID is one to plan again on."""
    new = candidate.revision(candidate.git("rev-parse", "HEAD"))

    def spoil(method: str, path: str) -> Spoiled | None:
        if method == "GET" and writes and not theirs and path.endswith(candidate.name):
            service = candidate.service()
            service["metadata"]["annotations"]["acme/owner"] = "team"
            if not keeps:
                del service["metadata"]["annotations"]["shipway/operation"]
            theirs.append(candidate.put(service))
        if method == "PUT" and "/services/" in path:
            writes.append(path)
            return CLOSED if len(writes) == 1 else None
        return None

    writes: list[str] = []
    theirs: list[object] = []
    with spoiling(candidate, spoil) as ship:
        ended = ship("promote", "--to", "10")
    assert ended.returncode == 0, ended.stderr
    assert theirs
    assert len(writes) == 2, "the one that was lost, and the end of the promotion; no second step"
    assert candidate.shares()[new] == 10
    assert candidate.service()["metadata"]["annotations"]["acme/owner"] == "team"


def test_nobody_answers_after_a_write(candidate: Project) -> None:
    """Neither "nothing was sent" nor "traffic is unchanged" is said: no one knows."""
    new = candidate.revision(candidate.git("rev-parse", "HEAD"))
    down = False

    def spoil(method: str, _path: str) -> Spoiled | None:
        nonlocal down
        down = down or method == "PUT"
        return CLOSED if down else None

    with spoiling(candidate, spoil) as ship:
        ended = ship("rollback", "--to", new, "--timeout", "2s", "--format", "json")
        shown = json.loads(ended.stdout)["error"]
    assert (ended.returncode, shown["kind"]) == (1, "unknown"), ended.stderr
    assert "it is not known whether" in shown["message"]
    assert f"wanted: {new} 100 %" in shown["message"]
    assert shown["hint"] == f"To see what is live: ./ship status {candidate.name}"


def test_a_second_write_that_is_refused_may_mean_that_the_first_came_late(
    candidate: Project,
) -> None:
    """The first may be made after the service was read again. If nothing answers, no one knows."""
    new = candidate.revision(candidate.git("rev-parse", "HEAD"))
    writes: list[str] = []

    def spoil(method: str, path: str) -> Spoiled | None:
        if method != "PUT":
            return CLOSED if len(writes) == 2 else None
        writes.append(path)
        if len(writes) == 1:
            return Spoiled("closed", done=False)
        candidate.put(candidate.service())  # as the first one would
        return None

    with spoiling(candidate, spoil) as ship:
        ended = ship("promote", "--to", "10", "--timeout", "2s")
    assert ended.returncode == 1, ended.stderr
    assert "it is not known whether" in ended.stderr
    assert new not in candidate.shares()


def test_an_error_after_a_write_says_that_it_is_written(candidate: Project) -> None:
    def spoil(method: str, path: str) -> Spoiled | None:
        written.append(method) if method == "PUT" else None
        refused = json.dumps({"error": {"status": "PERMISSION_DENIED", "message": "no"}})
        return Spoiled(refused, 403) if written and method == "GET" else None

    written: list[str] = []
    with spoiling(candidate, spoil) as ship:
        ended = ship("promote", "--to", "10")
    assert ended.returncode == 1
    assert f"{candidate.name} in us-central1 was changed, but GET " in ended.stderr


def test_reads_are_tried_again(candidate: Project) -> None:
    busy = Spoiled("{}", 429, headers=(("Retry-After", "1"),))
    for number, spoiled in enumerate([CLOSED, CUT, Spoiled(PAGE, 502), Spoiled("{}", 408), busy]):
        part = "/revisions" if number % 2 else "/services/"
        began = time.monotonic()
        with spoiling(candidate, once("GET", part, spoiled)) as ship:
            ended = ship("status")
        assert ended.returncode == 0, (spoiled, ended.stderr)
        assert "try 2, next in " in ended.stderr, spoiled
        assert "Cloud Run" in ended.stderr
        assert spoiled is not busy or time.monotonic() - began >= 1


def test_an_answer_that_is_not_the_json_that_was_asked_for(candidate: Project) -> None:
    """The answer is shown, without what a terminal would obey."""
    revision = json.dumps({"kind": "Revision", "metadata": {"name": "x"}, "spec": {}})
    for number, how in enumerate(("half", PAGE, "", "[]", revision)):
        part = ("/services/", "/revisions")[number % 2]
        with spoiling(candidate, once("GET", part, Spoiled(how))) as ship:
            ended = ship("rollback")
        assert ended.returncode == 1, (how, ended.stderr)
        assert "Cloud Run (127.0.0.1:" in ended.stderr
        assert "does not answer GET /v1/projects/shipway-local" in ended.stderr
        assert "\x1b[2J" not in ended.stderr
        assert how != PAGE or "Sign in to the guest network" in ended.stderr


def test_an_answer_without_an_end_is_not_read_to_its_end(candidate: Project) -> None:
    with spoiling(candidate, lambda *_: Spoiled("[" * (65 << 20))) as ship:
        ended = ship("status")
    assert ended.returncode == 1
    assert "answers with more than 64 MiB: not read further" in ended.stderr


def test_a_list_of_revisions_that_is_empty_is_not_believed(candidate: Project) -> None:
    """I8: a rollback keeps the tag of a revision that serves and that the list lacks."""
    candidate.done("promote", "--to", "10")
    _, old = candidate.git("log", "--format=%H").split()
    empty = Spoiled(json.dumps({"kind": "RevisionList", "metadata": {}}))
    with spoiling(candidate, once("GET", "/revisions?", empty)) as ship:
        assert "left over" not in ship("status").stdout
    with spoiling(candidate, once("GET", "/revisions?", empty)) as ship:
        ended = ship("rollback")
    assert ended.returncode == 0, ended.stderr
    after = {t["tag"] for t in candidate.service()["spec"]["traffic"] if t.get("tag")}
    assert after == {f"sha-{old[:7]}"}


def attach(cloud_run: LocalCloudRun, spoil: Spoil, said: list[str]) -> None:
    """Attach a bundle to a new image through a relay that spoils answers."""
    name = f"acme/spoiled/{uuid.uuid4().hex[:8]}"
    image = Client(cloud_run.url, name).image("v1")
    with (
        Relay(cloud_run.url, spoil=spoil) as relay,
        Session(Patience(say=said.append)) as session,
    ):
        registry = Referrers(relay.url, session)
        assert registry.attach(name, image["digest"], b"bundle", "predicate")
        assert [*registry.bundles(name, image["digest"])] == [b"bundle"]


@pytest.mark.parametrize(
    ("method", "part", "spoiled"),
    [
        ("PATCH", "/blobs/", Spoiled("closed", done=False)),
        ("PUT", "/blobs/", CLOSED),
        ("PUT", "/manifests/", CLOSED),
        ("HEAD", "/blobs/", CLOSED),
        ("POST", "/blobs/", Spoiled(PAGE, 503)),
    ],
)
def test_an_upload_that_the_registry_drops(
    local_cloud_run: LocalCloudRun, method: str, part: str, spoiled: Spoiled
) -> None:
    said: list[str] = []
    attach(local_cloud_run, once(method, part, spoiled), said)
    assert "; try 2, next in " in said[0]


def test_a_manifest_that_a_proxy_answers_for_is_not_pushed(local_cloud_run: LocalCloudRun) -> None:
    spoil = once("PUT", "/manifests/", Spoiled(PAGE, 200, done=False))
    expected = "200 is not a registry's answer to a write; it may not have been written"
    with pytest.raises(Failed, match=expected) as caught:
        attach(local_cloud_run, spoil, [])
    assert "Sign in to the guest network" in caught.value.evidence[0]


def test_the_ledger_of_writes(candidate: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def write() -> None:
        with suppress(Unknown, ApiError):
            path = candidate.service_path.removeprefix(candidate.cloud_run.url)
            google.write("PUT", "run", path, candidate.service())

    spoil = once("PUT", "/services/", CLOSED, NOT_DONE, Spoiled("{}", 403))
    with Relay(candidate.cloud_run.url, spoil=spoil) as relay:
        monkeypatch.setenv(ENDPOINT_VARIABLE, relay.url)
        pipeline = pipelines.load(candidate.folder, candidate.name, "local")
        google = Google(pipeline, patience=Patience(1))
        for _ in range(4):
            write()
    assert [one.outcome for one in google.writes] == ["unknown", "unknown", "refused", "done"]
    # The server is gone: what is said depends on what was written.
    with pytest.raises(NoAnswer):
        Google(pipeline, writes=google.writes).get("run", "/v1/projects")
    with pytest.raises(Unreachable):
        Google(pipeline, writes=[google.writes[2]]).get("run", "/v1/projects")


def test_a_write_that_is_only_validated_is_tried_again_as_a_read(
    candidate: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I10: nothing was written, so nothing of it is unknown."""
    with Relay(candidate.cloud_run.url, spoil=once("PUT", "/services/", CLOSED, NOT_DONE)) as relay:
        monkeypatch.setenv(ENDPOINT_VARIABLE, relay.url)
        google = Google(pipelines.load(candidate.folder, candidate.name, "local"), dry_run=True)
        path = candidate.service_path.removeprefix(candidate.cloud_run.url)
        assert google.write("PUT", "run", path, candidate.service(), params={"dryRun": "all"})
    assert google.writes == []


def test_a_token_that_is_refused_in_mid_run_is_renewed_once(
    candidate: Project, tmp_path: Path
) -> None:
    """The token service answers 503 first; Google refuses the first token, whatever it is for."""
    tokens: list[str] = []
    refused: list[str] = []
    service = json.dumps(candidate.service()).encode()
    revisions = json.dumps({"kind": "RevisionList", "items": []}).encode()

    def answer(_method: str, path: str, headers: dict[str, str]) -> Answer:
        if path == "/token":
            tokens.append(f"token-{len(tokens)}")
            if len(tokens) == 1:
                return 503, {}, b"{}"
            kind = "urn:ietf:params:oauth:token-type:access_token"
            made = {"access_token": tokens[-1], "issued_token_type": kind,
                    "token_type": "Bearer", "expires_in": 3600}  # fmt: skip
            return 200, {}, json.dumps(made).encode()
        if headers["Authorization"] == "Bearer token-1" or "never" in tokens:
            refused.append(path)
            return 401, {}, b'{"error": {"status": "UNAUTHENTICATED", "message": "expired"}}'
        if "/revisions/" in path:
            return 404, {}, b'{"error": {"status": "NOT_FOUND", "message": "no"}}'
        return 200, {}, revisions if "/revisions" in path else service

    def status() -> CompletedProcess[str]:
        with answering(answer) as url:
            text = LOCAL.format(endpoint=url).replace("credentials: none\n", "")
            (candidate.pipeline / "staging.yaml").write_text(text)
            file = credentials(tmp_path, url)
            given = {"GOOGLE_APPLICATION_CREDENTIALS": file, "GITHUB_ACTIONS": ""}
            ended = candidate.ship("status", "--env", "staging", **given)
        (candidate.pipeline / "staging.yaml").unlink()
        return ended

    ended = status()
    assert ended.returncode == 0, ended.stderr
    assert len(tokens) == 3, "503, the one that is refused, and one for all calls"
    assert refused
    tokens.append("never")
    ended = status()
    assert "401 UNAUTHENTICATED: expired" in ended.stderr


@pytest.mark.parametrize("body", [PAGE, "{}", '{"access_token": "ya29.secret", '])
def test_a_token_service_that_answers_something_else(
    project: Project, tmp_path: Path, body: str
) -> None:
    """I9: what it answers is not shown, because it may hold a token."""
    with answering(lambda *_: (200, {}, body.encode())) as url:
        text = LOCAL.format(endpoint=url).replace("credentials: none\n", "")
        (project.pipeline / "staging.yaml").write_text(text)
        given = {"GOOGLE_APPLICATION_CREDENTIALS": credentials(tmp_path, url), "GITHUB_ACTIONS": ""}
        ended = project.ship("status", "--env", "staging", **given)
    assert ended.returncode in (1, 2)
    assert "no usable Google credentials: " in ended.stderr
    assert "should not happen" not in ended.stderr
    assert "ya29" not in ended.stderr


def test_a_conflict_may_be_the_answer_to_a_write_that_was_done(
    candidate: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    conflict = json.dumps({"error": {"status": "ABORTED", "message": "no"}})
    actor = Actor(by="someone", at="2026-01-01T00:00:00Z")
    with Relay(
        candidate.cloud_run.url, spoil=once("PUT", "/services/", Spoiled(conflict, 409))
    ) as relay:
        monkeypatch.setenv(ENDPOINT_VARIABLE, relay.url)
        pipeline = pipelines.load(candidate.folder, candidate.name, "local")
        google = Google(pipeline)
        CloudRun(google, pipeline, "us-central1").change(lambda s: changes.hold(s, "mine", actor))
    assert [one.outcome for one in google.writes] == ["done"]
