"""`./ship init`: from a fork of the template to the first delivery of its own service."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
import yaml

from scripts.config import pipelines, relations
from scripts.config.formats import AT_ONCE, GRADUAL
from scripts.image import source
from scripts.init import add, fitting, triggers
from tests import warm
from tests.conftest import ROOT, LocalCloudRun, needs_sample, share_packed

ANSWERS = [
    *("--project", "staging=orders-staging", "--project", "production=orders-production"),
    *("--region", "europe-west1", "--repository", "shopco/orders"),
]
ME = ["-c", "user.name=test", "-c", "user.email=test@localhost"]


def follow_the_sample(folder: Path) -> None:
    """Give the triggers' files the sample's environments again, in a fork that has others."""
    file = folder / triggers.DELIVER
    files = {triggers.DELIVER: file.read_text()}
    made = triggers.follow(files, {"staging": None, "production": "staging"})
    file.write_text(made[triggers.DELIVER])


class Fork:
    """A clone of the template, with the tests' own sample pipeline, and the command line in it.

    It is made unless the folder exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.exists():
            self._make(folder)

    def _make(self, folder: Path) -> None:
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
        given = {**os.environ, "SHIPWAY_VENV": warm.environment(), **env}
        return warm.ship(*arguments, home=self.folder, cwd=self.folder, env=given)

    def done(self, *arguments: str, **env: str) -> str:
        ended = self.ship(*arguments, **env)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def files(self) -> dict[str, str]:
        """Return the files of pipelines/."""
        return {
            str(path.relative_to(self.folder)): path.read_text()
            for path in (self.folder / "pipelines").rglob("*")
            if path.is_file()
        }

    def jobs(self) -> dict[str, Any]:
        """Return deliver.yml's jobs: the jobs that each one waits for, and its condition."""
        text = (self.folder / ".github/workflows/deliver.yml").read_text()
        made: dict[str, Any] = {}
        for name, job in yaml.safe_load(text)["jobs"].items():
            made[name] = None
            if job["uses"].endswith("/build.yml"):
                built_for = job["with"]["environment"]
            else:
                assert job["with"]["environment"] == name
                made[name] = (job["needs"], job.get("if"))
                assert job["with"]["services"].strip("${ }") in job["if"]
        assert built_for == next(name for name in made if made[name])
        return made

    def watched(self) -> list[str]:
        """Return the environments that watch.yml names."""
        document = yaml.safe_load((self.folder / triggers.WATCH).read_text())
        return list(document["jobs"]["watch"]["strategy"]["matrix"]["environment"])

    def yaml(self, name: str) -> Any:
        return yaml.safe_load((self.folder / "pipelines" / name).read_text())


@pytest.fixture(scope="session")
def first_fork(tmp_path_factory: pytest.TempPathFactory) -> Fork:
    """Return a fork to copy, in which Python has compiled what `init` imports."""
    made = Fork(tmp_path_factory.mktemp("first") / "fork")
    made.done("init", "orders", *ANSWERS, "--dry-run")
    return made


@pytest.fixture
def fork(tmp_path: Path, first_fork: Fork) -> Fork:
    shutil.copytree(first_fork.folder, tmp_path / "fork", symlinks=True)
    return Fork(tmp_path / "fork")


def test_nothing_is_left_to_find_and_replace(fork: Fork) -> None:
    for name in ("notes.md", "more/table.csv"):
        (fork.folder / "pipelines/app" / name).parent.mkdir(exist_ok=True)
        (fork.folder / "pipelines/app" / name).write_text("ours\n")
    (fork.folder / "libs").mkdir()
    (fork.folder / "pipelines/services.yaml").write_text("shared:\n  libs: [app] # ours\n")
    said = fork.done("init", "orders", *ANSWERS)
    assert not (fork.folder / "pipelines/app").exists()
    assert (fork.folder / "pipelines/orders/more/table.csv").read_text() == "ours\n"
    assert (fork.folder / "pipelines/orders/notes.md").read_text() == "ours\n"
    assert (fork.folder / "pipelines/services.yaml").read_text() == (
        "shared:\n  libs: [orders] # ours\n"
    )
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
    comment = "# takes the digest that served there, and never rebuilds"
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
    first = pipelines.load(fork.folder, "orders", "test").environment
    assert (first.rollout, live.rollout) == (AT_ONCE, GRADUAL)
    first, after = (
        f"${{{{ !cancelled() && needs.{came} }}}}"
        for came in ("build.outputs.services", "test.outputs.delivered")
    )
    jobs = {"build": None, "test": ("build", first), "live": (["build", "test"], after)}
    assert fork.jobs() == jobs
    assert fork.watched() == ["live"], "the last one, as no file has a watch"
    file = fork.folder / "pipelines/orders/test.yaml"
    file.write_text(file.read_text().replace("rollout:\n", "rollout:\n  watch: {}\n  bake: 10m\n"))
    fork.done("init", "--region", "europe-west4")
    assert fork.watched() == ["test"]
    fork.done("init", "--environments", "live")
    assert pipelines.load(fork.folder, "orders", "live").environment.after is None
    assert fork.jobs() == {"build": None, "live": ("build", first)}
    fork.done("init", "--environments", "live,more,last", "--project", "more=orders-more",
              "--project", "last=orders-last")  # fmt: skip
    assert [*fork.jobs()] == ["build", "live", "more", "last"]
    assert fork.jobs()["more"] == (["build", "live"], after.replace("test", "live"))


def test_where_the_environments_stay_the_workflow_does(fork: Fork) -> None:
    path = fork.folder / ".github/workflows/deliver.yml"
    before = path.read_text()
    fork.done("init", "orders", *ANSWERS)
    assert path.read_text() == before
    owners = (fork.folder / ".github/CODEOWNERS").read_text()
    assert "@shopco/release-managers" in owners
    fork.done("init", "--source", "code")
    dependabot = yaml.safe_load((fork.folder / ".github/dependabot.yml").read_text())
    directories = [update["directory"] for update in dependabot["updates"]]
    assert directories == ["/", "/code", "/code"], "an upgrade brings what /requirements needs"


def test_a_trigger_that_is_not_ours_stays_and_a_broken_one_is_named(fork: Fork) -> None:
    name = triggers.DELIVER
    path = fork.folder / name
    path.write_text("jobs:\nsteps: []\n")
    fork.done("init", "orders", *ANSWERS, "--environments", "staging,production,last",
              "--project", "last=orders-last")  # fmt: skip
    assert path.read_text() == "jobs:\nsteps: []\n"
    path.write_text("jobs: [\n")
    ended = fork.ship("init", "--environments", "staging")
    assert ended.returncode == 2
    assert f"{name}:2: not valid YAML" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["Orders", *ANSWERS], "'Orders' is not a service name"),
        (["orders"], "--project staging=ID is missing"),
        ([*ANSWERS], "SERVICE is missing"),
        (["orders", *ANSWERS, "--project", "staging=X"], "'X' is not a project ID"),
        (["orders", *ANSWERS, "--project", "orders-prod"], "name the environment"),
        (["orders", *ANSWERS, "--project", "prod=orders-prod", "--environments", "staging"],
         "--project production=orders-production: no such environment"),
        (["orders", *ANSWERS, "--region", "europe"], "'europe' is not a region"),
        (["orders", *ANSWERS, "--repository", "orders"], "'orders' is not a GitHub repository"),
        (["orders", *ANSWERS, "--registry", "here"], "'here' is not a registry"),
        (["orders", *ANSWERS, "--source", "../x"], "'../x' is not a folder of this repository"),
        (["orders", *ANSWERS, "--environments", "local"], "'local' is reserved"),
        (["--from-service", "web"], "--from-service needs --region R and --project P"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_one_clear_error(fork: Fork, arguments: list[str], error: str) -> None:
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
def test_a_file_that_was_wrong_before_is_named(fork: Fork, text: str, error: str) -> None:
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


def fitted(folder: Path, change: dict[str, str] | None = None) -> tuple[dict[str, Any], Any, str]:
    """Fit the sample's files to the service in a folder.

    Returns:
        The spec of its template, its smoke checks, and both files' text.
    """
    files = {
        f"pipelines/app/{name}.yaml": (ROOT / f"tests/pipelines/app/{name}.yaml").read_text()
        for name in ("service", "smoke")
    }
    limit = "containerConcurrency: 80"
    mark = {limit: "containerConcurrency: 16 # gunicorn.conf.py has as many threads"}
    for old, new in {**mark, **(change or {})}.items():
        assert any(old in text for text in files.values()), old
        files = {path: text.replace(old, new) for path, text in files.items()}
    code = source.read(folder)
    made = fitting.fit(files, "app", code)
    assert fitting.fit(made, "app", code) == made, "a second run changes nothing"
    manifest, smoke = made.values()
    return (
        yaml.safe_load(manifest)["spec"]["template"]["spec"],
        yaml.safe_load(smoke),
        "".join(made.values()),
    )


@pytest.mark.parametrize(
    ("name", "port", "health"),
    [("ai", 8081, "/health"), ("api", 8080, "/health"), ("chat", 8080, None),
     ("todo", 8080, None), ("node", 8080, None)],
)  # fmt: skip
def test_another_service_gets_its_own_port_and_checks(
    name: str, port: int, health: str | None
) -> None:
    spec, smoke, text = fitted(ROOT / "tests/services" / name)
    [container] = spec["containers"]
    assert container["ports"] == [{"containerPort": port}]
    assert "startupProbe" not in container
    assert not {"containerConcurrency", "timeoutSeconds"} & spec.keys()
    assert smoke == ([{"name": "health", "path": health}] if health else None)
    for word in ("gunicorn.conf", "<title>", "/version"):
        assert word not in text


def test_where_nothing_answers_at_the_root_another_route_is_checked(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "main.py").write_text("@app.get('/items/{one}')\n@app.get('/items')\n")
    _, smoke, _ = fitted(tmp_path)
    assert smoke == [{"name": "answers", "path": "/items", "expect": {"status": "any"}}]


@pytest.mark.parametrize(("name", "kept"), [("node", False), ("fastapi", True)])
def test_dependabot_updates_pythons_packages_only_where_there_are_some(
    name: str, kept: bool
) -> None:
    before = {triggers.DEPENDABOT: (ROOT / triggers.DEPENDABOT).read_text()}
    updates = yaml.safe_load(before[triggers.DEPENDABOT])["updates"]
    made = triggers.without_pip(before, "app", source.read(ROOT / "tests/services" / name).names)
    of = [(one["package-ecosystem"], one["directory"]) for one in updates]
    left = yaml.safe_load(made[triggers.DEPENDABOT])["updates"]
    assert ("pip", "/app") in of
    assert [(one["package-ecosystem"], one["directory"]) for one in left] == [
        one for one in of if kept or one != ("pip", "/app")
    ]


def test_a_file_is_gone_before_its_deletion_is_committed(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "start.py").touch()
    subprocess.run(["git", "add", "start.py"], cwd=tmp_path, check=True)
    assert source.read(tmp_path).names == ["start.py"]
    (tmp_path / "start.py").rename(tmp_path / "main.py")
    assert source.read(tmp_path).names == ["main.py"]


def test_what_someone_set_stays() -> None:
    ai = ROOT / "tests/services/ai"
    spec, smoke, _ = fitted(ai, {"# gunicorn.conf.py": "# ours:", "<title>": "Welcome"})
    assert spec["containerConcurrency"] == 16
    [container] = spec["containers"]
    assert container["startupProbe"]["tcpSocket"]["port"] == 8081, "it follows the port"
    assert len(smoke) == 3
    spec, _, _ = fitted(ai, {"timeoutSeconds: 60": "timeoutSeconds: 900"})
    assert spec["timeoutSeconds"] == 900


@needs_sample
def test_the_sample_keeps_its_values() -> None:
    spec, smoke, _ = fitted(ROOT / "app")
    assert spec["containerConcurrency"] == 16
    assert len(smoke) == 3
    text = (ROOT / "pipelines/app/service.yaml").read_text()
    assert "containerConcurrency: 16 # gunicorn.conf.py" in text, "what marks the sample's values"
    assert "timeoutSeconds: 60\n" in text


def test_on_a_terminal_it_asks(fork: Fork) -> None:
    """A wrong answer is asked again, and the last question decides."""
    for last, code in (("n", 3), ("y", 0)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [str(fork.folder / "ship"), "init"], cwd=fork.folder, stdin=theirs,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "SHIPWAY_VENV": warm.environment()},
        )  # fmt: skip
        os.close(theirs)
        answers = ["", "shopco/orders", "Orders", "orders", "", "orders-staging", "",
                   "europe-west1", "", last]  # fmt: skip
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        _, told = process.communicate(timeout=60)
        os.close(ours)
        assert process.returncode == code, told
        assert "'Orders' is not a service name" in told
        assert "type a GitHub repository: OWNER/NAME" in told, "Enter is answered, too"
        assert (fork.folder / "pipelines/app").exists() == (last == "n")
    assert fork.yaml("orders/staging.yaml")["project"] == "orders-staging"
    assert fork.yaml("orders/production.yaml")["project"] == "not-chosen-production"


def test_to_try_it_here_no_project_is_needed(fork: Fork) -> None:
    """With --yes, projects are chosen later; until then, nothing is sent to Google for them."""
    said = fork.done("init", "--yes")
    assert "./ship init --project staging=ID --project production=ID" in said
    fork.commit()
    for verb in ("status", "deliver", "plan", "rollback"):
        ended = fork.ship(verb, "--env", "production")
        assert ended.returncode == 2, ended.stdout
        assert "production has no project yet: pipelines/fork/production.yaml" in ended.stderr
        assert "./ship init --project production=ID" in ended.stderr
    fork.done("init", *ANSWERS)
    text = "".join(text for name, text in fork.files().items() if not name.endswith(".json"))
    assert "not-chosen" not in text
    registry = fork.yaml("fork/production.yaml")["registry"]
    assert registry == "europe-west1-docker.pkg.dev/orders-staging/services"


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
            env={**os.environ, "SHIPWAY_VENV": warm.environment()}, stdin=subprocess.DEVNULL,
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
    """Replace app/ by another service on another port, and deliver it.

    Returns:
        The commit, and the service after it.
    """
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


def add_code(fork: Fork, *names: str) -> None:
    for name in names:
        shutil.copytree(ROOT / "tests/services" / name, fork.folder / name)


def test_a_service_is_added_beside_the_others(fork: Fork) -> None:
    """Twice, with a call between the two; the others' files stay as they are."""
    fork.done("init", "orders", *ANSWERS)
    before = fork.files()
    add_code(fork, "ai", "api")
    fork.done("init", "--add", "ai", "--access", "private", "--yes")
    said = fork.done("init", "--add", "intake", "--source", "api/", "--calls", "ai", "--yes")
    assert "everyone may call intake in staging, production" in said
    assert "./ship deliver ai intake --yes" in said
    assert "bootstrap --env staging" in said
    after = fork.files()
    assert {path: after[path] for path in before} == before
    for env in ("local", "staging", "production"):
        one, ai, intake = (
            pipelines.load(fork.folder, name, env) for name in ("orders", "ai", "intake")
        )
        assert intake.environment == msgspec.structs.replace(
            one.environment, overlay=intake.environment.overlay
        )
        assert ai.environment.access == "private"
    assert intake.source == fork.folder / "api"
    assert ai.manifest["spec"]["template"]["spec"]["containers"][0]["ports"] == [
        {"containerPort": 8081}
    ]
    spec = fork.yaml("intake/production.yaml")["overlay"]["spec"]["template"]["spec"]
    assert spec == {
        "serviceAccountName": "intake-runtime@orders-production.iam.gserviceaccount.com"
    }
    assert relations.read(fork.folder).calls == {"intake": {"ai": "AI_URL"}}
    updates = yaml.safe_load((fork.folder / ".github/dependabot.yml").read_text())["updates"]
    asked = [(one["package-ecosystem"], one["directory"]) for one in updates]
    assert asked[-3:] == [("pip", "/ai"), ("docker", "/ai"), ("docker", "/api")]
    # It takes a name from here on, and another one's is never changed.
    assert "name the service to change: ai, intake, orders" in fork.ship("init").stderr
    assert "to add one: ./ship init --add bill" in fork.ship("init", "bill").stderr
    fork.done("init", "intake", "--project", "staging=intake-staging", "--yes")
    changed = [path for path, text in fork.files().items() if after.get(path) != text]
    assert changed == ["pipelines/intake/staging.yaml"]
    add_code(fork, "chat")  # the first of the others, ai, is private
    said = fork.done("init", "--add", "chat", "--yes")
    assert "no one may call chat without the role" in said


def test_what_cannot_be_added_is_refused(fork: Fork, tmp_path: Path) -> None:
    add_code(fork, "ai")
    (fork.folder / "empty").mkdir()
    (fork.folder / "away").symlink_to(tmp_path)
    (fork.folder / "pipelines/half").mkdir()
    (fork.folder / "pipelines/half/smoke.yaml").write_text("[]\n")
    (fork.folder / "pipelines/services.yaml").write_text(
        "calls:\n  app: [ai]\nshared:\n  away: [app]\n"
    )
    long = "a-very-long-name-of-a-service"
    before = fork.files()
    for words, error in (
        ("--add app", "pipelines/app/ already exists"),
        ("--add half", "pipelines/half/ has no service.yaml"),
        ("--add gone", "the folder gone/ does not exist"),
        ("--add empty", "empty/ has no Dockerfile"),
        ("--add away", "away is a link that leads outside the repository"),
        ("--add x --source ../ai", "'../ai' is not a folder of this repository"),
        ("--add Ai", "'Ai' is not a service name"),
        ("--add ai --calls app", "the services call each other in a circle: app -> ai -> app"),
        ("--add ai", "shared.away: away does not exist"),
        ("--add ai --calls ap", "--calls ap: no such service"),
        ("--add ai --project staging=x-staging", "--add takes no --project"),
        ("ai --add ai", "--add takes no SERVICE"),
        ("--calls ai", "--calls and --access go with --add"),
    ):
        ended = fork.ship("init", *words.split())
        assert (ended.returncode, error in ended.stderr) == (2, True), ended.stderr
        assert fork.files() == before
    (fork.folder / "pipelines/services.yaml").unlink()
    fork.done("init", "--add", f"{long}-one", "--source", "ai")
    again = fork.ship("init", "--add", f"{long}-two", "--source", "ai")
    assert f"which is the account of {long}-one" in again.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# ours\n", "# ours\ncalls:\n  api: [ai]\n"),
        ("calls:\n  web: [api] # the shop\n\nshared: {libs: [ai]}\n",
         "calls:\n  web: [api] # the shop\n  api: [ai]\n\nshared: {libs: [ai]}\n"),
        ("calls:\n  api: [db] # ours\n", "calls:\n  api: [db, ai] # ours\n"),
        ("calls:\n  api: {ai: ADDRESS}\n", "calls:\n  api: {ai: ADDRESS}\n"),
        ("calls: {web: [api]} # one line\n", 'calls: {"web": ["api"], "api": ["ai"]} # one line\n'),
        ("calls: {}\n", "calls: {api: [ai]}\n"),
    ],
)  # fmt: skip
def test_a_call_is_written_beside_the_others(before: str, after: str) -> None:
    assert add.calling(before, "api", ["ai"]) == after
