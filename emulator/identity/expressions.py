"""Attribute mappings and conditions, in Common Expression Language by the library `cel`.

Source: https://cloud.google.com/iam/docs/workload-identity-federation#mapping. Google's own
additions to the language (`extract`, `split`, `join`) are not there.
"""

from __future__ import annotations

from typing import Any


class BadExpression(Exception):
    """An expression that cannot be read, or has no value for these claims."""


def check(expression: str) -> None:
    """Read an expression; raises BadExpression when it is not well formed."""
    # Imported late: it is a large library, and most local Cloud Runs federate nothing.
    import cel

    try:
        cel.compile(expression)
    except Exception as error:  # the library documents no narrower type
        raise BadExpression(str(error)) from error


def evaluate(expression: str, variables: dict[str, Any]) -> Any:
    """The value of an expression; raises BadExpression, also where a claim is missing."""
    import cel

    try:
        return cel.evaluate(expression, variables)
    except Exception as error:  # as above
        raise BadExpression(str(error)) from error
