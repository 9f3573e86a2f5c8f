"""Checks of GitHub: the environment's protection, the rules of main, the variables.

A check that gh cannot make is skipped: without gh, without a login, or if the login may not read.
"""

from __future__ import annotations

from collections.abc import Iterator

from scripts.doctor.access import bootstrap
from scripts.doctor.case import Case
from scripts.doctor.finding import Finding, ok, skipped, wrong
from scripts.errors import Failed, ShipError
from scripts.setup import environment, gh, github, main_branch
from scripts.setup.gh import GitHubError
from scripts.setup.permissions import Federation


def checks(case: Case, plan: Federation | None) -> Iterator[Finding]:
    """Run the checks of GitHub.

    Args:
        case: the context.
        plan: who may do what; None if unknown, which only the variables need.
    """
    names = ["main"] if case.by_cloud_build else ["environment", "main", "variables"]
    if case.repository is None:
        why = case.unknown
    elif not gh.is_installed():
        why = "gh, which reads GitHub, is not installed"
    else:
        why = ""
        try:
            document = gh.send("GET", f"repos/{case.repository.full_name}")
            is_private = bool(document.get("private"))
        except Failed as error:
            why = error.message
    if why:
        yield from (skipped(name, why) for name in names)
        return
    if not case.by_cloud_build:
        yield from _environment(case, is_private=is_private)
    yield from _main(case)
    if plan and plan.by_jobs and not case.unnumbered:
        yield from _variables(case, plan)


def _environment(case: Case, *, is_private: bool) -> Iterator[Finding]:
    """Check from where, and after whose approval, a job gets the environment's identity."""
    assert case.repository is not None
    env, repository = case.pipeline.env, case.repository.full_name
    guarded = environment.is_guarded(case.pipelines)
    try:
        found = environment.read(repository, env)
    except Failed as error:
        yield skipped("environment", error.message)
        return
    problems = list(environment.weaknesses(env, found, guarded=guarded))
    fix = bootstrap(case)
    if guarded and not found.reviewers:
        fix += " --reviewer USER_OR_ORGANIZATION/TEAM"
    for problem in problems:
        more = f" ({environment.NO_PLAN})" if is_private else ""
        yield wrong("environment", problem + more, fix)
    if found.others:
        # Shipway takes no branch away that someone else added.
        yield wrong(
            "environment",
            f"not only main may deploy to {env}, but also {', '.join(found.others)}",
            f"remove it: https://github.com/{repository}/settings/environments",
        )
    elif not problems:
        who = ", ".join(one.name for one in found.reviewers)
        approved = f", after an approval by {who}" if who else ""
        yield ok("environment", f"only main deploys to {env}{approved}")


def _main(case: Case) -> Iterator[Finding]:
    """Check that main changes only by a reviewed pull request whose checks passed."""
    assert case.repository is not None
    fix = bootstrap(case)
    try:
        wanted = main_branch.declared(case.root)
        if wanted is None:
            file = main_branch.FILE
            yield wrong("main", f"{file} is missing", f"{main_branch.GET_BACK} git log -p {file}")
            return
        found = main_branch.read(case.repository.full_name, wanted)
    except GitHubError as error:
        if main_branch.is_plan(error):
            where = f"https://github.com/{case.repository.full_name}/settings"
            yield wrong(
                "main",
                f"nothing protects main: {main_branch.NO_PLAN} ({error.says})",
                f"change the plan, or make the repository public: {where}",
            )
        else:
            yield skipped("main", error.message)
        return
    except Failed as error:
        yield skipped("main", error.message)
        return
    except ShipError as error:
        yield wrong("main", error.message, error.hint or "")
        return
    problems = list(main_branch.weaknesses(found, wanted))
    if problems and found.unread:
        yield skipped(
            "main",
            f"no ruleset protects it, and its classic protection may not be read: {found.unread}",
        )
        return
    for problem in problems:
        yield wrong("main", problem, fix)
    if found.bypass:
        yield wrong(
            "main",
            f"its rules do not hold for {', '.join(found.bypass)}",
            f"remove the bypass: https://github.com/{case.repository.full_name}/settings/rules",
        )
    elif not problems:
        yield ok("main", "changes only by an approved pull request whose checks passed")


def _variables(case: Case, plan: Federation) -> Iterator[Finding]:
    """Check that the GitHub variables of the workflows are set."""
    assert case.repository is not None
    try:
        missing = github.variables(
            case.repository,
            case.pipeline.env,
            plan.repository_variables,
            plan.environment_variables,
        )
    except Failed as error:
        yield skipped("variables", error.message)
        return
    for change in missing:
        yield wrong("variables", f"not set at GitHub: {change.what}", change.command)
    if not missing:
        yield ok("variables", "all variables that the workflows read are set")
