"""Who calls: a principal and the sets it is in, written as IAM policies write members.

Source: https://cloud.google.com/iam/docs/principal-identifiers.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from emulator.errors import invalid
from emulator.names import project_number

_EMAIL = re.compile(r"[^@\s:/]+@[^@\s:/]+")
_ACCOUNT = re.compile(r"(?P<project>[^@.]+)\.iam\.gserviceaccount\.com")
_DEFAULT_ACCOUNT = re.compile(r"(?P<number>\d+)-compute@developer\.gserviceaccount\.com")


@dataclass(frozen=True)
class Principal:
    """`name` is the member that means this principal alone; `sets` are those that include it."""

    name: str
    sets: tuple[str, ...] = ()

    @property
    def email(self) -> str | None:
        """The e-mail of a user or service account; None for a federated identity."""
        kind, _, email = self.name.partition(":")
        return email if kind in ("user", "serviceAccount") else None

    def is_member(self, member: str) -> bool:
        """Whether a policy's member means this principal.

        Federated identities are not among allAuthenticatedUsers, as Google documents.
        """
        if member == "allUsers" or member == self.name or member in self.sets:
            return True
        return member == "allAuthenticatedUsers" and self.email is not None


def service_account(email: str) -> Principal:
    """A service account; raises ApiError INVALID_ARGUMENT when it is no e-mail."""
    return Principal(f"serviceAccount:{checked_email(email)}")


def checked_email(email: str) -> str:
    """Return `email`, or raise ApiError INVALID_ARGUMENT."""
    if not _EMAIL.fullmatch(email):
        raise invalid("Invalid form of account ID. Should be [Gaia ID |Email |Unique ID].", "name")
    return email


def project_of(email: str) -> str | None:
    """The ID or number of the project that a service account belongs to; None for no account."""
    if found := _DEFAULT_ACCOUNT.fullmatch(email):
        return found["number"]
    found = _ACCOUNT.fullmatch(email.partition("@")[2])
    return found["project"] if found else None


def unique_id(email: str) -> str:
    """The 21-digit ID of an account: made up, but always the same one."""
    number = int.from_bytes(hashlib.sha256(email.encode()).digest()[:8], "big")
    return f"1{number:020d}"


def pool_name(project: str, pool: str) -> str:
    """A workload identity pool's name, with its project's number as Google writes it."""
    number = project_number(project)
    return f"projects/{number}/locations/global/workloadIdentityPools/{pool}"


def federated(pool: str, subject: str, attributes: dict[str, str], groups: list[str]) -> Principal:
    """An identity of a workload identity pool, with the sets that its attributes put it in.

    `pool` is its name as `pool_name` gives it; `attributes` are those mapped to `attribute.NAME`.
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
