"""The rules for names, labels and the scaling annotations.

Source: https://cloud.google.com/run/docs/configuring/services/labels (keys and values) and
https://cloud.google.com/run/docs/configuring/min-instances. Cloud Run also accepts keys with a
system's prefix: gcloud sends client.knative.dev/nonce. The messages about
labels and scaling are Shipway's own.
"""

from __future__ import annotations

import re

from emulator.errors import invalid
from emulator.run import schema

# RFC 1035 label: the form of service names, revision names and tags.
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

_MOST_LABELS = 64
_LONGEST = 63
_SYSTEM = re.compile(r"([a-z0-9-]+\.)*(googleapis\.com|knative\.dev|kubernetes\.io)/[\w.-]{1,63}")
# Of a revision, and of a service.
_BOUNDS = ("autoscaling.knative.dev", "run.googleapis.com")


def check_service_name(name: str) -> None:
    """Raise a 400 ApiError for an invalid name of a service."""
    if len(name) > 49 or not LABEL.fullmatch(name):
        raise invalid(
            "must use only lowercase alphanumeric characters and dashes, cannot begin or end with "
            "a dash or begin with a digit, and cannot be longer than 49 characters.",
            "metadata.name",
        )


def check_revision_name(name: str, service_name: str) -> None:
    """Raise a 400 ApiError for an invalid name of a revision of the service."""
    field = "spec.template.metadata.name"
    if not name.startswith(f"{service_name}-"):
        raise invalid(f"must be prefixed by the service's name and a dash: {service_name}-.", field)
    if len(name) > 63 or not LABEL.fullmatch(name):
        raise invalid(
            "must use only lowercase alphanumeric characters and dashes, cannot begin or end with "
            "a dash, and cannot be longer than 63 characters.",
            field,
        )


def check_metadata(metadata: schema.ObjectMeta | None, where: str) -> None:
    """Raise a 400 ApiError for invalid labels or scaling annotations."""
    if metadata is None:
        return
    labels = metadata.labels or {}
    if len(labels) > _MOST_LABELS:
        raise invalid(f"at most {_MOST_LABELS} labels are supported.", f"{where}.labels")
    for key, value in labels.items():
        field = f"{where}.labels[{key}]"
        if _SYSTEM.fullmatch(key):
            continue
        if not key or not key[0].isalpha() or not _is_plain(key):
            raise invalid(
                "a label's key must start with a lowercase letter and use only lowercase letters, "
                "digits, dashes and underscores, at most 63 of them.",
                field,
            )
        if not _is_plain(value):
            raise invalid(
                "a label's value must use only lowercase letters, digits, dashes and underscores, "
                "at most 63 of them.",
                field,
            )
    _check_scale(metadata.annotations or {}, f"{where}.annotations")


def _is_plain(text: str) -> bool:
    # Letters of alphabets without upper case count as lowercase.
    good = all(c in "-_" or c.isdigit() or (c.isalpha() and c == c.lower()) for c in text)
    return good and len(text) <= _LONGEST


def _check_scale(annotations: dict[str, str], where: str) -> None:
    for prefix in _BOUNDS:
        minimum, maximum = f"{prefix}/minScale", f"{prefix}/maxScale"
        found = {}
        for name, least in ((minimum, 0), (maximum, 1)):
            if (value := annotations.get(name)) is not None:
                if not re.fullmatch(r"\d{1,9}", value) or int(value) < least:
                    raise invalid(f"must be a number, {least} or more.", f"{where}[{name}]")
                found[name] = int(value)
        if found.get(minimum, 0) > found.get(maximum, found.get(minimum, 0)):
            raise invalid(
                f"must not be greater than {maximum}, {found[maximum]}.", f"{where}[{minimum}]"
            )
