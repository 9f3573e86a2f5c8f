"""Credentials follow no redirect, in a header or in a body."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from scripts.cloud.patience import Patience
from scripts.cloud.registry import Registry
from scripts.cloud.session import Session
from scripts.errors import Failed
from tests.scripts.conftest import LOCAL, Project
from tests.scripts.test_registry_client import Answer, answering

SECRET = "ya29.secret"


def credentials(folder: Path, url: str) -> str:
    """Write federated credentials whose token issuer is at `url`; return the file."""
    (folder / "subject").write_text(SECRET)
    file = folder / "credentials.json"
    file.write_text(
        json.dumps({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{url}/token",
            "credential_source": {"file": str(folder / "subject")},
        })
    )  # fmt: skip
    return str(file)


@pytest.mark.parametrize(
    ("redirected", "command"),
    [
        ("POST /token", "status"),
        ("GET /v1/projects/shipway-local", "status"),
        ("POST /tokeninfo", "doctor"),
    ],
)
def test_credentials_follow_no_redirect(
    project: Project, tmp_path: Path, redirected: str, command: str
) -> None:
    """A token in a body would go to the other host again: requests removes only its header."""
    reached: list[str] = []

    def stranger(method: str, path: str, _headers: dict[str, str]) -> Answer:
        reached.append(f"{method} {path}")
        return 200, {}, b"{}"

    with answering(stranger) as other:

        def answer(method: str, path: str, _headers: dict[str, str]) -> Answer:
            if f"{method} {path}/".startswith(f"{redirected}/"):
                return 307, {"Location": f"{other}/taken"}, b""
            if path == "/token":
                kind = "urn:ietf:params:oauth:token-type:access_token"
                made = {"access_token": SECRET, "issued_token_type": kind,
                        "token_type": "Bearer", "expires_in": 3600}  # fmt: skip
                return 200, {}, json.dumps(made).encode()
            return 404, {}, b"{}"

        with answering(answer) as url:
            text = LOCAL.format(endpoint=url).replace("credentials: none\n", "")
            (project.pipeline / "staging.yaml").write_text(text)
            project.commit()
            given = {
                "GOOGLE_APPLICATION_CREDENTIALS": credentials(tmp_path, url),
                "GITHUB_ACTIONS": "",
            }
            ended = project.ship(command, "--env", "staging", **given)
    said = ended.stdout + ended.stderr
    assert reached == []
    assert ended.returncode == 1, said
    assert f"{url} redirects {redirected}" in said
    assert "a request with credentials follows no redirect" in said
    assert "Traceback" not in said
    assert SECRET not in said


CONFIG = json.dumps({"os": "linux", "architecture": "amd64"}).encode()
DIGEST = f"sha256:{hashlib.sha256(CONFIG).hexdigest()}"


def test_a_registry_redirects_a_blob_and_the_token_stays() -> None:
    """Artifact Registry keeps blobs in Cloud Storage, on another host."""
    tokens: list[str | None] = []

    def storage(_method: str, _path: str, headers: dict[str, str]) -> Answer:
        tokens.append(headers.get("Authorization"))
        return 200, {}, CONFIG

    with answering(storage) as other:

        def answer(_method: str, path: str, _headers: dict[str, str]) -> Answer:
            if "/blobs/" in path:
                return 302, {"Location": f"{other}/stored"}, b""
            return 200, {}, json.dumps({"config": {"digest": DIGEST}, "layers": []}).encode()

        with answering(answer) as url, Session(Patience(2)) as session:
            found = Registry(url, session, lambda _: SECRET).resolve("x", "v1")
    assert found is not None
    assert found.platforms == ("linux/amd64",)
    assert tokens == [None]


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/manifests/", "http://127.0.0.1:1/elsewhere"),
        ("/blobs/", "http://storage.example.com/in-the-clear"),
    ],
)
def test_a_registry_redirects_nothing_else(path: str, location: str) -> None:
    def answer(_method: str, asked: str, _headers: dict[str, str]) -> Answer:
        if path in asked:
            return 302, {"Location": location}, b""
        return 200, {}, json.dumps({"config": {"digest": DIGEST}, "layers": []}).encode()

    with answering(answer) as url, Session(Patience(2)) as session:
        registry = Registry(url, session, lambda _: SECRET)
        with pytest.raises(Failed, match=r"redirects GET /v2/x/.* to http"):
            registry.resolve("x", "v1")
