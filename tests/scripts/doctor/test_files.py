"""What the doctor finds in the manifest, the Dockerfile and the code, before anything is built."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.config import limits, pipelines
from scripts.doctor import dockerfile, machine
from scripts.doctor.case import Case, Named
from scripts.doctor.dockerfile import Facts
from scripts.errors import UsageError
from scripts.image import listening
from scripts.image.dockerfile import parse
from scripts.image.source import Source
from scripts.service import accepted
from tests import warm
from tests.conftest import ROOT

FACTS = Facts(folder="app", port=8080, port_at="service.yaml:9")
BASE = "FROM python@sha256:1\n"
FLASK = "app = Flask(__name__)\n"


def a_service(
    limits: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
    container: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a service with these parts."""
    one = {"image": "app", "resources": {"limits": dict(limits or {})}, **(container or {})}
    metadata = {"annotations": dict(annotations or {})}
    template = {"metadata": metadata, "spec": {"containers": [one], **(spec or {})}}
    return {"metadata": {"name": "app"}, "spec": {"template": template}}


def probe(port: int, **more: int) -> dict[str, Any]:
    return {"startupProbe": {"tcpSocket": {"port": port}, **more}}


SCALE = {"autoscaling.knative.dev/minScale": "5", "autoscaling.knative.dev/maxScale": "3"}
GEN2 = {"run.googleapis.com/execution-environment": "gen2"}


@pytest.mark.parametrize(
    ("service", "found", "write"),
    [
        (a_service({"memory": "2GB"}), "'2GB' is not a quantity", "memory: 2Gi"),
        (a_service({"memory": "512mb"}), "'512mb' is not", "memory: 512Mi"),
        (a_service({"memory": "8Gi"}), "more than 1 CPU can have, 4Gi",
         'memory: 4Gi, or cpu: "2"'),
        (a_service({"memory": "64Mi"}), "less than 1 CPU need, 128Mi", "memory: 128Mi"),
        (a_service({"cpu": "4"}), "512Mi (the default) is less than 4 CPU need, 2Gi",
         'cpu: "4", and a line memory: 2Gi'),
        (a_service({"cpu": "3"}), "'3' is not 1, 2, 4, 6 or 8", 'cpu: "4"'),
        (a_service({"cpu": "3000m"}), "'3000m' is not", 'cpu: "4"'),
        (a_service({"cpu": 0.05}), "or 0.08 to 1", 'cpu: "1"'),
        (a_service({"memmory": "1Gi"}), "unknown key; did you mean 'memory'?", ""),
        (a_service({"cpu": "500m"}, {"containerConcurrency": 80}), "one request at a time",
         "containerConcurrency: 1"),
        (a_service({"cpu": "0.5"}, annotations=GEN2), "needs one CPU or more", 'cpu: "1"'),
        (a_service({"memory": "256Mi"}, annotations=GEN2), "less than 1 CPU need, 512Mi",
         "memory: 512Mi"),
        (a_service(spec={"timeoutSeconds": 3601}), "3601 is not 1 to 3600",
         "timeoutSeconds: 3600"),
        (a_service(spec={"containerConcurrency": 1001}), "1001 is not 1 to 1000",
         "containerConcurrency: 1000"),
        (a_service(annotations=SCALE), "5 is more than autoscaling.knative.dev/maxScale, 3",
         'autoscaling.knative.dev/minScale: "3"'),
        (a_service(container={"env": [{"name": "PORT", "value": "1"}]}),
         "Cloud Run sets PORT itself; the port is ports[0].containerPort", ""),
        (a_service(container={"env": [{"name": "A"}, {"name": "A"}]}), "A is set twice", ""),
        (a_service(container=probe(9000)), "it asks port 9000, but the container's port is 8080",
         "port: 8080"),
        (a_service(container=probe(8080, periodSeconds=30, failureThreshold=9)),
         "9 times 30 s is more than 240 s", "failureThreshold: 8"),
        (a_service({"cpu": "1000m", "memory": "4G"}, {"containerConcurrency": 0}), None, None),
        (a_service({"cpu": "80m", "memory": "128Mi"}), None, None),
        (a_service({"cpu": 8, "memory": "32Gi"}), None, None),
    ],
)  # fmt: skip
def test_values_that_cloud_run_refuses(
    service: dict[str, Any], found: str | None, write: str | None
) -> None:
    problems = [*limits.problems(service)]
    if found is None:
        assert problems == []
        return
    [problem] = problems
    assert found in problem.found
    assert problem.write == write


MANIFEST = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: app}
spec:
  template:
    spec:
      containers:
        - name: helper
          image: helper@sha256:0123456789012345678901234567890123456789012345678901234567890123
        - name: app
          image: app
          ports: [{containerPort: 8080}]
          resources:
            limits: {cpu: "1", memory: 512Mi}
"""
STAGING = """\
project: acme-staging
regions: [us-central1]
registry: us-central1-docker.pkg.dev/acme-ops/services
overlay:
  spec:
    template:
      spec:
        timeoutSeconds: 9000
        containers:
          - name: app
            resources:
              limits:
                memory: 2GB
"""


def test_a_value_is_found_in_the_file_that_has_it(tmp_path: Path) -> None:
    """The overlay's lists merge by name; every problem is named, and a build is refused."""
    folder = tmp_path / "pipelines/app"
    folder.mkdir(parents=True)
    (folder / "service.yaml").write_text(MANIFEST.replace('"1"', '"3"'))
    (folder / "staging.yaml").write_text(STAGING)
    (folder / "smoke.yaml").write_text("")
    pipeline = pipelines.load(tmp_path, None, "staging")
    timeout, cpu, memory = (one.fix for one in accepted.problems(pipeline))
    assert timeout == "pipelines/app/staging.yaml:8: write timeoutSeconds: 3600"
    assert cpu == 'pipelines/app/service.yaml:14: write cpu: "4"'
    assert memory == "pipelines/app/staging.yaml:13: write memory: 2Gi"
    with pytest.raises(UsageError) as refusal:
        accepted.check(pipeline)
    assert refusal.value.message.startswith("pipelines/app/staging.yaml:8: overlay.spec.template")
    assert len(refusal.value.evidence) == 2


def found(text: str, files: Mapping[str, str] | None = None, facts: Facts = FACTS) -> list[str]:
    """Return each problem of a Dockerfile and code: its state, the problem, the fix."""
    code = Source(names=sorted(files or {}), texts=dict(files or {}))
    return [f"{one.state} {one.found} -> {one.fix}" for one in
            dockerfile.problems(text, code, facts)]  # fmt: skip


UVICORN = "CMD exec uvicorn main:app --host 0.0.0.0 --port $PORT"


@pytest.mark.parametrize(
    ("text", "files", "problem"),
    [
        # The base image.
        ("FROM python:3.12 AS build\nFROM build\n", {},
         "warning app/Dockerfile:1: python:3.12 is named by a tag"),
        ("ARG V=3.12\nFROM python:${V}-slim\n", {}, "FROM python:3.12-slim@sha256:…"),
        ("FROM scratch\n", {}, None),
        ("FROM docker.io/python:3.9-slim@sha256:1\n", {},
         "warning app/Dockerfile:1: python:3.9 gets no security fixes since October 2025"),
        ("FROM node:200@sha256:1\n", {}, None),
        # Packages that do not work together.
        (BASE, {"requirements.txt": "a\nFlask == 2.0.3\n"},
         "wrong app/requirements.txt:2: Flask == 2.0.3 does not start with Werkzeug 3"),
        (BASE, {"requirements.txt": "flask==2.2.3\nWerkzeug<3\n"}, None),
        (BASE, {"requirements.txt": "flask==2.2.5\nflask-cors==1.0\n"}, None),
        ("# nothing\n", {}, "it has no FROM"),
        # The port.
        (BASE + 'CMD ["uvicorn", "main:app", "--host", "0.0.0.0", "--port", "8081"]', {},
         "wrong app/Dockerfile:2: it listens on 8081, but Cloud Run sends requests to 8080"
         " (service.yaml:9), and sets PORT to it -> service.yaml:9: write containerPort: 8081."
         f" Or app/Dockerfile:2: write {UVICORN}"),
        (BASE + 'CMD ["gunicorn", "--bind", ":$PORT", "m:a"]', {},
         "this form does not replace $PORT -> app/Dockerfile:2: write CMD exec gunicorn --bind"
         " :$PORT m:a"),
        (BASE + 'CMD ["uvicorn", "main:app", "--port", "8080"]', {},
         f"127.0.0.1, where only the container itself can reach it -> app/Dockerfile:2: write"
         f" {UVICORN.replace(' --port $PORT', '').replace(' --host 0.0.0.0', '')}"),
        (BASE + "ENV FLASK_RUN_PORT=9000 \\\n  FLASK_RUN_HOST=0.0.0.0\nCMD flask run", {},
         "app/Dockerfile:4: it listens on 9000"),
        (BASE + 'ENTRYPOINT ["python3", "-m", "flask"]\nCMD ["run", "--host=0.0.0.0"]', {},
         "write ENTRYPOINT exec python3 -m flask run --host=0.0.0.0 --port $PORT"),
        (BASE + 'CMD ["npm", "start"]',
         {"package.json": '{"scripts": {"start": "node s.js"}}', "s.js": "\napp.listen(3000)"},
         "app/s.js:2: it listens on 3000"),
        (BASE + 'CMD ["python", "main.py"]', {"main.py": FLASK + "app.run(debug=True)"},
         'app/main.py:2: write host="0.0.0.0", port=int(os.environ["PORT"])'),
        (BASE + 'ENTRYPOINT []\nCMD ["flask", "run", "-h", "0.0.0.0"]', {}, "it listens on 5000"),
        (BASE + "EXPOSE 3000\nCMD ./server", {},
         "warning app/Dockerfile:2: EXPOSE 3000, but Cloud Run sends"),
        (BASE + "EXPOSE 3000\nCMD ./server", {"main.go": 'os.Getenv("PORT")'}, None),
        (BASE + "ENV PORT=3000\nCMD exec gunicorn -b :$PORT m:a", {}, "PORT=3000 has no effect"),
        (BASE + 'CMD ["gunicorn", "m:a"]', {}, None),  # it reads PORT itself
        (BASE + 'CMD ["sh", "-c", "exec gunicorn -b 0.0.0.0:${PORT:-8080} m:a"]', {}, None),
        (BASE + "RUN <<END\nENV PORT=1\nEND\nCMD exec gunicorn -b :$PORT m:a", {}, None),
        # Files with values.
        (BASE + "COPY . .\n", {".env": "A=1"},
         "wrong app/Dockerfile:2: COPY . . puts .env into the image"),
        (BASE + "COPY . .\n", {".env": "A=1", ".dockerignore": "*\n!main.py"}, None),
        (BASE + "COPY . .\n", {"a/.env.local": "A=1", ".dockerignore": "**/.env*"}, None),
        (BASE + "COPY . .\n", {".env.example": "A="}, None),
        (BASE + "COPY src .env ./\n", {}, "puts .env into the image"),
        # Docker in Docker.
        (BASE + "RUN apt-get install -y docker.io", {}, "app/Dockerfile:2: Docker needs a Docker"),
        (BASE, {"main.py": "import docker\nx = docker.from_env()"},
         "warning app/main.py:2: the Docker client needs a Docker engine, which no container of"
         " Cloud Run has -> to build images, use Cloud Build; for containers that end, Cloud Run"),
        (BASE, {"a.js": "const D = require('dockerode')"}, "app/a.js:1: dockerode needs"),
        (BASE, {"a.py": "subprocess.run(['docker', 'run', x])"}, "app/a.py:1: the command docker"),
        (BASE, {"a.js": "exec(`docker run ${x}`)"}, "app/a.js:1: the command docker"),
        (BASE, {"tests/a.py": "import testcontainers", "a.py": "# docker.from_env()"}, None),
    ],
)  # fmt: skip
def test_what_a_dockerfile_and_its_code_need(
    text: str, files: Mapping[str, str], problem: str | None
) -> None:
    problems = found(text, files)
    if problem is None:
        assert problems == []
    else:
        [only] = problems
        assert problem in only


def test_the_commit_reaches_the_image_if_it_is_checked() -> None:
    facts = Facts(folder="app", commit_at="smoke.yaml:5")
    command = "CMD exec gunicorn -b :$PORT m:a"
    [problem] = found(BASE + command, facts=facts)
    lines = "write two lines, ARG COMMIT_SHA and ENV COMMIT_SHA=$COMMIT_SHA."
    assert f"above app/Dockerfile:2: {lines} Or smoke.yaml:5: remove commit" in problem
    [problem] = found(f"{BASE}ARG COMMIT_SHA\n{command}", facts=facts)
    assert problem.endswith("below app/Dockerfile:2: write ENV COMMIT_SHA=$COMMIT_SHA")
    for takes in ("ARG COMMIT_SHA\nENV SHA=$COMMIT_SHA", "ARG COMMIT_SHA=x\nRUN v ${COMMIT_SHA}"):
        assert found(f"{BASE}{takes}\n{command}", facts=facts) == []


def test_what_an_endpoint_cannot_build_is_a_problem_only_without_docker() -> None:
    problem = {"line": 3, "instruction": "RUN make", "reason": "there is no make"}
    note = {"line": 1, "instruction": "FROM python:3.9", "text": "runs 3.11", "kind": "interpreter"}
    answer = {"problems": [{**problem, "instead": "COPY"}], "notes": [note]}
    one, other = dockerfile.examined(answer, "app/Dockerfile")
    assert (one.state, other.state) == ("wrong", "warning")
    assert one.found == "app/Dockerfile:3: RUN make: there is no make"
    assert one.fix == "app/Dockerfile:3: write COPY"
    assert other.found == "app/Dockerfile:1: FROM python:3.9: runs 3.11"
    one, _ = dockerfile.examined({**answer, "docker": True}, "app/Dockerfile")
    assert one.state == "warning"
    [one] = dockerfile.examined({"problems": [problem], "notes": []}, "app/Dockerfile")
    assert one.fix, "a problem has a fix"


def test_the_services_of_the_tests_listen_where_they_say() -> None:
    """What their authors wrote is understood, and fits the port that they listen on."""
    folder = Path(__file__).parents[2] / "services"
    for each in sorted(path.parent for path in folder.glob("*/Dockerfile")):
        texts = {
            str(path.relative_to(each)): path.read_text()
            for path in each.rglob("*")
            if path.suffix in (".py", ".js")
        }
        at = listening.find(parse((each / "Dockerfile").read_text()), texts)
        assert at.reads_port or at.port in (8080, 8081), each
        assert not at.is_local, each


def test_a_folder_whose_base_image_dependabot_does_not_update(tmp_path: Path) -> None:
    """`init` writes the updates of each folder that an image is built from."""
    for part in ("app", "pipelines", ".github"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copytree(tmp_path / "app", tmp_path / "images/proxy")
    manifest = tmp_path / "pipelines/app/service.yaml"
    text = manifest.read_text()
    further = "        - {name: proxy, image: proxy}\n"
    text = text.replace(
        "metadata:\n", "metadata:\n  annotations: {shipway/source.proxy: images/proxy}\n", 1
    )
    manifest.write_text(text.rstrip("\n") + "\n" + further)

    def warned() -> list[str]:
        case = Case(tmp_path, pipelines.load(tmp_path, "app", "local"), Named())
        return [one.found for one in machine.files(case) if one.state == "warning"]

    where = ".github/dependabot.yml"
    assert warned() == [f"{where} has no updates of the base image of images/proxy/Dockerfile"]
    words = ("init", "app", "--repository", "acme/app", "--region", "europe-west1", "--yes",
             "--project", "staging=shop-staging", "--project", "production=shop-prod")  # fmt: skip
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    ended = warm.ship(*words, cwd=tmp_path, env=dict(os.environ), timeout=60)
    assert ended.returncode == 0, ended.stderr
    updates = yaml.safe_load((tmp_path / where).read_text())["updates"]
    asked = [(one["package-ecosystem"], one["directory"]) for one in updates]
    assert asked[-2:] == [("pip", "/images/proxy"), ("docker", "/images/proxy")]
    assert warned() == []


def test_an_environment_that_a_merge_delivers_to_and_that_has_no_file(tmp_path: Path) -> None:
    for part in ("app", "pipelines", ".github"):
        shutil.copytree(ROOT / part, tmp_path / part)
    (tmp_path / "pipelines/app/production.yaml").unlink()
    pipeline = pipelines.load(tmp_path, "app", "staging")

    def wrong(*, by_cloud_build: bool) -> list[str]:
        case = Case(tmp_path, pipeline, Named(), by_cloud_build=by_cloud_build)
        found = [*machine.files(case)]
        return [one.found for one in found if one.check == "files" and one.state == "wrong"]

    assert wrong(by_cloud_build=True) == []
    [found] = wrong(by_cloud_build=False)
    assert found.startswith("pipelines/app/production.yaml does not exist, and deliver.yml")
