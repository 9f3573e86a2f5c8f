"""pipelines/services.yaml: what it means, and an error that names the line for each mistake."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from scripts.config import pipelines, relations
from scripts.config.formats import schemas
from scripts.errors import UsageError

MANIFEST = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: {name}}}
spec: {{template: {{spec: {{containers: [{{name: main, image: app, ports: [{{containerPort: 80}}],
  env: [{{name: OWN_URL, value: x}}]}}, {{name: side, image: "x/y/z@sha256:{zeros}",
  env: [{{name: SIDE_URL, value: x}}]}}]}}}}}}
"""
LOCAL = """\
project: shipway-local
regions: [local-one1]
registry: localhost:1/shipway-local/services
overlay: {spec: {template: {spec: {containers: [{name: main, env: [{name: OVER_URL, value: x}]}]}}}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    for name in ("ai", "api", "chat", "todo-list"):
        folder = root / "pipelines" / name
        folder.mkdir(parents=True)
        (folder / "service.yaml").write_text(MANIFEST.format(name=name, zeros="0" * 64))
        (folder / "local.yaml").write_text(LOCAL)
        (folder / "smoke.yaml").write_text("")
    (root / "pipelines/api/staging.yaml").write_text(LOCAL)
    (root / "libs/common").mkdir(parents=True)
    (root / "libs/two words").mkdir()
    (root / "more/Common").mkdir(parents=True)
    (root / "libs/file").touch()
    (root / "libs/inside").symlink_to("common")
    (root / "libs/outside").symlink_to(root.parent)
    return root


def write(root: Path, text: str) -> Path:
    (root / relations.FILE).write_text(text)
    return root


def test_calls_and_shared_folders(root: Path) -> None:
    text = """\
# yaml-language-server: $schema=services.schema.json
calls:
  api: [todo-list, ai]
  ai: {todo-list: STORE}
shared:
  libs/common/: [ai, api]
"""
    jsonschema.validate(yaml.safe_load(text), schemas()["services.schema.json"])
    found = relations.read(write(root, text))
    assert found.calls == {
        "api": {"todo-list": "TODO_LIST_URL", "ai": "AI_URL"},
        "ai": {"todo-list": "STORE"},
    }
    assert found.shared == {"libs/common": ["ai", "api"]}
    assert found.contexts("api") == {"common": "libs/common"}
    assert found.contexts("chat") == {}
    assert found.callees("api") == ["ai", "todo-list"]
    assert found.callees("chat") == []
    assert found.in_order(["chat", "api", "ai"]) == ["ai", "api", "chat"]
    everything = found.in_order(pipelines.services(root))
    assert everything == ["todo-list", "ai", "api", "chat"]
    api = pipelines.load(root, "api", "local")
    found_by_name = [(one.pipeline.service, one.variable) for one in relations.calls_of(api)]
    assert found_by_name == [("ai", "AI_URL"), ("todo-list", "TODO_LIST_URL")]


def test_a_callee_of_a_callee_comes_first(root: Path) -> None:
    found = relations.read(write(root, "calls: {ai: [chat], chat: [todo-list]}"))
    assert found.in_order(["ai", "todo-list"]) == ["todo-list", "ai"]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", None])
def test_without_a_file_nothing_is_related(root: Path, text: str | None) -> None:
    write(root, text or "")
    if text is None:
        (root / relations.FILE).unlink()
    assert relations.read(root) == relations.Relations()


WRONG = [
    ("calls:\n  api: [aj]\n", "2: calls.api[0]: no service 'aj'", "services here: ai, api"),
    ("calls:\n  apy: [ai]\n", "2: calls.apy: no service 'apy'", "did you mean 'api'?"),
    ("calls:\n  api:\n    ai: X\n    chats: Y\n", "4: calls.api.chats: no service", "'chat'?"),
    ("calls:\n  ai: [ai]\n", "2: calls.ai[0]: ai calls itself", "remove it"),
    ("calls:\n  api: [ai, ai]\n", "2: calls.api[1]: 'ai' appears twice", "remove"),
    ("calls:\n  api: ai\n", "2: calls.api: expected a list or a mapping, got text", ""),
    ("calls:\n  api: {ai: 3}\n", "2: calls.api.ai: expected text, got a whole number", ""),
    ("calls:\n  api: [3]\n", "2: calls.api[0]: expected text, got a whole number", ""),
    ("calls:\n", "1: calls: expected a mapping, got nothing", ""),
    ("call:\n  api: [ai]\n", "1: call: unknown key; did you mean 'calls'?", ""),
    ("calls:\n  api: {ai: A-B}\n", "2: calls.api.ai: 'A-B' is not an environment variable's", ""),
    ("calls:\n  api: {ai: ''}\n", "2: calls.api.ai: '' is not an environment variable's", ""),
    ("calls:\n  api: {ai: PORT}\n", "2: calls.api.ai: Cloud Run sets PORT itself", "another"),
    ("calls:\n  api: {ai: K_SERVICE}\n", "2: calls.api.ai: Cloud Run sets K_SERVICE", "another"),
    ("calls:\n  api: {ai: X_GOOGLE_A}\n", "2: calls.api.ai: Cloud Run sets X_GOOGLE_A", ""),
    ("calls:\n  api: {ai: A, chat: A}\n", "2: calls.api.chat: A is already the URL of ai", ""),
    ("calls:\n  api: [ai]\n  ai: [chat]\n  chat: [api]\n",
     "4: calls.chat[0]: the services call each other in a circle: api -> ai -> chat -> api", ""),
    ("calls:\n  api: [ai]\n  ai: [api]\n", "3: calls.ai[0]: the services call each other in a"
     " circle: api -> ai -> api", "remove one of these calls"),
    ("shared:\n  libs/common: [aj]\n", "2: shared.libs/common[0]: no service 'aj'", "ai, api"),
    ("shared:\n  ../x: [ai]\n", "2: shared.../x: '../x' is not a folder inside", "relative"),
    ("shared:\n  /etc: [ai]\n", "2: shared./etc: '/etc' is not a folder inside", "relative"),
    ("shared:\n  .: [ai]\n", "2: shared..: '.' is not a folder inside the repository", ""),
    ("shared:\n  libs/comon: [ai]\n", "2: shared.libs/comon: libs/comon does not exist", ""),
    ("shared:\n  libs/file: [ai]\n", "2: shared.libs/file: libs/file is not a folder", ""),
    ("shared:\n  libs/outside: [ai]\n", "2: shared.libs/outside: libs/outside is a link that leads"
     " outside the repository", ""),
    ("shared:\n  libs/inside: [ai]\n", "2: shared.libs/inside: libs/inside is a link",
     "name the folder itself: libs/common"),
    ("shared:\n  libs/common: [ai, api]\n  more/Common: [api]\n", "3: shared.more/Common: api also"
     " uses libs/common, and COPY --from=common would mean both", "rename one"),
    ("shared:\n  libs/two words: [ai]\n", "2: shared.libs/two words: 'two words' cannot be a"
     " name in a Dockerfile", "rename the folder"),
    ("shared:\n  libs/common: [ai]\n  libs/common/: [api]\n", "3: shared.libs/common/: the folder"
     " libs/common appears twice", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message", "hint"), WRONG, ids=[one[1] for one in WRONG])
def test_an_error_names_the_line(root: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refusal:
        relations.read(write(root, text))
    assert refusal.value.message.startswith(f"pipelines/services.yaml:{message}")
    assert hint in (refusal.value.hint or "")


@pytest.mark.parametrize(
    ("env", "text", "message"),
    [
        ("local", "{ai: OWN_URL}", "OWN_URL is set by pipelines/api/service.yaml as well"),
        ("local", "{ai: OVER_URL}", "OVER_URL is set by pipelines/api/local.yaml as well"),
        ("staging", "{ai: A}", "api calls ai, which has no environment 'staging'"),
    ],
)
def test_what_one_environment_cannot_have(root: Path, env: str, text: str, message: str) -> None:
    api = pipelines.load(write(root, f"calls:\n  api: {text}\n"), "api", env)
    with pytest.raises(UsageError) as refusal:
        relations.calls_of(api)
    assert refusal.value.message.startswith(f"pipelines/services.yaml:2: calls.api.ai: {message}")


def test_a_sidecar_may_have_a_variable_of_the_same_name(root: Path) -> None:
    api = pipelines.load(write(root, "calls: {api: {ai: SIDE_URL}}"), "api", "local")
    assert [one.variable for one in relations.calls_of(api)] == ["SIDE_URL"]
