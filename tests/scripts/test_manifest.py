"""From files to the manifest that is sent: pure, and the same bytes every time."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scripts.config import pipelines
from scripts.config.image_reference import ImageReference
from scripts.release import manifest

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
keys = st.sampled_from(["a", "b", "c", "name"])
named = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("xyz"), "value": st.integers()}),
    max_size=3,
    unique_by=lambda item: item["name"],
)
trees = st.recursive(scalars, lambda inner: st.dictionaries(keys, inner) | named, max_leaves=12)
mappings = st.dictionaries(keys, trees)


@given(mappings, mappings)
def test_an_overlay_changes_neither_of_its_inputs(base: Any, over: Any) -> None:
    before = copy.deepcopy((base, over))
    manifest.overlay(base, over)
    assert (base, over) == before


@given(mappings, mappings)
def test_an_overlay_laid_twice_is_laid_once(base: Any, over: Any) -> None:
    """I6."""
    once = manifest.overlay(base, over)
    assert manifest.overlay(once, over) == once


@given(mappings)
def test_an_empty_overlay_changes_nothing(base: Any) -> None:
    assert manifest.overlay(base, {}) == base


def test_lists_of_named_things_merge_by_name() -> None:
    base = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["x"]}
    over = {"env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}], "args": ["y"]}
    assert manifest.overlay(base, over) == {
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "3"},
            {"name": "C", "value": "4"},
        ],
        "args": ["y"],
    }


def test_null_removes_a_key() -> None:
    assert manifest.overlay({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": None}}) == {
        "b": {"d": 3}
    }


def _shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        pairs = [(key, _shuffled(item, chance)) for key, item in value.items()]
        chance.shuffle(pairs)
        return dict(pairs)
    return [_shuffled(item, chance) for item in value] if isinstance(value, list) else value


@given(st.randoms(use_true_random=False), st.sampled_from(["local", "staging", "production"]))
def test_the_same_input_renders_the_same_bytes(chance: random.Random, env: str) -> None:
    """The order of the keys in the files does not matter."""
    pipeline = pipelines.load(ROOT / "tests", "app", env)
    other = pipelines.Pipeline(
        service=pipeline.service,
        env=env,
        root=pipeline.root,
        checkout=pipeline.checkout,
        environment=pipeline.environment,
        checks=pipeline.checks,
        manifest=_shuffled(pipeline.manifest, chance),
        overlay=_shuffled(pipeline.overlay, chance),
    )
    image = ImageReference.parse("host/project/services/app@sha256:00")
    rendered = [
        manifest.to_bytes(
            manifest.render(p, commit=COMMIT, image=image, revision="app-0123456", urls={})
        )
        for p in (pipeline, other)
    ]
    assert rendered[0] == rendered[1]


def test_the_rendered_service() -> None:
    """I2: the image by digest, the commit as a label; I1: no traffic."""
    pipeline = pipelines.load(ROOT / "tests", "app", "production")
    image = ImageReference.parse("host/project/services/app@sha256:00")
    made = manifest.render(pipeline, commit=COMMIT, image=image, revision="app-0123456", urls={})
    template = made["spec"]["template"]
    assert template["metadata"]["name"] == "app-0123456"
    assert template["metadata"]["labels"] == {"commit-sha": COMMIT, "managed-by": "shipway"}
    assert made["metadata"]["annotations"]["run.googleapis.com/minScale"] == "1"
    assert template["metadata"]["annotations"]["autoscaling.knative.dev/maxScale"] == "10"
    assert template["spec"]["containers"][0]["image"] == str(image)
    assert made["metadata"]["namespace"] == "acme-prod"
    assert "traffic" not in made["spec"]


def test_a_failed_revision_is_retried_under_a_new_name() -> None:
    assert manifest.revision_name("app", COMMIT) == "app-0123456"
    assert manifest.revision_name("app", COMMIT, {"app-0123456"}) == "app-0123456-2"
    assert (
        manifest.revision_name("app", COMMIT, {"app-0123456", "app-0123456-2"}) == "app-0123456-3"
    )
