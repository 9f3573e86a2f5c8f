"""The faults that are active, and the errors that they cause."""

from __future__ import annotations

from typing import Any

import msgspec

from emulator.errors import ApiError, error_info
from emulator.faults.calls import Calls
from emulator.faults.settings import BILLING, CLOCK, QUOTA, CallFault, Clock, Fault, Quota
from emulator.names import project_number

Document = dict[str, Any]


class Faults:
    """The faults that are active.

    Attributes:
        calls: The calls of the APIs, and the faults that strike single ones.
    """

    def __init__(self) -> None:
        self._active: dict[str, Fault] = {}
        self.calls = Calls()

    def start(self, fault: Fault) -> None:
        """Start a fault; it takes the place of an active one of the same name."""
        if isinstance(fault, CallFault):
            self.calls.start(fault)
        else:
            self._active[fault.name] = fault

    def end(self, name: str) -> None:
        """End a fault; raises ApiError NOT_FOUND for one that is not active."""
        if not self.calls.end(name) and self._active.pop(name, None) is None:
            raise ApiError("NOT_FOUND", f"The fault '{name}' is not active.")

    def all(self) -> list[Document]:
        """Return the settings of every active fault; of calls, also how many it has met."""
        others = [msgspec.to_builtins(fault) for fault in self._active.values()]
        return others + [strike.document for strike in self.calls.strikes.values()]

    def active(self, name: str) -> Fault | None:
        """Return the settings of a fault, except of one of calls; None if it is not active."""
        return self._active.get(name)

    def is_active(self, name: str) -> bool:
        """Return whether a fault is active."""
        return name in self._active

    def skew(self) -> float:
        """Return how many seconds Google's clock is ahead."""
        fault = self._active.get(CLOCK)
        return fault.seconds if isinstance(fault, Clock) else 0.0

    def check_quota(self, api: str, project: str) -> None:
        """Raise ApiError RESOURCE_EXHAUSTED while the quota of an API is used up."""
        fault = self._active.get(QUOTA)
        if not isinstance(fault, Quota) or fault.service != api:
            return
        number = project_number(project)
        where = "https://console.cloud.google.com/iam-admin/quotas"
        raise ApiError(
            "RESOURCE_EXHAUSTED",
            "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute "
            f"per region' of service '{api}' for consumer 'project_number:{number}'.",
            [
                error_info(
                    "RATE_LIMIT_EXCEEDED",
                    "googleapis.com",
                    {
                        "consumer": f"projects/{number}",
                        "quota_limit": "WritePerMinutePerProjectRegion",
                        "quota_metric": f"{api}/write_regional",
                        "service": api,
                    },
                ),
                {
                    "@type": "type.googleapis.com/google.rpc.Help",
                    "links": [{"description": "Request a higher quota limit.", "url": where}],
                },
            ],
        )

    def check_billing(self, number: str, names: list[str]) -> None:
        """Raise ApiError FAILED_PRECONDITION while a project has no billing account.

        Args:
            number: The project's number.
            names: The APIs to enable.
        """
        if BILLING not in self._active:
            return
        listed = ",".join(names)
        raise ApiError(
            "FAILED_PRECONDITION",
            f"Billing account for project '{number}' is not found. Billing must be enabled for "
            f"activation of service(s) '{listed}' to proceed.",
            [
                error_info(
                    "UREQ_PROJECT_BILLING_NOT_FOUND",
                    "serviceusage.googleapis.com/billing-enabled",
                    {"project": number, "services": listed},
                )
            ],
        )
