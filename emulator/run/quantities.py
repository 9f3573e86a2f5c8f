"""Quantities of CPU and memory, as Kubernetes writes them.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.
"""

from __future__ import annotations

import re

# At most as many digits as 2^63 has, which is Kubernetes's largest amount.
_QUANTITY = re.compile(r"(\d{1,19}(?:\.\d{0,9})?|\.\d{1,9})([A-Za-z]*)")
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_DECIMAL = {"m": 0.001, "": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SUFFIXES: dict[str, float] = _BINARY | _DECIMAL


def amount(quantity: str) -> float:
    """Return a Kubernetes quantity in its base unit: "512Mi" in bytes, "1000m" CPU in CPUs.

    Raises:
        ValueError: `quantity` is not one.
    """
    found = _QUANTITY.fullmatch(quantity)
    if found is None or found[2] not in _SUFFIXES:
        raise ValueError(quantity)
    return float(found[1]) * _SUFFIXES[found[2]]
