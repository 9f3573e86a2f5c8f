"""The policy of each project.

Source: https://cloud.google.com/binary-authorization/docs/reference/rest/v1/Policy, and
https://cloud.google.com/binary-authorization/docs/key-concepts#default_policy (a project that has
set none). The messages are Shipway's own.
"""

from __future__ import annotations

from typing import Any

from emulator import clock
from emulator.errors import ApiError, invalid
from emulator.fields import check_known
from emulator.names import project_number
from emulator.store import Store

Document = dict[str, Any]

_FIELDS = {
    "name", "description", "globalPolicyEvaluationMode", "admissionWhitelistPatterns",
    "clusterAdmissionRules", "kubernetesNamespaceAdmissionRules",
    "kubernetesServiceAccountAdmissionRules", "istioServiceIdentityAdmissionRules",
    "defaultAdmissionRule", "updateTime", "etag",
}  # fmt: skip
_EVALUATIONS = ("ALWAYS_ALLOW", "REQUIRE_ATTESTATION", "ALWAYS_DENY")
_ENFORCEMENTS = ("ENFORCED_BLOCK_AND_AUDIT_LOG", "DRYRUN_AUDIT_LOG_ONLY")


class AdmissionPolicies:
    """The policies of every project. A project is named by its ID or its number."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, project: str) -> Document:
        """Return a project's policy; the default one if none was set."""
        return self._store.read(_file(project)) or {
            "name": f"projects/{project}/policy",
            "globalPolicyEvaluationMode": "ENABLE",
            "defaultAdmissionRule": {
                "evaluationMode": "ALWAYS_ALLOW",
                "enforcementMode": "ENFORCED_BLOCK_AND_AUDIT_LOG",
            },
            "etag": "unset",
        }

    def update(self, project: str, body: Document) -> Document:
        """Replace a project's policy.

        Raises:
            ApiError: INVALID_ARGUMENT; ABORTED if the body has another etag than the policy.
        """
        check_known(body, _FIELDS)
        rule = body.get("defaultAdmissionRule")
        if (
            not isinstance(rule, dict)
            or rule.get("evaluationMode") not in _EVALUATIONS
            or rule.get("enforcementMode") not in _ENFORCEMENTS
        ):
            raise invalid("a default rule with both modes is required.", "defaultAdmissionRule")
        if body.get("etag") not in (None, self.get(project)["etag"]):
            raise ApiError("ABORTED", "The policy was changed since it was read.")
        kept = {key: value for key, value in body.items() if value not in (None, [], {})}
        made = {
            **kept,
            "name": f"projects/{project}/policy",
            "updateTime": clock.now(),
            "etag": clock.next_version(),
        }
        self._store.write(_file(project), made)
        return made


def _file(project: str) -> str:
    return f"{project_number(project)}.json"
