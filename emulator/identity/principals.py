"""Principals: callers, written as IAM policies write members.

Source: https://cloud.google.com/iam/docs/principal-identifiers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from emulator.errors import invalid
from emulator.hashes import number_of
from emulator.names import project_number

_EMAIL = re.compile(r"[^@\s:/]+@[^@\s:/]+")
_ACCOUNT = re.compile(r"(?P<project>[^@.]+)\.iam\.gserviceaccount\.com")
_DEFAULT_ACCOUNT = re.compile(r"(?P<number>\d+)-compute@developer\.gserviceaccount\.com")


@dataclass(frozen=True)
class Principal:
    """A caller.

    Attributes:
        name: The member that stands for this principal only.
        sets: The members that stand for this principal and others.
    """

    name: str
    sets: tuple[str, ...] = ()

    @property
    def email(self) -> str | None:
        """The e-mail of a user or service account; None for a federated identity."""
        kind, _, email = self.name.partition(":")
        return email if kind in ("user", "serviceAccount") else None

    def is_member(self, member: str) -> bool:
        """Return whether a policy's member stands for this principal.

        As Google documents, allAuthenticatedUsers does not include federated identities.
        """
        if member == "allUsers" or member == self.name or member in self.sets:
            return True
        return member == "allAuthenticatedUsers" and self.email is not None


def service_account(email: str) -> Principal:
    """Return a service account; raises ApiError INVALID_ARGUMENT for a malformed e-mail."""
    return Principal(f"serviceAccount:{checked_email(email)}")


def checked_email(email: str) -> str:
    """Return `email`; raises ApiError INVALID_ARGUMENT for a malformed one."""
    if not _EMAIL.fullmatch(email):
        raise invalid("Invalid form of account ID. Should be [Gaia ID |Email |Unique ID].", "name")
    return email


def project_of(email: str) -> str | None:
    """Return the ID or number of a service account's project; None for another e-mail."""
    if found := _DEFAULT_ACCOUNT.fullmatch(email):
        return found["number"]
    found = _ACCOUNT.fullmatch(email.partition("@")[2])
    return found["project"] if found else None


def unique_id(email: str) -> str:
    """Return the 21-digit ID of an account: made up, and always the same for an e-mail."""
    return f"1{number_of(email):020d}"


def pool_name(project: str, pool: str) -> str:
    """Return the full name of a workload identity pool, with its project's number."""
    number = project_number(project)
    return f"projects/{number}/locations/global/workloadIdentityPools/{pool}"


def federated(pool: str, subject: str, attributes: dict[str, str], groups: list[str]) -> Principal:
    """Return an identity of a workload identity pool.

    Args:
        pool: The pool's full name.
        subject: The value of `google.subject`.
        attributes: The values of `attribute.NAME`, by NAME.
        groups: The value of `google.groups`.
    """
    base = f"//iam.googleapis.com/{pool}"
    return Principal(
        f"principal:{base}/subject/{subject}",
        (
            f"principalSet:{base}/*",
            *(
                f"principalSet:{base}/attribute.{name}/{value}"
                for name, value in attributes.items()
            ),
            *(f"principalSet:{base}/group/{group}" for group in groups),
        ),
    )
