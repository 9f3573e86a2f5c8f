"""The rules for labels and for the annotations that scale.

Source: https://cloud.google.com/run/docs/configuring/services/labels (keys and values) and
https://cloud.google.com/run/docs/configuring/min-instances. That keys with a system's prefix are
taken too is seen with gcloud, which sends client.knative.dev/nonce. The messages are ours.
"""

from __future__ import annotations

import re

from emulator.errors import invalid
from emulator.run import schema

_MOST_LABELS = 64
_LONGEST = 63
_SYSTEM = re.compile(r"([a-z0-9-]+\.)*(googleapis\.com|knative\.dev|kubernetes\.io)/[\w.-]{1,63}")
_MINIMUM = "autoscaling.knative.dev/minScale"
_MAXIMUM = "autoscaling.knative.dev/maxScale"


def check_metadata(metadata: schema.ObjectMeta | None, where: str) -> None:
    """Raise a 400 ApiError for labels or scaling annotations that cannot be."""
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
    # Letters of alphabets that know no upper case count as lowercase.
    good = all(c in "-_" or c.isdigit() or (c.isalpha() and c == c.lower()) for c in text)
    return good and len(text) <= _LONGEST


def _check_scale(annotations: dict[str, str], where: str) -> None:
    found = {}
    for name, least in ((_MINIMUM, 0), (_MAXIMUM, 1)):
        if (value := annotations.get(name)) is not None:
            if not re.fullmatch(r"\d{1,9}", value) or int(value) < least:
                raise invalid(f"must be a number, {least} or more.", f"{where}[{name}]")
            found[name] = int(value)
    if found.get(_MINIMUM, 0) > found.get(_MAXIMUM, found.get(_MINIMUM, 0)):
        raise invalid(
            f"must not be greater than {_MAXIMUM}, {found[_MAXIMUM]}.", f"{where}[{_MINIMUM}]"
        )
