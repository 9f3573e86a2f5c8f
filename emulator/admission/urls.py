"""The routes of Binary Authorization.

Source: https://cloud.google.com/iam/docs/roles-permissions/binaryauthorization.
"""

from __future__ import annotations

from emulator.admission.models import AdmissionPolicies
from emulator.admission.responses import Responses
from emulator.permissions import Asks, On
from emulator.routes import Route

_POLICY = "/v1/projects/{project}/policy"
_OF_PROJECT = "projects/{project}"


def routes(policies: AdmissionPolicies) -> list[Route]:
    """Return the routes of a project's policy."""
    answer = Responses(policies)
    gets = Asks("binaryauthorization.policy.get", On.PROJECT, _OF_PROJECT)
    updates = Asks("binaryauthorization.policy.update", On.PROJECT, _OF_PROJECT)
    return [
        Route("GET", _POLICY, answer.get, gets),
        Route("PUT", _POLICY, answer.update, updates),
    ]
