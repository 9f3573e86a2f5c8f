"""The protection of environments and of main at GitHub: the real gh, on a stand-in for the API."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.config import workflows
from scripts.config.pipelines import Pipeline
from scripts.doctor import at_github
from scripts.doctor.case import Case, Named
from scripts.errors import Failed, UsageError
from scripts.setup import environment, gh, github, main_branch
from scripts.setup.gh import Change, GitHubError
from tests.conftest import ROOT
from tests.federation_help import REPOSITORY, pipeline, planned
from tests.github_rest import REPO, GitHub, needs_gh

MAIN_ONLY = {"protected_branches": False, "custom_branch_policies": True}
RULESET = main_branch.declared(ROOT) or {}


def protect(env: str, *reviewers: str, guarded: bool | None = None) -> list[str]:
    """Add what an environment lacks; return what was changed."""
    found = environment.read(REPO, env)
    who = [environment.reviewer(name) for name in reviewers]
    is_guarded = env == "production" if guarded is None else guarded
    made = environment.changes(REPO, env, found, who, guarded=is_guarded)
    for change in made:
        change.make()
    return [change.what for change in made]


def rule_main() -> list[Change]:
    made = main_branch.changes(REPO, ROOT)
    for change in made:
        change.make()
    return made


class Alone(Case):
    """A case without the files of the other services, which this repository does not have."""

    @property
    def pipelines(self) -> list[Pipeline]:
        return [self.pipeline]


def case_of(env: str = "production", *, by_cloud_build: bool = False) -> Case:
    return Alone(ROOT, pipeline(env), Named("acme/app", 42, 4711), by_cloud_build=by_cloud_build)


def told(case: Case, check: str = "") -> dict[str, list[str]]:
    """Return state -> what the doctor found: all of it, or the first check's part."""
    found: dict[str, list[str]] = {}
    for one in at_github.checks(case, None):
        if check and one.check != check:
            break  # each call of gh takes a while
        found.setdefault(one.state, []).append(one.found)
        assert one.state != "wrong" or one.fix
    return found


def told_of_main() -> dict[str, list[str]]:
    """Return what the doctor found about main, which is all that Cloud Build needs of GitHub."""
    return told(case_of(by_cloud_build=True))


# The files


def test_the_required_checks_are_the_jobs_of_ci() -> None:
    """A check that no job reports would block every pull request; a job left out guards nothing."""
    document = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    jobs = {job["name"] for job in document["jobs"].values()}
    assert main_branch.required_checks(RULESET) == jobs


def test_the_ruleset_is_about_the_branch_that_gets_an_identity() -> None:
    assert RULESET["conditions"]["ref_name"] == {
        "include": [workflows.BRANCH],
        "exclude": [],
    }
    assert (RULESET["enforcement"], RULESET["bypass_actors"]) == ("active", [])


@pytest.mark.parametrize("text", ["{", "[]", '{"rules": []}', '{"rules": [{}]}'])
def test_a_bad_ruleset_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    assert main_branch.declared(tmp_path) is None
    file = tmp_path / main_branch.FILE
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(UsageError, match=f"{main_branch.FILE} is not a ruleset of GitHub"):
        main_branch.declared(tmp_path)


# Environments


@needs_gh
def test_a_new_environment_is_protected_and_a_second_run_changes_nothing(
    github_com: GitHub,
) -> None:
    assert protect("production", "alice", "acme/on-call") == [
        "environment production: only named branches may deploy",
        "environment production: main may deploy",
        "environment production: needs an approval by alice, acme/on-call; no approval of one's"
        " own run, no bypass",
    ]
    assert github_com.environments["production"] == {
        "deployment_branch_policy": MAIN_ONLY,
        "reviewers": [{"type": "User", "id": 101}, {"type": "Team", "id": 201}],
        "prevent_self_review": True,
        "can_admins_bypass": False,
    }
    assert [(p["name"], p["type"]) for p in github_com.policies["production"]] == [
        ("main", "branch")
    ]
    assert protect("production", "alice") == []
    assert protect("production") == []
    assert protect("staging") == [
        "environment staging: only named branches may deploy",
        "environment staging: main may deploy",
    ]
    assert told(case_of(), "environment") == {
        "ok": ["only main deploys to production, after an approval by alice, on-call"]
    }
    assert told(case_of("staging"), "environment") == {"ok": ["only main deploys to staging"]}


@needs_gh
def test_an_existing_environment_is_never_weakened(github_com: GitHub) -> None:
    """Reviewers, wait timers, branches and a forbidden bypass that others set stay."""
    github_com.environments["production"] = {
        "wait_timer": 30,
        "reviewers": [{"type": "User", "id": 102}],
        "can_admins_bypass": False,
        "deployment_branch_policy": {"protected_branches": True, "custom_branch_policies": False},
    }
    protect("production", "alice")
    assert github_com.environments["production"] == {
        "wait_timer": 30,
        "reviewers": [{"type": "User", "id": 102}, {"type": "User", "id": 101}],
        "prevent_self_review": True,
        "can_admins_bypass": False,
        "deployment_branch_policy": MAIN_ONLY,
    }
    github_com.policies["production"].append({"id": 5, "name": "hotfix/*", "type": "branch"})
    github_com.policies["production"].append({"id": 6, "name": "v1", "type": "tag"})
    before = copy.deepcopy((github_com.environments, github_com.policies))
    assert protect("production", "alice") == []
    assert (github_com.environments, github_com.policies) == before
    # Without approvals of its own, staging keeps the ones that it has.
    github_com.environments["staging"] = {
        "wait_timer": 5,
        "reviewers": [{"type": "User", "id": 103}],
    }
    protect("staging")
    assert github_com.environments["staging"] == {
        "wait_timer": 5,
        "reviewers": [{"type": "User", "id": 103}],
        "prevent_self_review": False,
        "deployment_branch_policy": MAIN_ONLY,
    }


@needs_gh
@pytest.mark.parametrize(
    ("rules", "named", "said"),
    [
        (None, [], "the GitHub Environment production does not exist"),
        ({"deployment_branch_policy": None}, [], "every branch may deploy to production"),
        ({"deployment_branch_policy": {"protected_branches": True,
                                       "custom_branch_policies": False}}, [],
         "every branch if none is protected"),
        ({}, ["release/*"], "main may not deploy to production"),
        ({}, ["main", "release/*"], "but also release/*"),
        ({"reviewers": []}, ["main"], "no one must approve a job of production"),
        ({"prevent_self_review": False}, ["main"], "may approve its job in production"),
        ({"can_admins_bypass": True}, ["main"], "administrators may skip the approval"),
    ],
)  # fmt: skip
def test_the_doctor_names_each_protection_that_lacks(
    github_com: GitHub, rules: dict[str, Any] | None, named: list[str], said: str
) -> None:
    if rules is not None:
        github_com.environments["production"] = {
            "deployment_branch_policy": MAIN_ONLY,
            "reviewers": [{"type": "User", "id": 101}],
            "prevent_self_review": True,
            "can_admins_bypass": False,
            **rules,
        }
        github_com.policies["production"] = [{"id": 1, "name": n, "type": "branch"} for n in named]
    found = told(case_of(), "environment")
    assert set(found) == {"wrong"}
    assert any(said in one for one in found["wrong"]), found


@needs_gh
def test_a_reviewer_must_be_known_and_there_is_room_for_six(github_com: GitHub) -> None:
    for name in ("nobody", "acme/nobody", "../rulesets", "acme", "", "acme/"):
        with pytest.raises(UsageError, match=f"--reviewer {name}: GitHub shows no such"):
            environment.reviewer(name)
    with pytest.raises(UsageError, match="would have 7 reviewers"):
        protect("production", "alice", "bob", "carol", "dave", "eve", "frank", "grace")
    assert github_com.writes == []


@needs_gh
def test_what_a_plan_lacks_is_said(github_com: GitHub) -> None:
    github_com.private = True
    with pytest.raises(GitHubError) as refused:
        protect("production", "alice")
    assert refused.value.status == 404
    [missing] = told(case_of(), "environment")["wrong"]
    assert "environments on the plans Pro, Team and Enterprise" in missing
    [unruled] = told_of_main()["wrong"]
    assert "no rules for private repositories on the Free plan" in unruled
    github_com.plan = "team"
    with pytest.raises(GitHubError, match="billing plan"):
        protect("production", "alice")
    assert github_com.environments["production"] == {"deployment_branch_policy": MAIN_ONLY}
    assert github_com.policies["production"], "main is let in although reviewers are refused"
    assert "required reviewers on Enterprise only" in told(case_of(), "environment")["wrong"][0]


# The main branch


@needs_gh
def test_the_ruleset_is_applied_once(github_com: GitHub) -> None:
    assert told_of_main()["wrong"] == [
        "main can change without a pull request that someone else approved",
        "main can change although these checks did not pass: Lint, types, tests, Trial delivery",
        "a force push can rewrite main",
        "main can be deleted",
    ]
    [made] = rule_main()
    assert made.command == f"gh api --method=POST repos/{REPO}/rulesets --input={main_branch.FILE}"
    assert rule_main() == []
    assert len(github_com.rulesets) == 1
    assert set(told_of_main()) == {"ok"}


@needs_gh
def test_a_stricter_ruleset_stays_and_a_weaker_one_is_corrected(github_com: GitHub) -> None:
    rule_main()
    [ruleset] = github_com.rulesets.values()
    rules = {rule["type"]: rule for rule in ruleset["rules"]}
    pulls = rules["pull_request"]["parameters"]
    pulls |= {
        "required_approving_review_count": 3,
        "dismiss_stale_reviews_on_push": False,
        "required_review_thread_resolution": True,
        "allowed_merge_methods": ["squash"],
    }
    checks = rules["required_status_checks"]["parameters"]
    checks["required_status_checks"] = [{"context": "Theirs"}, {"context": "Trial delivery"}]
    ruleset["rules"] = [rules["pull_request"], rules["required_status_checks"],
                        {"type": "required_linear_history"}]  # fmt: skip
    ruleset["enforcement"] = "evaluate"
    ruleset["bypass_actors"] = [
        {"actor_id": 5, "actor_type": "RepositoryRole", "bypass_mode": "always"}
    ]
    ruleset["conditions"]["ref_name"] = {
        "include": ["refs/heads/next"],
        "exclude": ["refs/heads/m*", "refs/heads/x"],
    }
    [change] = rule_main()
    assert (change.method, change.what) == (
        "PUT",
        "ruleset main: enforcement, bypass_actors, conditions, rules",
    )
    assert rule_main() == []
    [ruleset] = github_com.rulesets.values()
    rules = {rule["type"]: rule for rule in ruleset["rules"]}
    assert set(rules) == {"deletion", "non_fast_forward", "pull_request",
                          "required_status_checks", "required_linear_history"}  # fmt: skip
    pulls = rules["pull_request"]["parameters"]
    assert pulls["required_approving_review_count"] == 3
    assert pulls["dismiss_stale_reviews_on_push"] is True
    assert pulls["required_review_thread_resolution"] is True
    assert pulls["allowed_merge_methods"] == ["squash"]
    required = rules["required_status_checks"]["parameters"]["required_status_checks"]
    assert [check["context"] for check in required] == [
        "Theirs", "Lint, types, tests", "Trial delivery",
    ]  # fmt: skip
    assert all(check.get("integration_id") for check in required[1:])
    assert ruleset["enforcement"] == "active"
    assert ruleset["bypass_actors"] == []
    assert ruleset["conditions"]["ref_name"] == {
        "include": ["refs/heads/next", "refs/heads/main"],
        "exclude": ["refs/heads/x"],
    }


CLASSIC = {
    "required_pull_request_reviews": {"required_approving_review_count": 1},
    "required_status_checks": {"strict": False, "contexts": ["Lint, types, tests",
                                                             "Trial delivery"]},
    "enforce_admins": {"enabled": True},
    "allow_force_pushes": {"enabled": False},
    "allow_deletions": {"enabled": False},
}  # fmt: skip


@needs_gh
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"required_pull_request_reviews": None}, "without a pull request"),
        ({"required_status_checks": None}, "these checks did not pass"),
        ({"allow_force_pushes": {"enabled": True}}, "force push"),
        ({"allow_deletions": {"enabled": True}}, "can be deleted"),
        ({"enforce_admins": {"enabled": False}}, "do not hold for administrators"),
    ],
)
def test_classic_protection_counts_as_well(
    github_com: GitHub, changed: dict[str, Any], said: str
) -> None:
    github_com.classic = {**CLASSIC, **changed}
    found = told_of_main()
    assert set(found) == ({"wrong"} if said else {"ok"})
    if said:
        [one] = found["wrong"]
        assert said in one


@needs_gh
def test_a_bypass_that_the_file_does_not_name_is_wrong(github_com: GitHub) -> None:
    rule_main()
    [ruleset] = github_com.rulesets.values()
    ruleset["bypass_actors"] = [{"actor_type": "OrganizationAdmin", "bypass_mode": "always"}]
    assert told_of_main() == {"wrong": ["its rules do not hold for OrganizationAdmin"]}


# Who may not look


@needs_gh
def test_a_login_that_may_not_read_skips(
    github_com: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GH_TOKEN", "reader")
    found = told_of_main()
    assert found == {
        "skipped": ["no ruleset protects it, and its classic protection may not be read: Not Found"]
    }
    rules = copy.deepcopy(RULESET)
    github_com.rulesets[1] = {**rules, "id": 1}
    assert set(told_of_main()) == {"ok"}, "everyone may read the rules of a branch"
    monkeypatch.setenv("GH_TOKEN", "expired")
    assert set(told(case_of())) == {"skipped"}
    assert "Bad credentials" in told(case_of())["skipped"][0]
    monkeypatch.delenv("GH_TOKEN")
    monkeypatch.delenv("CI", raising=False)  # gh gives a job other advice
    assert "gh auth login" in told(case_of())["skipped"][0]
    with pytest.raises(Failed, match="gh auth login"):
        gh.get(f"repos/{REPO}")


def test_without_gh_the_checks_are_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = told(case_of())
    assert found == {"skipped": ["gh, which reads GitHub, is not installed"] * 3}
    assert len(told(case_of(by_cloud_build=True))["skipped"]) == 1, "it reads main alone"


@needs_gh
def test_cloud_build_needs_no_environment(github_com: GitHub) -> None:
    rule_main()
    assert told(case_of(by_cloud_build=True)) == {
        "ok": ["changes only by an approved pull request whose checks passed"]
    }


# Variables


@needs_gh
def test_variables_that_lack_or_differ_are_set(github_com: GitHub) -> None:
    """With an older gh as well, which has no `gh variable`; from more than one page."""
    github_com.variables[""] = {f"A{i}": "x" for i in range(65)} | {"PUSHER": "old"}
    protect("production")
    plan = planned("production")
    wanted = (plan.repository_variables, plan.environment_variables)
    changes = github.variables(REPOSITORY, "production", *wanted)
    assert [change.method for change in changes] == ["POST", "PATCH", "POST"]
    for change in changes:
        change.make()
    assert github_com.variables["production"] == plan.environment_variables
    assert plan.repository_variables.items() <= github_com.variables[""].items()
    assert github.variables(REPOSITORY, "production", *wanted) == []
    assert json.dumps([change.command for change in changes]).count("gh variable set") == 3
