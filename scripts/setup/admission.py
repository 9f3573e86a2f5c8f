"""Binary Authorization: the policy by which Cloud Run refuses images of other registries. Pure.

The policy names the registries that images may come from, not signatures, so that every image that
Shipway has delivered stays allowed: Cloud Run checks the policy whenever a revision gets traffic,
also in a rollback.

Sources: https://cloud.google.com/binary-authorization/docs/run/enabling-binauthz-cloud-run and
https://cloud.google.com/binary-authorization/docs/reference/rest/v1/Policy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from scripts.config.pipelines import Pipeline
from scripts.setup.wanted import PLACEHOLDER, Document, Thing, Write, quoted

MODES = {"enforce": "ENFORCED_BLOCK_AND_AUDIT_LOG", "dry-run": "DRYRUN_AUDIT_LOG_ONLY"}
_API = "binaryauthorization"
_OURS = ("ALWAYS_ALLOW", "ALWAYS_DENY")


def wanted(declared: Sequence[Pipeline], mode: str) -> Thing:
    """Return the policy of an environment's project.

    Args:
        declared: every service that has the environment.
        mode: a key of MODES; "dry-run" only logs what it would refuse.
    """
    project = declared[0].environment.project
    # The sample serves until the first delivery. The patterns also match a digest.
    patterns = [f"{PLACEHOLDER}*", *(f"{p.environment.registry}/**" for p in declared)]
    settings: Document = {
        "admissionWhitelistPatterns": [{"namePattern": one} for one in dict.fromkeys(patterns)],
        "defaultAdmissionRule": {
            "evaluationMode": "ALWAYS_DENY",
            "enforcementMode": MODES[mode],
        },
        "globalPolicyEvaluationMode": "ENABLE",
    }
    path = f"/v1/projects/{project}/policy"
    return Thing(
        kind="policy",
        name="of Binary Authorization",
        project=project,
        api=_API,
        path=path,
        create=Write(method="PUT", api=_API, path=path, body=settings),
        gcloud=(command(project, settings),),
        settings=settings,
    )


def merged(existing: Document, thing: Thing) -> Document | None:
    """Return the policy to write: the existing one, with the wanted rule and patterns.

    Patterns that others added stay. None if nothing changes: also where the default rule asks for
    attestations, because a pattern would exempt its images from them.
    """
    if not is_ours(existing):
        return None
    has = existing.get("admissionWhitelistPatterns") or []
    new = [one for one in thing.settings["admissionWhitelistPatterns"] if one not in has]
    kept = {key: value for key, value in existing.items() if key not in ("name", "updateTime")}
    made = {**kept, **thing.settings, "admissionWhitelistPatterns": [*has, *new]}
    return None if made == kept else made


def is_ours(existing: Document) -> bool:
    """Return whether a policy's default rule is one that this plan may replace."""
    rule = existing.get("defaultAdmissionRule") or {}
    return rule.get("evaluationMode", _OURS[0]) in _OURS


def command(project: str, policy: Document) -> str:
    """Return the gcloud command that replaces a project's policy."""
    text = json.dumps({key: value for key, value in policy.items() if key != "etag"})
    file = f"policy-{project}.json"  # gcloud reads no other kind of file
    return (
        f"printf %s {quoted(text)} > {file} &&"
        f" gcloud container binauthz policy import {file} --project={project}"
    )
