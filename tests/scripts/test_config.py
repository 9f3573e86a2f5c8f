"""An error in pipelines/ names the file, the line, the key and the likely fix."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml

from scripts.config import pipelines
from scripts.config.formats import BUILT_IN, schemas
from scripts.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the tests' own pipelines/ to break: a fork's own differs."""
    shutil.copytree(ROOT / "tests/pipelines", tmp_path / "pipelines")
    return tmp_path


WRONG = [
    # file, text, replacement, the error
    ("local", "steps: [10, 50, 100]", "stepz: [10]", "local.yaml:12: rollout.stepz: unknown key;"
     " did you mean 'steps'?"),
    ("local", "50, 100]", "50, 1000]", "local.yaml:12: rollout.steps[2]: expected a whole number"
     " <= 100"),
    ("local", "50, 100]", "0]", "local.yaml:12: rollout.steps[1]: expected a whole number >= 1"),
    ("local", "50, 100]", "5]", "local.yaml:12: rollout.steps[1]: 5 is not more than 10"),
    ("local", "50, 100]", '"5"]', "local.yaml:12: rollout.steps[1]: expected a whole number,"
     " got text"),
    ("local", "bake: 0s", "bake: 5 minutes", "local.yaml:13: rollout.bake: not valid: expected"
     " a duration, such as 90s, 5m or 1h"),
    ("local", "bake: 0s", "bake: 5m\n  watch: {}", "local.yaml:13: rollout.bake: 5m is over before"
     " its first answers are seen: the first 60s do not count (warm-up), and numbers arrive up to"
     " 4m late (delay)"),
    ("local", "bake: 0s", "bake: 90s\n  watch: {source: logs}", "local.yaml:13: rollout.bake:"
     " 90s is over before its first answers are seen: the first 60s do not count (warm-up), and"
     " numbers arrive up to 30s late (delay)"),
    ("local", "bake: 0s", "bake: 6m\n  watch: {errors: null, latency: null}", "local.yaml:14:"
     " rollout.watch: watches nothing"),
    ("local", "bake: 0s", "bake: 6m\n  watch: {errors: {worse-by: 1}}", "local.yaml:14:"
     " rollout.watch.errors.worse-by: expected text, got a whole number (put it in quotes)"),
    ("local", "bake: 0s", "bake: 6m\n  watch: {at_least: 1}", "local.yaml:14: rollout.watch"
     ".at_least: unknown key; did you mean 'at-least'?"),
    ("local", "project: shipway-local", "project: [x]", "local.yaml:3: project: expected text,"
     " got a list"),
    ("local", "project: shipway-local", "project: X", "local.yaml:3: project: not valid:"
     " expected the ID of a Google Cloud project, such as my-project"),
    ("local", "project: shipway-local", "", "local.yaml:1: the file: missing key 'project'"),
    ("local", "access: public", "access: pubic", "local.yaml:6: access: unknown value 'pubic';"
     " did you mean 'public'?"),
    ("local", "access: public", "access: public\naccess: private", "local.yaml:7: access: this key"
     " appears twice (first in line 6)"),
    ("local", "access: public", "access: [public", "local.yaml:7: not valid YAML"),
    ("local", "access: public", "after: stagin", "local.yaml:6: after: no environment 'stagin'"),
    ("production", 'minScale: "1"', "minScale: 1", "production.yaml:13: overlay.metadata"
     ".annotations.run.googleapis.com/minScale: expected text, got a whole number"
     " (put it in quotes)"),
    ("production", 'metadata:\n    annotations: {run.googleapis.com/minScale: "1"}', "metadata:",
     "production.yaml:12: overlay.metadata: null would remove the manifest's metadata"),
    ("production", "serviceAccountName", "serviceAcountName", "production.yaml:17: overlay.spec"
     ".template.spec.serviceAcountName: unknown key; did you mean 'serviceAccountName'?"),
    ("service", "containerPort: 8080", "containerport: 8080", "service.yaml:21: spec.template.spec"
     ".containers[0].ports[0].containerport: unknown key; did you mean 'containerPort'?"),
    ("service", "image: app", "image: nginx", "service.yaml:19: spec.template.spec.containers[0]"
     ".image: one container must have the image 'app', the placeholder"),
    ("service", "name: app", "name: web", "service.yaml:7: metadata.name: is 'web', but the"
     " folder is pipelines/app/"),
    ("smoke", "/health #", "/healthz #", "smoke.yaml:7: [1].path: Google's front end answers"
     " /healthz itself"),
    ("smoke", "path: /health", "pth: /health", "smoke.yaml:7: [1].pth: unknown key; did you mean"
     " 'path'?"),
    ("smoke", "within: 5s", "status: ayn", "smoke.yaml:10: [1].expect.status: unknown value 'ayn';"
     " did you mean 'any'?"),
    ("smoke", "within: 5s", "status: 99", "smoke.yaml:10: [1].expect.status: expected a whole"
     " number >= 100"),
    ("smoke", "within: 5s", "status: yes", "smoke.yaml:10: [1].expect.status: expected a whole"
     " number or any, got true or false"),
    ("smoke", "within: 5s", "within: 5", "smoke.yaml:10: [1].expect.within: expected text, got a"
     " whole number (put it in quotes)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "error"), WRONG, ids=[error.split(":")[-1][:40] for *_, error in WRONG]
)
def test_an_error_names_its_place(project: Path, file: str, old: str, new: str, error: str) -> None:
    path = project / "pipelines" / "app" / f"{file}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        pipelines.load(project, "app", file if file in ("local", "production") else "local")
    assert caught.value.message.startswith(f"pipelines/app/{error}"), caught.value.message


def test_a_missing_file_is_named(project: Path) -> None:
    (project / "pipelines/app/smoke.yaml").unlink()
    with pytest.raises(UsageError, match=r"^pipelines/app/smoke\.yaml: no such file$"):
        pipelines.load(project, "app", "local")


def test_an_unknown_environment_lists_the_known_ones(project: Path) -> None:
    with pytest.raises(UsageError) as caught:
        pipelines.load(project, None, "prod")
    assert "no environment 'prod'" in caught.value.message
    assert caught.value.hint == "did you mean 'production'?"


def test_an_unknown_service_lists_the_known_ones(project: Path) -> None:
    with pytest.raises(UsageError) as caught:
        pipelines.load(project, "web", "local")
    assert "no service 'web'" in caught.value.message
    assert caught.value.hint == "services here: app"


@pytest.mark.parametrize(
    ("word", "option"),
    [("production", "--env production"), ("35", "promote --to 35"), ("35%", "promote --to 35")],
)
def test_what_is_no_service_but_an_option_is_explained(
    project: Path, word: str, option: str
) -> None:
    with pytest.raises(UsageError) as caught:
        pipelines.load(project, word, "local")
    assert option in caught.value.hint


def test_with_two_services_one_must_be_named(project: Path) -> None:
    shutil.copytree(project / "pipelines/app", project / "pipelines/api")
    with pytest.raises(UsageError, match="name the service: api, app"):
        pipelines.load(project, None, "local")


@pytest.mark.parametrize("text", ["", "# none\n", "[]"])
def test_a_service_without_checks_must_answer(project: Path, text: str) -> None:
    (project / "pipelines/app/smoke.yaml").write_text(text)
    assert pipelines.load(project, "app", "local").checks == [BUILT_IN]


def test_declared_checks_replace_the_built_in_one(project: Path) -> None:
    (project / "pipelines/app/smoke.yaml").write_text("- path: /ready\n")
    [check] = pipelines.load(project, "app", "local").checks
    assert (check.path, check.expect.status, check.expect.commit) == ("/ready", 200, None)


@pytest.mark.parametrize("root", [ROOT, ROOT / "tests"], ids=["ours", "tests"])
def test_the_schema_accepts_what_the_types_accept(root: Path) -> None:
    made = schemas()
    assert pipelines.services(root)
    for name in pipelines.services(root):
        for file in [*pipelines.environments(root, name), "smoke"]:
            pipelines.load(root, name, file if file != "smoke" else "local")
            text = (root / "pipelines" / name / f"{file}.yaml").read_text()
            # The line by which editors find the schema.
            line = re.match(r"# yaml-language-server: \$schema=\.\./(\S+)\n", text)
            assert line, file
            assert line[1] == ("smoke.schema.json" if file == "smoke" else "schema.json")
            jsonschema.validate(yaml.safe_load(text), made[line[1]])


@pytest.mark.parametrize(
    "wrong", ["- pth: /", "- path: health", "- {path: /, expect: {status: some}}", "path: /",
              "- {path: /, expect: {status: 42}}", "- {path: /, expect: {within: 5}}"],
)  # fmt: skip
def test_the_schema_of_checks_refuses_what_the_types_refuse(project: Path, wrong: str) -> None:
    (project / "pipelines/app/smoke.yaml").write_text(wrong)
    with pytest.raises(UsageError, match=r"^pipelines/app/smoke\.yaml:1: "):
        pipelines.load(project, "app", "local")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(wrong), schemas()["smoke.schema.json"])


def test_the_schema_refuses_what_the_types_refuse() -> None:
    schema_file = schemas()["schema.json"]
    wrong = yaml.safe_load((ROOT / "tests/pipelines/app/local.yaml").read_text())
    wrong["rollout"]["stepz"] = [10]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema_file)


def test_the_schema_is_generated_from_the_types() -> None:
    """`nox -s schema` writes it; it is never edited by hand."""
    for file, made in schemas().items():
        assert json.loads((ROOT / "pipelines" / file).read_text()) == made
