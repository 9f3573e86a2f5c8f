"""`./ship bootstrap --binary-authorization`: only images of the declared registries get traffic."""

from __future__ import annotations

from typing import Any

from tests.scripts.bootstrap_help import OPS, STAGING, Team

ENFORCE = ("--binary-authorization", "enforce")
OURS = [
    {"namePattern": "us-docker.pkg.dev/cloudrun/container/hello*"},
    {"namePattern": f"us-central1-docker.pkg.dev/{OPS}/services/**"},
]


def policy(team: Team) -> Any:
    return team.owner_of_projects().get(f"{team.owner.url}/v1/projects/{STAGING}/policy").json()


def change(team: Team, **fields: Any) -> Any:
    url = f"{team.owner.url}/v1/projects/{STAGING}/policy"
    answer = team.owner_of_projects().put(url, json={**policy(team), **fields})
    assert answer.ok, answer.text
    return answer.json()


def test_only_images_of_the_registry_are_allowed(team: Team) -> None:
    steps = team.set_up("staging", *ENFORCE)["steps"]
    assert "binaryauthorization" in steps[1]["what"]
    assert team.plan("staging", *ENFORCE)["steps"] == []
    made = policy(team)
    assert made["admissionWhitelistPatterns"] == OURS
    rule = {"evaluationMode": "ALWAYS_DENY", "enforcementMode": "ENFORCED_BLOCK_AND_AUDIT_LOG"}
    assert made["defaultAdmissionRule"] == rule
    # Another mode, and what others allow stays allowed.
    theirs = {"namePattern": "gcr.io/theirs/**"}
    change(team, admissionWhitelistPatterns=[theirs], description="Ours")
    [step] = team.set_up("staging", "--binary-authorization", "dry-run")["steps"]
    changed = "admissionWhitelistPatterns, defaultAdmissionRule"
    assert step["what"] == f"policy of Binary Authorization: {changed}"
    made = policy(team)
    assert made["admissionWhitelistPatterns"] == [theirs, *OURS]
    assert made["defaultAdmissionRule"]["enforcementMode"] == "DRYRUN_AUDIT_LOG_ONLY"
    assert made["description"] == "Ours"
    # Without the option, it is not part of the plan.
    assert team.plan("staging")["steps"] == []
    # A policy that requires attestations is not weakened.
    before = change(
        team,
        admissionWhitelistPatterns=[],
        defaultAdmissionRule={
            "evaluationMode": "REQUIRE_ATTESTATION",
            "enforcementMode": "ENFORCED_BLOCK_AND_AUDIT_LOG",
            "requireAttestationsBy": [f"projects/{STAGING}/attestors/theirs"],
        },
    )
    ended = team.bootstrap("staging", "--yes", *ENFORCE)
    assert ended.returncode == 0
    assert "requires attestations, and stays as it is" in ended.stdout
    assert policy(team) == before


def test_a_policy_from_before_its_api_was_disabled_is_kept(team: Team) -> None:
    team.set_up("staging", *ENFORCE)
    change(team, admissionWhitelistPatterns=[{"namePattern": "gcr.io/theirs/**"}])
    base = f"{team.owner.url}/v1/projects/{STAGING}/services"
    api = f"{base}/binaryauthorization.googleapis.com"
    assert team.owner_of_projects().post(f"{api}:disable", json={}).ok
    steps = team.set_up("staging", *ENFORCE)["steps"]
    assert [step["does"] for step in steps] == ["enable", "create"]
    patterns = policy(team)["admissionWhitelistPatterns"]
    assert patterns == [{"namePattern": "gcr.io/theirs/**"}, *OURS]
