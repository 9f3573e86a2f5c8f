"""`./ship init`: from a fork of the template to the first delivery of one's own service."""

from __future__ import annotations

import base64
import os
import pty
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from scripts.config import pipelines
from scripts.init import adopt, tree, triggers
from scripts.rehearse.cloudbuild import build
from scripts.release import manifest
from scripts.release.declared import differences
from tests import warm
from tests.conftest import ROOT, LocalCloudRun, share_packed
from tests.emulator.cloud_run_help import CloudRun, service
from tests.scripts.conftest import DOCKERFILE, SERVER

ANSWERS = [
    *("--project", "staging=orders-staging", "--project", "production=orders-production"),
    *("--region", "europe-west1", "--repository", "shopco/orders"),
]
ME = ["-c", "user.name=test", "-c", "user.email=test@localhost"]


def follow_the_sample(folder: Path) -> None:
    """Give the triggers' files the sample's environments again, in a fork that has others."""
    names = [triggers.DELIVER, triggers.CLOUD_BUILD]
    files = {name: (folder / name).read_text() for name in names if (folder / name).is_file()}
    made = triggers.follow(files, {"staging": None, "production": "staging"})
    for name, text in made.items():
        (folder / name).write_text(text)


class Fork:
    """A clone of the template, with the tests' own sample pipeline, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        subprocess.run(["git", "init", "--quiet", "--initial-branch=main", folder], check=True)
        tracked = subprocess.check_output(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--",
             "app", "pipelines/schema.json", "ship", "scripts", ".gitignore", ".github",
             "cloudbuild"],
            cwd=ROOT, text=True,
        )  # fmt: skip
        for name in filter(None, tracked.split("\0")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        shutil.copytree(ROOT / "tests/pipelines/app", folder / "pipelines/app")
        follow_the_sample(folder)
        self.commit()

    def commit(self) -> str:
        for words in (["add", "--all"], [*ME, "commit", "--quiet", "--message", "a change"]):
            subprocess.run(["git", *words], cwd=self.folder, check=True)
        head = ["git", "rev-parse", "HEAD"]
        return subprocess.check_output(head, cwd=self.folder, text=True).strip()

    def ship(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        given = {**os.environ, "SHIPWAY_VENV": sys.prefix, **env}
        return warm.ship(*arguments, home=self.folder, cwd=self.folder, env=given)

    def done(self, *arguments: str, **env: str) -> str:
        ended = self.ship(*arguments, **env)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def files(self) -> dict[str, str]:
        """What stands in pipelines/."""
        return {
            str(path.relative_to(self.folder)): path.read_text()
            for path in (self.folder / "pipelines").rglob("*")
            if path.is_file()
        }

    def jobs(self) -> dict[str, Any]:
        """deliver.yml's jobs: what each waits for, and whether its outcome is handed on."""
        text = (self.folder / ".github/workflows/deliver.yml").read_text()
        made: dict[str, Any] = {}
        for name, job in yaml.safe_load(text)["jobs"].items():
            made[name] = None
            if "environment" in job:
                assert job["environment"]["name"] == name
                assert job["concurrency"]["group"] == f"deliver-{name}"
                assert f"--env {name} " in job["steps"][-1]["run"]
                made[name] = (job["needs"], job.get("if"), "outputs" in job)
        first = next(name for name in made if made[name])
        assert f"./ship build --env {first}\n" in text
        self.check_cloud_build(made)
        return made

    def check_cloud_build(self, jobs: dict[str, Any]) -> None:
        """cloudbuild/deliver.yaml does the same, and is what Cloud Build takes."""
        given = {"_SERVICE_ACCOUNT": "x@acme-ops.iam.gserviceaccount.com"}
        made = build.load(self.folder, "cloudbuild/deliver.yaml", {}, given).build
        steps = {step.id: step for step in made.steps if step.id not in ("history", "docker")}
        assert [*steps] == [*jobs]
        for name, job in jobs.items():
            if job is None:
                continue
            before = job[0] if isinstance(job[0], str) else job[0][-1]
            assert steps[name].wait_for == [before]
            assert f"./ship deliver --env {name} " in steps[name].script
            assert ("outcome" in steps[name].script) == (before != "build")
            assert f"outputs/{before}/" in steps[name].script

    def yaml(self, name: str) -> Any:
        return yaml.safe_load((self.folder / "pipelines" / name).read_text())


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path / "fork")


def test_nothing_is_left_to_find_and_replace(fork: Fork) -> None:
    for name in ("notes.md", "more/table.csv"):
        (fork.folder / "pipelines/app" / name).parent.mkdir(exist_ok=True)
        (fork.folder / "pipelines/app" / name).write_text("ours\n")
    said = fork.done("init", "orders", *ANSWERS)
    assert not (fork.folder / "pipelines/app").exists()
    assert (fork.folder / "pipelines/orders/more/table.csv").read_text() == "ours\n"
    assert (fork.folder / "pipelines/orders/notes.md").read_text() == "ours\n"
    for name, text in fork.files().items():
        assert "acme" not in text, name
        assert "us-central1" not in text or name.endswith("schema.json"), name
    for env in pipelines.environments(fork.folder, "orders"):
        pipelines.load(fork.folder, "orders", env)
    production = fork.yaml("orders/production.yaml")
    assert production["project"] == "orders-production"
    assert production["regions"] == ["europe-west1"]
    assert production["registry"] == "europe-west1-docker.pkg.dev/orders-staging/services"
    account = production["overlay"]["spec"]["template"]["spec"]["serviceAccountName"]
    assert account == "orders-runtime@orders-production.iam.gserviceaccount.com"
    assert pipelines.load(fork.folder, "orders", "local").source == fork.folder / "app"
    assert "git remote add origin https://github.com/shopco/orders.git" in said
    comment = "# the digest that served there, never a rebuild"
    assert comment in (fork.folder / "pipelines/orders/production.yaml").read_text()


def test_a_second_run_changes_nothing_and_keeps_comments(fork: Fork) -> None:
    """I6."""
    fork.done("init", "orders", *ANSWERS)
    path = fork.folder / "pipelines/orders/staging.yaml"
    path.write_text("# ours alone\n" + path.read_text() + "# and at the end\n")
    before = fork.files()
    for again in (["orders", *ANSWERS], ["orders"], []):
        assert "nothing to change" in fork.done("init", *again)
    assert fork.files() == before
    fork.done("init", "--project", "staging=another-staging")
    changed = [name for name, text in fork.files().items() if before[name] != text]
    assert changed == ["pipelines/orders/staging.yaml"]
    assert path.read_text() == before[changed[0]].replace("orders-staging", "another-staging", 1) \
        .replace("orders-runtime@orders-staging", "orders-runtime@another-staging")  # fmt: skip


def test_environments_come_and_go(fork: Fork) -> None:
    fork.done(
        "init", "orders", "--environments", "test,live", "--project", "test=orders-test1",
        "--project", "live=orders-live1", "--region", "europe-west1,us-east1",
    )  # fmt: skip
    assert pipelines.environments(fork.folder, "orders") == ["live", "local", "test"]
    live = pipelines.load(fork.folder, "orders", "live").environment
    assert (live.after, live.regions) == ("test", ["europe-west1", "us-east1"])
    assert fork.jobs() == {"build": None, "test": ("build", None, True), "live": (
        ["build", "test"], "${{ needs.test.outputs.outcome == 'delivered' }}", False)}  # fmt: skip
    fork.done("init", "--environments", "live")
    assert pipelines.load(fork.folder, "orders", "live").environment.after is None
    assert fork.jobs() == {"build": None, "live": ("build", None, False)}
    fork.done("init", "--environments", "live,more,last", "--project", "more=orders-more",
              "--project", "last=orders-last")  # fmt: skip
    assert [*fork.jobs()] == ["build", "live", "more", "last"]
    assert fork.jobs()["more"] == (
        ["build", "live"], "${{ needs.live.outputs.outcome == 'delivered' }}", True)  # fmt: skip


def test_where_the_environments_stay_the_workflow_does(fork: Fork) -> None:
    path = fork.folder / ".github/workflows/deliver.yml"
    cloud = fork.folder / "cloudbuild/deliver.yaml"
    before = path.read_text(), cloud.read_text()
    fork.done("init", "orders", *ANSWERS)
    assert (path.read_text(), cloud.read_text()) == before
    owners = (fork.folder / ".github/CODEOWNERS").read_text()
    assert "@shopco/release-managers" in owners
    fork.done("init", "--source", "code")
    dependabot = yaml.safe_load((fork.folder / ".github/dependabot.yml").read_text())
    directories = [update["directory"] for update in dependabot["updates"]]
    assert directories == ["/", "/", "/code", "/code"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["Orders", *ANSWERS], "'Orders' is no name for a service"),
        (["orders"], "--project staging=ID is missing"),
        ([*ANSWERS], "SERVICE is missing"),
        (["orders", *ANSWERS, "--project", "staging=X"], "'X' is no project id"),
        (["orders", *ANSWERS, "--project", "orders-prod"], "say of which environment"),
        (["orders", *ANSWERS, "--project", "prod=orders-prod", "--environments", "staging"],
         "--project production=orders-production: no such environment"),
        (["orders", *ANSWERS, "--region", "europe"], "'europe' has not the form of a region"),
        (["orders", *ANSWERS, "--repository", "orders"], "'orders' is no GitHub repository"),
        (["orders", *ANSWERS, "--registry", "here"], "'here' is no registry"),
        (["orders", *ANSWERS, "--source", "../x"], "'../x' is no folder of this repository"),
        (["orders", *ANSWERS, "--environments", "local"], "'local' is taken"),
        (["--from-service", "web"], "--from-service needs --region R and --project P"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_clear_error(fork: Fork, arguments: list[str], error: str) -> None:
    before = fork.files()
    ended = fork.ship("init", *arguments)
    assert ended.returncode == 2, ended.stdout
    assert error in ended.stderr
    assert "Traceback" not in ended.stderr
    assert fork.files() == before


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("project: [", "pipelines/app/staging.yaml:2: not valid YAML"),
        ("project: [1]", "pipelines/orders/staging.yaml:1: "),
        ("regions: 7", "pipelines/orders/staging.yaml:1: "),
        ("- 1", "pipelines/orders/staging.yaml:1: "),
        ("", "pipelines/orders/staging.yaml:1: "),
    ],
)
def test_a_file_that_is_wrong_already_is_named(fork: Fork, text: str, error: str) -> None:
    (fork.folder / "pipelines/app/staging.yaml").write_text(f"{text}\n")
    before = fork.files()
    ended = fork.ship("init", "orders", *ANSWERS)
    assert ended.returncode == 2, ended.stdout
    assert error in ended.stderr
    assert fork.files() == before


def test_a_dry_run_writes_nothing(fork: Fork) -> None:
    """I10."""
    before = fork.files()
    said = fork.done("init", "orders", *ANSWERS, "--dry-run")
    assert "+project: orders-staging" in said
    assert fork.files() == before


def test_on_a_terminal_it_asks(fork: Fork) -> None:
    """A wrong answer is asked again; the last question decides."""
    for last, code in (("n", 3), ("y", 0)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [str(fork.folder / "ship"), "init"], cwd=fork.folder, stdin=theirs,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "SHIPWAY_VENV": sys.prefix},
        )  # fmt: skip
        os.close(theirs)
        answers = ["shopco/orders", "Orders", "orders", "", "orders-staging", "orders-production",
                   "europe-west1", "", last]  # fmt: skip
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        _, told = process.communicate(timeout=60)
        os.close(ours)
        assert process.returncode == code, told
        assert "'Orders' is no name for a service" in told
        assert (fork.folder / "pipelines/app").exists() == (last == "n")
    assert fork.yaml("orders/staging.yaml")["project"] == "orders-staging"


def test_killed_anywhere_it_leaves_the_old_files_or_the_new(fork: Fork) -> None:
    before = fork.files()
    fork.done("init", "orders", *ANSWERS)
    after = fork.files()
    # Before it writes, while it makes the new files aside, and when the first of them is in place.
    for moment, left in (
        (".shipway/init-*", [before, after]),
        (".shipway/init-*/pipelines/orders", [before, after]),
        ("pipelines/orders", [after]),
    ):
        subprocess.run(["git", "clean", "-fdq", "pipelines"], cwd=fork.folder, check=True)
        subprocess.run(["git", "checkout", "-q", "--", "pipelines"], cwd=fork.folder, check=True)
        with subprocess.Popen(
            [str(fork.folder / "ship"), "init", "orders", *ANSWERS], cwd=fork.folder,
            env={**os.environ, "SHIPWAY_VENV": sys.prefix}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            while not [*fork.folder.glob(moment)] and process.poll() is None:
                pass
            process.kill()
        assert fork.files() in left, moment
    fork.done("init", "orders", *ANSWERS)
    assert fork.files() == after
    assert [p.name for p in (fork.folder / ".shipway").iterdir()] == ["init.lock"]


def deliver_fastapi(fork: Fork, url: str) -> tuple[str, Any]:
    """Replace app/ by another service, on another port; deliver it; what the service is then."""
    shutil.rmtree(fork.folder / "app")
    shutil.copytree(ROOT / "tests/services/fastapi", fork.folder / "app")
    path = fork.folder / "pipelines/orders/service.yaml"
    path.write_text(path.read_text().replace("8080", "9000"))
    smoke = fork.folder / "pipelines/orders/smoke.yaml"
    smoke.write_text(smoke.read_text().partition("- name: page")[0])
    commit = fork.commit()
    share_packed(fork.folder)
    fork.done("deliver", SHIPWAY_ENDPOINT=url)
    api = "/v1/projects/shipway-local/locations/europe-west1/services/orders"
    return commit, requests.get(url + api, timeout=10).json()


@pytest.mark.usefixtures("pypi")
def test_a_fork_delivers_a_service_of_its_own(fork: Fork, fresh_cloud_run: LocalCloudRun) -> None:
    fork.done("init", "orders", *ANSWERS)
    commit, service = deliver_fastapi(fork, fresh_cloud_run.url)
    assert "shipway/source" not in service["metadata"]["annotations"]
    container = service["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"][0]["containerPort"] == 9000
    seen = requests.get(f"{service['status']['url']}/version", timeout=10).json()
    assert seen == {"commit": commit, "revision": f"orders-{commit[:7]}"}
    assert "no change" in fork.done("plan", SHIPWAY_ENDPOINT=fresh_cloud_run.url)


SECRET = {"name": "API", "valueFrom": {"secretKeyRef": {"name": "adopted", "key": "latest"}}}


def others_deploy(url: str, name: str) -> CloudRun:
    """A service that others deployed: variables, a secret, limits, labels, their own marks."""
    client = CloudRun(url, "shipway-local")
    secrets = f"{url}/v1/projects/shipway-local/secrets"
    created = {"replication": {"automatic": {}}}
    client.http.post(secrets, params={"secretId": "adopted"}, json=created)
    version = {"payload": {"data": base64.b64encode(b"hunter2").decode()}}
    assert client.http.post(f"{secrets}/adopted:addVersion", json=version).ok
    document = service(name, client.push(), GREETING="hello")
    document["metadata"] |= {
        "labels": {"team": "shop"},
        "annotations": {
            "run.googleapis.com/invoker-iam-disabled": "true",
            "run.googleapis.com/client-name": "gcloud",
            "run.googleapis.com/description": "Yes: it greets # everybody",
        },
    }
    template = document["spec"]["template"]
    template["metadata"] = {
        "labels": {"client.knative.dev/nonce": "abc", "tier": "web"},
        "annotations": {
            "autoscaling.knative.dev/maxScale": "3",
            "run.googleapis.com/client-version": "500.0.0",
        },
    }
    template["spec"] |= {"containerConcurrency": 20, "serviceAccountName": "web@acme.test.com"}
    container = template["spec"]["containers"][0]
    container["env"].append(SECRET)
    container["resources"] = {"limits": {"cpu": "2", "memory": "256Mi"}}
    client.ready(document)
    return client


def test_a_service_that_runs_is_adopted(fork: Fork, local_cloud_run: LocalCloudRun) -> None:
    """Its first plan shows no change, and a delivery keeps what it had."""
    url, name = local_cloud_run.url, f"web-{uuid.uuid4().hex[:8]}"
    client = others_deploy(url, name)
    before = client.get(name)
    adopt = ["init", "--from-service", name, "--region", "us-central1",
             "--project", "shipway-local", "--env", "local"]  # fmt: skip
    fork.done(*adopt, SHIPWAY_ENDPOINT=url)
    assert pipelines.services(fork.folder) == [name]
    written = fork.yaml(f"{name}/service.yaml")
    assert written["metadata"] == {
        "name": name,
        "labels": {"team": "shop"},
        "annotations": {
            "run.googleapis.com/description": "Yes: it greets # everybody",
            "run.googleapis.com/ingress": "all",
            "shipway/source": "app",
        },
    }
    assert written["spec"].keys() == {"template"}
    template = written["spec"]["template"]["metadata"]
    assert template["labels"] == {"tier": "web"}
    assert template["annotations"] == {"autoscaling.knative.dev/maxScale": "3"}
    assert "serviceAccountName" not in written["spec"]["template"]["spec"]
    planned = fork.ship("plan", SHIPWAY_ENDPOINT=url)
    assert planned.returncode == 0, planned.stdout
    assert "nothing to change" in fork.done(*adopt, SHIPWAY_ENDPOINT=url)
    assert client.get(name) == before

    shutil.rmtree(fork.folder / "app")
    (fork.folder / "app").mkdir()
    (fork.folder / "app/Dockerfile").write_text(DOCKERFILE.replace(" settings.json", ""))
    settings = '{"note": "", "start": "", "health": "ok", "code": 200}'
    server = SERVER.replace('json.load(open("settings.json"))', settings)
    (fork.folder / "app/server.py").write_text(server)
    commit = fork.commit()
    fork.done("deliver", SHIPWAY_ENDPOINT=url)
    after = client.get(name)
    assert after["status"]["traffic"][0]["revisionName"] == f"{name}-{commit[:7]}"
    assert after["metadata"]["labels"]["team"] == "shop"
    was, now = (one["spec"]["template"]["spec"] for one in (before, after))
    for one in (was, now):
        one["containers"][0].pop("image")
    assert now == was
    assert fork.ship("plan", SHIPWAY_ENDPOINT=url).returncode == 0


def test_a_service_of_google_s_is_adopted_as_production(fork: Fork) -> None:
    """What the API answers there cannot be had here: the files that follow from it can."""
    document = service("web", "europe-west1-docker.pkg.dev/acme-ops/images/web@sha256:00")
    document["spec"]["template"]["spec"]["serviceAccountName"] = (
        "web@acme-live.iam.gserviceaccount.com"
    )
    probe = {"httpGet": {"path": "/ready", "port": 8080}}
    document["spec"]["template"]["spec"]["containers"][0]["livenessProbe"] = probe
    running = adopt.Running(
        service=document, env="production", project="acme-live", region="europe-west1",
        open_to_all=True,
    )  # fmt: skip
    before = tree.read(fork.folder)
    after, _ = adopt.says(before, running, "app")
    with tree.alone(fork.folder) as scratch:
        tree.stage(fork.folder, scratch, before, after)
        tree.put(fork.folder, scratch, before, after)
    assert [*fork.jobs()] == ["build", "production"]
    made = pipelines.load(fork.folder, "web", "production")
    assert made.environment.registry == "europe-west1-docker.pkg.dev/acme-ops/images"
    assert (made.environment.access, made.environment.confirm) == ("private", True)
    assert [check.path for check in made.checks] == ["/version", "/ready"]
    commit = "0" * 40
    rendered = manifest.render(made, commit=commit, image="x@sha256:00", revision="web-0000000")
    assert differences(rendered, document) == []
    said = fork.done("init", "--environments", "staging,production",
                     "--project", "staging=acme-before")  # fmt: skip
    assert "+after: staging" in said
    assert [*fork.jobs()] == ["build", "staging", "production"]
    assert pipelines.load(fork.folder, "web", "staging").environment.after is None
    assert "nothing to change" in fork.done("init")


def test_a_plain_variable_that_sounds_like_a_secret_is_pointed_out(
    fork: Fork, local_cloud_run: LocalCloudRun
) -> None:
    client, name = CloudRun(local_cloud_run.url, "shipway-local"), f"web-{uuid.uuid4().hex[:8]}"
    client.ready(service(name, client.push(), DB_PASSWORD="hunter2"))
    ended = fork.ship(
        "init", "--from-service", name, "--region", "us-central1", "--project", "shipway-local",
        "--env", "local", SHIPWAY_ENDPOINT=local_cloud_run.url,
    )  # fmt: skip
    assert "WARNING: DB_PASSWORD is a plain variable" in ended.stdout
    assert "hunter2" not in ended.stdout + ended.stderr  # I9


def test_a_service_that_does_not_exist(fork: Fork, local_cloud_run: LocalCloudRun) -> None:
    before = fork.files()
    ended = fork.ship(
        "init", "--from-service", "nobody", "--region", "us-central1", "--project",
        "shipway-local", "--env", "local", SHIPWAY_ENDPOINT=local_cloud_run.url,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "there is no service nobody in shipway-local, us-central1" in ended.stderr
    assert fork.files() == before
