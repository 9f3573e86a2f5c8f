"""An image reference is read as registries' clients read it, and written back unchanged."""

from __future__ import annotations

import pytest

from scripts.config.image_reference import ImageReference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "host", "path", "tag", "digest"),
    [
        ("nginx", "", "nginx", "", ""),
        ("nginx:1.27", "", "nginx", "1.27", ""),
        ("library/nginx:1.27", "", "library/nginx", "1.27", ""),
        ("localhost/app", "localhost", "app", "", ""),
        ("127.0.0.1:8787/acme/services/app", "127.0.0.1:8787", "acme/services/app", "", ""),
        (f"eu.gcr.io/acme/app@{DIGEST}", "eu.gcr.io", "acme/app", "", DIGEST),
        (f"h.example:5000/a/b:v1@{DIGEST}", "h.example:5000", "a/b", "v1", DIGEST),
        ("", "", "", "", ""),
    ],
)
def test_parts(text: str, host: str, path: str, tag: str, digest: str) -> None:
    reference = ImageReference.parse(text)
    assert reference == ImageReference(host=host, path=path, tag=tag, digest=digest)
    assert str(reference) == text


def test_other_images_of_the_same_repository() -> None:
    reference = ImageReference.parse(f"h.example/a/app:v1@{DIGEST}")
    assert str(reference.repository) == "h.example/a/app"
    assert str(reference.by_tag("v2")) == "h.example/a/app:v2"
    assert str(reference.by_digest(DIGEST)) == f"h.example/a/app@{DIGEST}"


def test_short_forms() -> None:
    reference = ImageReference.parse(f"h.example/a/app@{DIGEST}")
    assert reference.short_digest == "sha256:0123456789ab"
    assert reference.short == "app@sha256:0123456789ab"
    assert ImageReference.parse("nginx:1.27").short_digest == "nginx:1.27"
    assert ImageReference.parse("nginx:1.27").short == "nginx:1.27"
