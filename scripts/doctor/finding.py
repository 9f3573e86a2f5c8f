"""The result of one check, and how an error becomes one."""

from __future__ import annotations

from typing import Literal

import msgspec

from scripts.cloud import known_errors
from scripts.cloud.google import ApiError
from scripts.cloud.known_errors import Explanation
from scripts.errors import ShipError


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report.

    Attributes:
        check: the name of the check, one word.
        state: "skipped" if the check could not run, which is not a problem; "warning" for what
            a delivery goes well with, and should still be changed.
        found: the current state, or the problem.
        fix: the command or change that fixes the problem; "" without one.
        known: the name of the error in `known_errors.TABLE`, if it is one.
    """

    check: str
    state: Literal["ok", "wrong", "warning", "skipped"]
    found: str
    fix: str = ""
    known: str = ""


def ok(check: str, found: str) -> Finding:
    """Report that something is right."""
    return Finding(check=check, state="ok", found=found)


def wrong(check: str, found: str, fix: str, known: str = "") -> Finding:
    """Report a problem and its fix."""
    return Finding(check=check, state="wrong", found=found, fix=fix, known=known)


def warning(check: str, found: str, fix: str) -> Finding:
    """Report what a delivery goes well with, and should still be changed."""
    return Finding(check=check, state="warning", found=found, fix=fix)


def skipped(check: str, why: str) -> Finding:
    """Report that a check could not run."""
    return Finding(check=check, state="skipped", found=why)


def of_error(
    check: str, error: ShipError, context: dict[str, str], *, looking: bool = False
) -> Finding:
    """Report an error, with its explanation if it is known.

    Args:
        check: the name of the check.
        error: the error that the check met.
        context: as for `known_errors.explain`, and project number -> ID.
        looking: whether only the doctor reads this. A missing permission is then not a problem.
    """
    explanation = known_errors.explain_error(error, **context)
    if explanation:
        names = {number: name for number, name in context.items() if number.isdecimal()}
        explanation = _named(explanation, names)
    denied = isinstance(error, ApiError) and error.code == 403
    if looking and denied and (explanation is None or explanation.name == "permission-denied"):
        problem = explanation.means if explanation else error.message
        return skipped(check, f"these credentials may not read it: {problem}")
    if explanation:
        return wrong(check, explanation.means, explanation.fix, explanation.name)
    return wrong(check, error.message, error.hint or "")


def _named(explanation: Explanation, names: dict[str, str]) -> Explanation:
    """Replace project numbers by IDs: Google's errors name projects by number."""
    means, fix = explanation.means, explanation.fix
    for number, name in names.items():
        means, fix = means.replace(number, name), fix.replace(number, name)
    return Explanation(name=explanation.name, means=means, fix=fix)
