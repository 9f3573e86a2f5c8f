"""What one check found, and how an error becomes a finding."""

from __future__ import annotations

from typing import Literal

import msgspec

from scripts.cloud import known_errors
from scripts.cloud.google import ApiError
from scripts.cloud.known_errors import Explanation
from scripts.errors import ShipError


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line.

    Attributes:
        check: what was looked at, one word.
        state: "skipped" is what could not be looked at, for a reason that is no fault.
        found: what is there, or what is wrong.
        mend: the one command that mends it; "" unless something is wrong.
        known: the name of the error in `known.TABLE`, if it is one.
    """

    check: str
    state: Literal["ok", "wrong", "skipped"]
    found: str
    mend: str = ""
    known: str = ""


def ok(check: str, found: str) -> Finding:
    """Something is as it should be."""
    return Finding(check=check, state="ok", found=found)


def wrong(check: str, found: str, mend: str, known: str = "") -> Finding:
    """Something is not as it should be, and this mends it."""
    return Finding(check=check, state="wrong", found=found, mend=mend, known=known)


def skipped(check: str, why: str) -> Finding:
    """Something could not be looked at."""
    return Finding(check=check, state="skipped", found=why)


def of_error(
    check: str, error: ShipError, context: dict[str, str], *, looking: bool = False
) -> Finding:
    """An error as a finding, in the words of `known` where it is known.

    Args:
        check: what was looked at.
        error: what came of it.
        context: as for `known.explain`; a key that is a project's number holds its ID.
        looking: the error came of looking at what a delivery does not look at: that these
            credentials may not is no fault.
    """
    explanation = known_errors.explain_error(error, **context)
    if explanation:
        names = {number: name for number, name in context.items() if number.isdecimal()}
        explanation = _named(explanation, names)
    denied = isinstance(error, ApiError) and error.code == 403
    if looking and denied and (explanation is None or explanation.name == "permission-denied"):
        says = explanation.says if explanation else error.message
        return skipped(check, f"not for these credentials to see: {says}")
    if explanation:
        return wrong(check, explanation.says, explanation.mend, explanation.name)
    return wrong(check, error.message, error.hint or "")


def _named(explanation: Explanation, names: dict[str, str]) -> Explanation:
    """An explanation with the projects' IDs in the place of their numbers."""
    says, mend = explanation.says, explanation.mend
    for number, name in names.items():
        says, mend = says.replace(number, name), mend.replace(number, name)
    return Explanation(name=explanation.name, says=says, mend=mend)
