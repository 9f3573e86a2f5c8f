"""No request to an API of the local Cloud Run breaks it, or goes unanswered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from emulator.recorder import VARIABLE
from tests.conftest import LocalCloudRun
from tests.emulator.cloud_run_help import REGION, CloudRun, service
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
            self.client.http.request(method, f"{self.url}{path}", json=body, timeout=10)
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


@pytest.mark.parametrize("room", apis.ROOMS)
@fuzz(25, long=2500)
@given(data=st.data())
def test_every_request_gets_an_answer(target: Target, room: str, data: st.DataObject) -> None:
    request = data.draw(apis.requests_of(room, target.cloud_run.secret["Shipway-Secret"]))
    note(apis.shown(request))
    target.ask(request)
