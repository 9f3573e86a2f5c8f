"""`endpoint: up`: each checkout has its own local Cloud Run, which its commands find and start."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.config import running
from scripts.errors import UsageError
from scripts.service import local_secrets
from tests import warm
from tests.conftest import ROOT
from tests.scripts.conftest import LOCAL, Project

SECRET = "v4lue-that-no-one-prints"
DEV = "user:dev@example.com"
# What a client library sends over REST, with the endpoint that docs/local-cloud-run.md names.
CLIENT = """
import base64, urllib.request
if os.environ["API_KEY"] != {value!r}: sys.exit("another key")
url = os.environ["SECRET_MANAGER_ENDPOINT"]
url += "/v1/projects/shipway-local/secrets/api-key/versions/latest:access"
read = json.load(urllib.request.urlopen(url))["payload"]["data"]
if base64.b64decode(read).decode() != {value!r}: sys.exit("another key by REST")
"""


class Checkout(Project):
    """A repository whose local environment has `endpoint: up`."""

    def __init__(self, folder: Path, name: str = "svc") -> None:
        self.cloud_run = self  # type: ignore[assignment]  # it has a `url`, and a log
        super().__init__(folder, self, name)  # type: ignore[arg-type]  # the same
        self.commit()

    @property
    def up(self) -> Any:
        """What is kept about the local Cloud Run; {} while it is not up."""
        file = self.folder / ".shipway/up.json"
        return json.loads(file.read_text()) if file.exists() else {}

    @property
    def url(self) -> str:
        return str(self.up.get("url", "up"))

    @property
    def log(self) -> Path:
        return self.folder / ".shipway/up.log"

    def type(self, *words: str, stdin: str | bytes | int | None = None, **env: str) -> Any:
        """Run `./ship` itself, as a user does."""
        source: Any = {"stdin": stdin}
        if isinstance(stdin, str | bytes):
            source = {"input": stdin.encode() if isinstance(stdin, str) else stdin}
        ended: Any = subprocess.run(
            [ROOT / "ship", *words], cwd=self.folder, capture_output=True, check=False,
            env={**os.environ, "SHIPWAY_VENV": warm.environment(), "CI": "", **env}, timeout=60,
            **source,
        )  # fmt: skip
        ended.stdout, ended.stderr = ended.stdout.decode(), ended.stderr.decode()
        return ended

    def start_up(self, *options: str) -> None:
        ended = self.ship("up", "--background", *options)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == f"{self.url}\n"


@contextmanager
def checkout(folder: Path) -> Iterator[Checkout]:
    made = Checkout(folder)
    try:
        yield made
    finally:
        if made.folder.exists():
            assert made.ship("up", "--stop").returncode == 0


def is_running(process: int) -> bool:
    """Return whether a process runs: a dead one may wait for its parent."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nothing_is_up(tmp_path: Path) -> None:
    """A terminal is asked; elsewhere, and in CI, the command to start it is named."""
    project = Checkout(tmp_path / "a")
    words = ["the local Cloud Run is not up", "./ship up --background"]
    for command in (["status"], ["deliver"], ["rollback"], ["up", "--env-gcloud"]):
        ended = project.ship(*command, CI="")
        assert ended.returncode == 2
        assert all(word in ended.stderr for word in words)
    assert project.ship("deliver", "--yes", CI="true").returncode == 2
    found = json.loads(project.ship("doctor", "--format", "json").stdout)["findings"]
    assert not [one for one in found if one["state"] == "wrong"]  # a delivery starts it
    [network] = [one for one in found if one["check"] == "network"]
    assert network["state"] == "warning"
    assert network["found"].startswith(words[0])
    assert network["fix"].endswith(words[1])
    with_secret(project)
    found = json.loads(project.ship("doctor", "--format", "json").stdout)["findings"]
    [secret] = [one for one in found if one["check"] == "secrets"]
    assert (secret["state"], secret["fix"]) == (
        "warning", "./ship up --background && ./ship secrets set api-key"
    )  # fmt: skip
    assert project.ship("up", "--stop").returncode == 0
    main, side = pty.openpty()
    os.write(main, b"n\n")
    ended = project.type("status", stdin=side)
    os.close(main)
    os.close(side)
    assert ended.returncode == 2
    assert "Start it in the background? [Y/n]" in ended.stderr
    assert not project.up


def test_two_checkouts_have_one_each(tmp_path: Path) -> None:
    with checkout(tmp_path / "a") as one, checkout(tmp_path / "b") as two:
        ended = one.type("deliver", "--yes")
        assert ended.returncode == 0, ended.stderr
        assert f"started the local Cloud Run at {one.url}" in ended.stderr
        assert ".shipway/up.log" in ended.stderr
        assert stat.S_IMODE((one.folder / ".shipway/up.json").stat().st_mode) == 0o600
        two.start_up()
        assert two.url != one.url
        assert one.revisions()
        assert not two.revisions()

        again = one.ship("up")
        assert (again.returncode, again.stdout) == (0, f"{one.url}\n")
        assert "up already" in again.stderr
        for option in (["--iam", "enforce"], ["--port", "1"], ["--allow-host", "x"]):
            ended = one.ship("up", *option)
            assert ended.returncode == 2
            assert f"with another {option[0]}" in ended.stderr

        # A fixed address of another checkout, and a copy of another's .shipway/.
        before = one.service()
        (two.pipeline / "local.yaml").write_text(LOCAL.format(endpoint=one.url))
        two.commit()
        copied = Checkout(tmp_path / "c")
        shutil.copytree(one.folder / ".shipway", copied.folder / ".shipway", copy_function=os.link)
        for project, verb in ((two, "build"), (two, "deliver"), (copied, "deliver")):
            ended = project.ship(verb)
            assert ended.returncode == 2
            assert f"at {one.url} belongs to another checkout: {one.folder}" in ended.stderr
        assert one.service() == before
        assert two.ship("status", SHIPWAY_ENDPOINT=one.url).returncode == 0  # on purpose

        # After a crash it is not up, whoever has its port; the next start takes another one then.
        address, process = one.url, one.up["pid"]
        os.kill(process, signal.SIGKILL)
        until(lambda: not is_running(process))
        assert "is not up" in one.ship("status").stderr
        one.start_up()
        assert one.url == address
        assert one.done("status")["regions"][0]["url"]
        assert one.ship("up", "--stop").returncode == 0
        with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
            one.start_up()
            assert one.url != address


def test_an_address_that_is_not_of_this_machine_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / ".shipway"
    folder.mkdir()
    about = {"url": "https://acme.example", "folder": str(tmp_path), "pid": 1, "state": "x"}
    with (folder / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "up.json").write_text(json.dumps(about))
        with pytest.raises(UsageError, match="not of this machine"):
            running.find(tmp_path)
        about["url"] = "http://127.0.0.1:1"
        (folder / "up.json").rename(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").write_text(json.dumps(about))
        (folder / "up.json").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match="cannot be read"):
            running.find(tmp_path)
        (folder / "up.json").unlink()
        (folder / "up.json").write_text(json.dumps(about))
        assert running.address(tmp_path) == about["url"]


def test_two_starts_at_once_start_one(tmp_path: Path) -> None:
    project = Checkout(tmp_path / "a")
    both = [project.start("up", "--background") for _ in range(2)]
    outputs = {process.communicate(timeout=60)[0] for process in both}
    assert outputs == {f"{project.url}\n"}
    assert [process.returncode for process in both] == [0, 0]
    process = project.up["pid"]
    # Without its folder no command could find it, so it ends.
    shutil.rmtree(project.folder)
    until(lambda: not is_running(process))


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    project = Checkout(tmp_path / "a")
    ended = project.ship("up", "--background", "--fault", "nonsense")
    assert ended.returncode == 1
    assert "did not start" in ended.stderr
    assert "argument --fault: name: Expected one of" in ended.stderr


def with_secret(project: Project) -> None:
    """Let the service need a secret: without its value it does not start."""
    file = project.pipeline / "service.yaml"
    variable = "{name: API_KEY, valueFrom: {secretKeyRef: {name: api-key, key: latest}}}"
    text = file.read_text().replace("- image: app", f"- image: app\n          env: [{variable}]")
    file.write_text(text)
    project.serve_with(CLIENT.format(value=SECRET))
    project.commit()


def test_secrets_are_kept_on_this_machine(tmp_path: Path) -> None:
    with checkout(tmp_path / "a") as project:
        with_secret(project)
        project.start_up()
        [missing] = _wrong(project)
        assert (missing["check"], missing["fix"]) == ("secrets", "./ship secrets set api-key")
        failed = project.ship("deliver")
        assert failed.returncode == 1
        assert "-> ./ship secrets set api-key" in failed.stderr

        done = project.type("secrets", "set", "api-key", stdin=f"{SECRET}\n")
        assert done.returncode == 0, done.stderr
        again = project.type("secrets", "set", "api-key", stdin=SECRET)
        assert "already has this value" in again.stderr
        assert project.ship("secrets", "set", "api-key").returncode == 2, "no value"
        binary = b"\xff\xfe\0 first\r\nsecond\r\n\n"
        set_binary = project.type("secrets", "set", "binary", stdin=binary)
        assert set_binary.returncode == 0, set_binary.stderr
        read = f"{project.url}/v1/projects/shipway-local/secrets/binary/versions/latest:access"
        data = requests.get(read, timeout=9).json()["payload"]["data"]
        assert base64.b64decode(data) == binary[:-1]
        assert project.ship("secrets", "set", "a/b").returncode == 2
        [failed_revision] = _wrong(project)
        assert failed_revision["check"] == "service"
        delivered = project.ship("deliver")
        assert delivered.returncode == 0, delivered.stderr
        assert _wrong(project) == []

        # The file: each delivery reads it, and a delivery with nothing new writes nothing.
        file = project.folder / "secrets.local.env"
        file.write_text("# keys\n\napi-key=old\n")
        (project.folder / ".gitignore").write_text("secrets.local.env\n.shipway\n")
        project.commit()
        assert project.ship("deliver").returncode == 1
        file.write_text(f'api-key = "{SECRET}"\n')
        delivered = project.ship("deliver")
        assert delivered.returncode == 0, delivered.stderr
        assert "secrets.local.env: api-key" in delivered.stderr
        assert "secrets.local.env" not in project.ship("deploy").stderr
        file.write_text(f"api-key={SECRET}\n{SECRET}\n")
        wrong = project.ship("deploy")
        assert "secrets.local.env:2: not NAME=value" in wrong.stderr
        project.git("add", "--force", "secrets.local.env")
        in_git = project.ship("deploy")
        assert "secrets.local.env is in git" in in_git.stderr
        for ended in (failed, done, again, delivered, wrong, in_git):
            assert SECRET not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("contents", "error"),
    [
        ("A=1\nexport B=2", "2: not NAME=value"),
        ("A=1\r\n\r\nA=2", "3: A has a value already"),
        ('A="-----BEGIN\nMII==\n"', "1: A: the quote at its start is not at the end of the line"),
        ("A=''", "1: A: no value"),
        ("../x=1", "1: not NAME=value"),
        ("A=\udcff", "cannot be read"),
    ],
)
def test_a_line_of_secrets_that_is_wrong_is_named(
    tmp_path: Path, contents: str, error: str
) -> None:
    (tmp_path / local_secrets.FILE).write_bytes(contents.encode(errors="surrogateescape"))
    with pytest.raises(UsageError) as raised:
        local_secrets.read(tmp_path)
    assert f"{local_secrets.FILE}:" in raised.value.message
    assert error in raised.value.message


def test_values_of_secrets_are_read_as_they_stand(tmp_path: Path) -> None:
    text = "\ufeffA = 'x y' \r\n\t# no\r\nB=\u2028\x0b=\"\r\n"
    (tmp_path / local_secrets.FILE).write_bytes(text.encode())
    assert local_secrets.read(tmp_path) == {"A": "x y", "B": '\u2028\x0b="'}


def test_secrets_of_a_real_project_are_refused(tmp_path: Path) -> None:
    project = Checkout(tmp_path / "a")
    (project.pipeline / "live.yaml").write_text(
        "project: acme-prod\nregions: [us-central1]\n"
        "registry: us-central1-docker.pkg.dev/acme-prod/services\n"
    )
    ended = project.type("secrets", "set", "key", "--env", "live", stdin=SECRET)
    assert ended.returncode == 3
    assert "gcloud secrets versions add NAME --project=acme-prod" in ended.stderr


def _wrong(project: Project) -> list[Any]:
    found = json.loads(project.ship("doctor", "--format", "json").stdout)["findings"]
    return [one for one in found if one["state"] == "wrong"]


def test_a_user_of_the_local_cloud_run(tmp_path: Path) -> None:
    """With --iam enforce, local.yaml says whom to be, and roles decide."""
    with checkout(tmp_path / "a") as project:
        file = project.pipeline / "local.yaml"
        text = file.read_text().replace("credentials: none", f"credentials: {DEV}")
        file.write_text(text.replace("access: public", "access: private"))
        project.commit()
        project.start_up("--iam", "enforce")
        refused = project.ship("deliver")
        assert refused.returncode != 0
        assert "-> ./ship up --grant MEMBER=ROLE" in refused.stderr
        roles = (
            "cloudbuild.builds.editor", "storage.objectUser",
            "artifactregistry.writer", "run.admin", "iam.serviceAccountUser",
        )  # fmt: skip
        for role in roles:
            given = project.ship("up", "--grant", f"{DEV}=roles/{role}")
            assert given.returncode == 0, given.stderr
        assert project.ship("up", "--grant", "dev").returncode == 2
        unknown = project.ship("up", "--grant", f"{DEV}=roles/run.amdin")
        assert unknown.returncode == 2
        assert "knows no role roles/run.amdin; nothing changed" in unknown.stderr
        assert "did you mean 'roles/run.admin'?" in unknown.stderr
        delivered = project.ship("deliver")
        assert delivered.returncode == 0, delivered.stderr
        assert "1 of 1 checks passed" in delivered.stderr

        url = project.done("status")["regions"][0]["url"]
        assert requests.get(url, timeout=10).status_code == 403
        for member, code in ((DEV, 200), ("user:someone@example.com", 403)):
            body = json.dumps({"member": member, "audience": url})
            # As docs/local-cloud-run.md has it.
            token = subprocess.run(
                f'curl -s -H "Shipway-Secret: $(cat .shipway/cloud-run/local-secret)"'
                f" --json '{body}' $(./ship up --background)/_local/id-tokens".replace(
                    "./ship up --background", f"echo {project.url}"
                ),
                shell=True, cwd=project.folder, capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            bearer = {"Authorization": f"Bearer {token}"}
            assert requests.get(f"{url}/version", headers=bearer, timeout=10).status_code == code
        printed = delivered.stdout + delivered.stderr
        assert "eyJ" not in printed
        assert "ya29" not in printed


def test_a_user_needs_the_local_cloud_run(tmp_path: Path) -> None:
    project = Checkout(tmp_path / "a")
    file = project.pipeline / "local.yaml"
    text = LOCAL.format(endpoint="http://127.0.0.1:1")
    file.write_text(text.replace("credentials: none", f"credentials: {DEV}"))
    ended = project.ship("status")
    assert ended.returncode == 2
    assert f"local.yaml:7: credentials: '{DEV}' gets a token only from" in ended.stderr


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="left out: gcloud is not installed")
def test_gcloud_uses_it(tmp_path: Path) -> None:
    """Whatever NO_PROXY says, and with a token where IAM is enforced."""
    with checkout(tmp_path / "it's here") as project:
        project.start_up("--iam", "enforce")
        script = (
            f'eval "$({warm.environment()}/bin/python {ROOT}/scripts up --env-gcloud)"'
            " && gcloud run services list --format=json"
            f" && gcloud projects add-iam-policy-binding shipway-local --member={DEV}"
            " --role=roles/run.admin --condition=None --format=json"
        )
        done = subprocess.run(
            ["sh", "-c", script], cwd=project.folder, capture_output=True, text=True, check=False,
            env={**os.environ, "NO_PROXY": "localhost,.localhost,127.0.0.1"}, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("[]")
        assert DEV in done.stdout
        token = project.folder / ".shipway/cloud-run/gcloud-token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
