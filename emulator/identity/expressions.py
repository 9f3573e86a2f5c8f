"""Attribute mappings and conditions, in Common Expression Language with the library `cel`.

Source: https://cloud.google.com/iam/docs/workload-identity-federation#mapping. Google's own
additions to the language (`extract`, `split`, `join`) are missing here.
"""

from __future__ import annotations

from typing import Any


class BadExpression(Exception):
    """An expression that cannot be parsed, or that has no value for these claims."""


def check(expression: str) -> None:
    """Parse an expression; raises BadExpression for a malformed one."""
    # Imported late: the library is large, and most local Cloud Runs have no provider.
    import cel

    try:
        cel.compile(expression)
    except Exception as error:  # the library documents no narrower type
        raise BadExpression(str(error)) from error


def evaluate(expression: str, variables: dict[str, Any]) -> Any:
    """Return the value of an expression; raises BadExpression, also where a claim is missing."""
    import cel

    try:
        return cel.evaluate(expression, variables)
    except Exception as error:  # as above
        raise BadExpression(str(error)) from error
