"""Fuzzing: documents and requests that are almost right, for every door of Shipway.

There is one file for each door. The suite runs a few examples, always the same ones. `nox -s
torture` runs many, which differ each time, and prints the seed. What fuzzing found is kept beside
each test as a list of examples.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# How long a torture is: 1 is a few minutes. 0, the default, is the suite.
LONG = float(os.environ.get("SHIPWAY_TORTURE", 0))


def fuzz(examples: int, *, long: int) -> settings:
    """Return how often a test runs: `examples` times in the suite, `long` times in a torture."""
    return settings(
        max_examples=max(examples, int(long * LONG)),
        derandomize=not LONG,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[*HealthCheck],
    )
