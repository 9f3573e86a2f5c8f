"""Two private services, one of which calls the other, at a local Cloud Run that enforces IAM.

No one grants a role by hand: pipelines/services.yaml says who calls whom.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.cloud.google import Google
from scripts.cloud.local_identity import OWNER, LocalIdentity
from scripts.config import pipelines, relations, running
from scripts.setup import cloud, permissions
from scripts.setup.resources import Account
from tests.conftest import ROOT, needs_node, share_packed
from tests.scripts.conftest import LOCAL, MANIFEST
from tests.scripts.test_up import Checkout

SERVICES = ROOT / "tests" / "services"
PORTS = {"ai": "8081", "api": "8080"}
pytestmark = [
    needs_node,
    pytest.mark.usefixtures("pypi"),
    pytest.mark.xdist_group("private-calls"),  # one set-up
]


class Two(Checkout):
    """A repository with the services ai and api of tests/services, delivered."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "api")
        shutil.rmtree(folder / "api")
        for name, port in PORTS.items():
            shutil.copytree(SERVICES / name, folder / name)
            pipeline = folder / "pipelines" / name
            pipeline.mkdir(exist_ok=True)
            text = MANIFEST.format(name=name).replace("8080", port)
            (pipeline / "service.yaml").write_text(text.replace("Threshold: 4", "Threshold: 60"))
            local = LOCAL.format(endpoint="up").replace("access: public", "access: private")
            (pipeline / "local.yaml").write_text(local)
            (pipeline / "smoke.yaml").write_text("- path: /health\n")
        (folder / relations.FILE).write_text("calls:\n  api: [ai]\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "two services")

    def address(self, service: str) -> str:
        return str(self.done("status", service)["regions"][0]["url"])

    def token(self, audience: str) -> dict[str, str]:
        local = running.find(self.folder)
        assert local
        return {"Authorization": f"Bearer {LocalIdentity(local, OWNER).id_token(audience)}"}

    def analyze(self) -> requests.Response:
        api = self.address("api")
        body = {"text": "what a great day"}
        return requests.post(f"{api}/analyze", json=body, headers=self.token(api), timeout=30)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("two") / "a"
    made = Two(folder)
    share_packed(folder)
    try:
        made.start_up("--iam", "enforce")
        for name in PORTS:
            made.done("deliver", name)
        yield made
    finally:
        assert made.ship("up", "--stop").returncode == 0


def status_of(url: str, headers: dict[str, str] | None = None) -> int:
    return requests.get(f"{url}/health", headers=headers, timeout=30).status_code


def test_one_private_service_calls_another(two: Two) -> None:
    answer = two.analyze()
    assert (answer.status_code, answer.json()) == (200, {"label": "positive", "score": 1})
    ai, api = two.address("ai"), two.address("api")
    assert status_of(ai) == 403
    assert status_of(ai, two.token(api)) == 401, "a token for another service"
    assert status_of(ai, two.token(ai)) == 200


def test_the_role_is_needed_and_a_delivery_gives_it_back(two: Two) -> None:
    """The role is the one that bootstrap grants at Google."""
    pipeline = pipelines.load(two.folder, "api", "local")
    google = Google(pipeline)
    number = cloud.number(google, "shipway-local")
    email = f"{number}-compute@developer.gserviceaccount.com"
    [binding] = permissions.to_call(pipeline, Account(email=email, purpose=""))
    path = binding.resource.path
    policy = cloud.policy(google, binding.resource)
    assert [dict(one) for one in policy["bindings"]] == [
        {"role": "roles/run.invoker", "members": [f"serviceAccount:{email}"]}
    ]
    for verb in (["deploy", "api"], ["deliver", "ai"]):
        empty = {"policy": {**cloud.policy(google, binding.resource), "bindings": []}}
        google.write("POST", "run", f"/v1/{path}:setIamPolicy", empty)
        refused = two.analyze()
        assert (refused.status_code, refused.json()["error"]) == (
            502, "the AI service answered 403",
        )  # fmt: skip
        ended: Any = two.ship(*verb)
        assert ended.returncode == 0, ended.stderr
        assert f"api calls ai: granted roles/run.invoker to {email}\n" in ended.stderr
        assert two.analyze().status_code == 200
        assert "granted" not in two.ship(*verb).stderr
