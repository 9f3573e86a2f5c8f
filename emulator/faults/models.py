"""The faults that are active, and the errors that they cause."""

from __future__ import annotations

from typing import Any

from emulator.errors import ApiError, error_info, invalid
from emulator.names import project_number

Document = dict[str, Any]

QUOTA = "quota-exceeded"
"""Each request to `service` (run.googleapis.com unless named) is over the quota."""
DOMAINS = "org-policy-domains"
"""constraints/iam.allowedPolicyMemberDomains: no policy may name allUsers."""
INVOKER = "org-policy-invoker"
"""constraints/run.managed.requireInvokerIam: no service may be open without a policy."""
BILLING = "no-billing"
"""The project has no billing account: no API can be enabled."""
TOKEN = "token-exchange"  # noqa: S105  (a fault's name)
"""The registry does not exchange the caller's credentials."""
CLOCK = "clock-skew"
"""Google's clock is `seconds` ahead of this machine's, according to the Date header."""
NAMES = (QUOTA, DOMAINS, INVOKER, BILLING, TOKEN, CLOCK)

_SKEW = 600.0  # seconds, unless the fault names others
_LARGEST_SKEW = 1e9


class Faults:
    """The faults that are active."""

    def __init__(self) -> None:
        self._active: dict[str, Document] = {}

    def start(self, settings: Document) -> None:
        """Start the fault that `settings` names; raises ApiError INVALID_ARGUMENT."""
        name = settings.get("name")
        if name not in NAMES:
            raise invalid(f"Expected one of {', '.join(NAMES)}.", "name")
        seconds = settings.get("seconds", _SKEW)
        if not isinstance(seconds, int | float) or not abs(seconds) < _LARGEST_SKEW:
            raise invalid("Expected a number of seconds.", "seconds")
        self._active[name] = settings

    def end(self, name: str) -> None:
        """End a fault; raises ApiError NOT_FOUND for one that is not active."""
        if self._active.pop(name, None) is None:
            raise ApiError("NOT_FOUND", f"The fault '{name}' is not active.")

    def all(self) -> list[Document]:
        """Return the settings of every active fault."""
        return [*self._active.values()]

    def is_active(self, name: str) -> bool:
        """Return whether a fault is active."""
        return name in self._active

    def skew(self) -> float:
        """Return how many seconds Google's clock is ahead."""
        fault = self._active.get(CLOCK)
        return float(fault.get("seconds", _SKEW)) if fault else 0.0

    def check_quota(self, api: str, project: str) -> None:
        """Raise ApiError RESOURCE_EXHAUSTED while the quota of an API is used up."""
        fault = self._active.get(QUOTA)
        if fault is None or fault.get("service", "run.googleapis.com") != api:
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
