"""No request to an API of the local Cloud Run breaks it, or goes unanswered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from emulator.recorder import VARIABLE
from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import REGION, CloudRun, Document, container, service
from tests.fuzz import apis, fuzz
from tests.fuzz.apis import BLOB, BLOB_DIGEST, EMAIL, IMAGE, PROJECT, SECRET, SERVICE, Request
from tests.fuzz.doors import Answer, Watched, request_of, send

# After these, what requests name may be gone, or out of reach.
TAKES = (":disable", ":setIamPolicy", ":destroy", "/_local/faults")


class Target(Watched):
    """A local Cloud Run with one of everything, which comes back when a request deletes it."""

    def __init__(self, cloud_run: LocalCloudRun) -> None:
        self.client = CloudRun(cloud_run.url)
        super().__init__(cloud_run)
        self.restore()

    def restore(self) -> None:
        """Make what requests name, unless it exists."""
        project, region = f"/v1/projects/{PROJECT}", f"/v1/projects/{PROJECT}/locations/{REGION}"
        document = service(
            SERVICE, f"us-central1-docker.pkg.dev/{IMAGE}@{BLOB_DIGEST}", f"{SERVICE}-1"
        )
        pools = f"{project}/locations/global/workloadIdentityPools"
        for fault in self.cloud_run.local("GET", "faults")["faults"]:
            self.cloud_run.local("DELETE", f"faults/{fault['name']}")
        for method, path, body in (
            ("POST", f"{project}/services:batchEnable", {"serviceIds": ["run.googleapis.com"]}),
            ("POST", f"{project}/secrets?secretId={SECRET}", {"replication": {"automatic": {}}}),
            ("POST", f"{project}/secrets/{SECRET}:addVersion", {"payload": {"data": "eA=="}}),
            ("POST", f"{region}/repositories?repositoryId=images", {"format": "DOCKER"}),
            ("POST", f"{region}/services", document),
            ("POST", f"{project}/serviceAccounts", {"accountId": EMAIL.partition("@")[0]}),
            ("POST", f"{pools}?workloadIdentityPoolId=pool", {}),
        ):
            self.client.http.request(method, f"{self.url}{path}", json=body, timeout=60)
        self.client.http.post(
            f"{self.url}/v2/{IMAGE}/blobs/uploads/?digest={BLOB_DIGEST}", data=BLOB
        )

    def ask(self, request: Request) -> Answer:
        """Send a request and check its answer, and the server after it."""
        host = self.url.removeprefix("http://")
        written = request_of(request.method, request.target, request.headers, request.body, host)
        with self.unharmed():
            answer = send(self.url, written)
        assert answer.status < 500, answer.body
        if request.method == "DELETE" or any(word in request.target for word in TAKES):
            self.restore()
        return answer


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(VARIABLE)  # the recorder would read each body first
        cloud_run = LocalCloudRun(tmp_path_factory.mktemp("fuzz") / "state", "--idle", "5")
    yield Target(cloud_run)
    cloud_run.stop()


JSON = ("Content-Type", "application/json")
GZIP, BROTLI = ("Content-Encoding", "gzip"), ("Content-Encoding", "br")
NUMBERS = ("9" * 5000, "9" * 400 + "s", "-1", "²")
SERIES = (
    f"/v3/projects/{PROJECT}/timeSeries?filter=metric.type%3D%22run.googleapis.com/request_count%22"
    "&interval.startTime=2020-01-01T00:00:00Z&interval.endTime=2030-01-01T00:00:00Z"
)
IN_PROJECT = f"/v1/projects/{PROJECT}"
SERVICES = f"{IN_PROJECT}/locations/{REGION}/services"
POOLS = f"{IN_PROJECT}/locations/global/workloadIdentityPools"
REPOSITORIES = f"{IN_PROJECT}/locations/{REGION}/repositories"


def _with_memory(quantity: str) -> Document:
    document = service(SERVICE, "a/b/c")
    container(document)["resources"] = {"limits": {"memory": quantity}}
    return document


# Bodies with a value of the wrong type, each of which broke its handler or went into the state.
WRONG: list[tuple[str, str, str]] = [
    ("POST", "/v2/entries:list", '{"projectIds": true}'),
    ("POST", "/v2/entries:list", '{"resourceNames": 1}'),
    ("POST", f"{SERVICES}/{SERVICE}:testIamPermissions", '{"permissions": [["a"]]}'),
    ("POST", f"{IN_PROJECT}:testIamPermissions", '{"permissions": 1}'),
    ("POST", f"{IN_PROJECT}:setIamPolicy", '{"policy": {"bindings": {"a": 1}}}'),
    ("POST", f"{IN_PROJECT}:setIamPolicy", '{"policy": {"bindings": [{"role":"a","members":1}]}}'),
    ("POST", f"{SERVICES}/{SERVICE}:setIamPolicy", '{"policy": {"version": "x"}}'),
    ("POST", f"{IN_PROJECT}/services:batchEnable", '{"serviceIds": 1}'),
    ("POST", f"{IN_PROJECT}/serviceAccounts", '{"accountId": "runtime", "serviceAccount": [1]}'),
    ("POST", f"{POOLS}?workloadIdentityPoolId=odd-pool", '{"displayName": {}}'),
    ("POST", f"{POOLS}/pool/providers?workloadIdentityPoolProviderId=odd-one", '{"oidc": "a"}'),
    ("POST", f"{IN_PROJECT}/secrets?secretId=odd", '{"replication": {}, "labels": 1}'),
    ("POST", f"{IN_PROJECT}/secrets/{SECRET}:addVersion", '{"payload": {"data": 1}}'),
    ("POST", f"{REPOSITORIES}?repositoryId=odd", '{"format": "DOCKER", "dockerConfig": "a"}'),
    ("PATCH", f"{REPOSITORIES}/images?updateMask=description.x", '{"description": "a"}'),
    *(
        ("PUT", f"{SERVICES}/{SERVICE}", json.dumps(_with_memory(memory)))
        for memory in ("inf", "nanMi", "1e400", "9" * 400, "-1", "")
    ),
    ("POST", f"{IN_PROJECT}/locations/{REGION}/triggers", '{"name": 1, "filename": "a"}'),
]
_MULTIPART = ("Content-Type", "multipart/form-data; boundary=x")
FOUND = [
    Request("POST", "/v1/token", [_MULTIPART], b"no boundary"),
    Request("POST", "/tokeninfo", [_MULTIPART], b"no boundary"),
    Request("POST", f"{IN_PROJECT}/secrets", [JSON, GZIP], b"{}"),
    Request("GET", f"{IN_PROJECT}/secrets", [JSON, BROTLI], None),
    Request("POST", f"/v2/{IMAGE}/blobs/uploads/?digest={BLOB_DIGEST}", [GZIP], BLOB),
    *(Request(method, path, [JSON], body.encode()) for method, path, body in WRONG),
    *(Request("GET", f"{SERIES}&pageSize={quote(n)}", [], None) for n in NUMBERS),
    *(Request("GET", f"{SERIES}&pageToken={quote(n)}", [], None) for n in NUMBERS),
    *(
        Request("GET", f"{SERIES}&aggregation.alignmentPeriod={quote(n)}", [], None)
        for n in NUMBERS
    ),
    *(Request("GET", f"/v2/{IMAGE}/tags/list?n={quote(n)}", [], None) for n in NUMBERS),
    *(
        Request("PATCH", f"/v2/{IMAGE}/blobs/uploads/x", [("Content-Range", f"{n}-{n}")], BLOB)
        for n in NUMBERS[:2]
    ),
    *(Request("GET", f"{SERVICES}?limit={quote(n)}", [], None) for n in NUMBERS),
    *(
        Request("POST", "/v2/entries:list", [JSON], b'{"projectIds":["a"],"%s":%s}' % pair)
        for pair in ((b"pageSize", b"1e999"), (b"pageToken", b'"a"'), (b"filter", b'"a>1"'))
    ),
]


@pytest.mark.parametrize("number", range(len(FOUND)))
def test_what_was_found_is_refused(target: Target, number: int) -> None:
    """A body or header of this kind is the client's error."""
    answer = target.ask(FOUND[number])
    assert answer.status in (400, 404) or FOUND[number].method == "GET", answer


@pytest.mark.parametrize("room", apis.ROOMS)
@fuzz(14, long=700)
@given(data=st.data())
def test_every_request_gets_an_answer(target: Target, room: str, data: st.DataObject) -> None:
    request = data.draw(apis.requests_of(room, target.cloud_run.secret["Shipway-Secret"]))
    note(apis.shown(request))
    target.ask(request)
