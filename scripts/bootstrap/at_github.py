"""What bootstrap does at GitHub: variables, the environment's protection, the rules of main."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from scripts.command.progress import Progress
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, UsageError
from scripts.setup import environment, gh, github, main_branch
from scripts.setup.environment import Reviewer, Rules
from scripts.setup.gh import Change, GitHubError
from scripts.setup.identity_provider import Repository
from scripts.setup.permissions import Federation

_SETTINGS = "docs/security.md lists the settings"


class AtGitHub:
    """One environment at GitHub.

    Args:
        repository: at GitHub.
        declared: every service that has the environment.
        access: who may do what.

    Attributes:
        todo: the changes that lack.
        paste: the commands that set the variables, if gh cannot be asked.
        notes: what else a person should know.
        problems: what GitHub refused.
    """

    def __init__(
        self, repository: Repository, declared: Sequence[Pipeline], access: Federation
    ) -> None:
        self.repository = repository
        self.env = declared[0].env
        self.by_jobs = access.by_jobs
        self.guarded = environment.is_guarded(declared)
        self.shared = access.repository_variables if access.by_jobs else {}
        self.own = access.environment_variables if access.by_jobs else {}
        self.root = declared[0].root
        self.todo: list[Change] = []
        self.paste: list[str] = []
        self.notes: list[str] = []
        self.problems: list[str] = []
        self._reviewers: list[Reviewer] = []

    def plan(self, names: Sequence[str], *, asks: bool) -> None:
        """Find out what lacks. What gh cannot read is left to the user, with a note.

        Args:
            names: the reviewers that the user named.
            asks: whether to ask for reviewers, if no one is named and some are needed.

        Raises:
            UsageError: a reviewer is unknown, or the ruleset's file is wrong.
        """
        self._reviewers = [environment.reviewer(one) for one in names]
        self._look(asks=asks)

    def _look(self, *, asks: bool = False) -> None:
        self.todo, self.paste, self.notes = [], [], []
        if self.by_jobs:
            self._try("the GitHub Environment", lambda: self._plan_environment(asks=asks))
        self._try("the rules of main", self._plan_rules)
        if not self._try("the GitHub variables", self._plan_variables):
            self.paste = github.paste(self.repository, self.env, self.shared, self.own)

    def _try(self, what: str, plan: Callable[[], None]) -> bool:
        """Plan one part; note the reason if gh cannot read it. The other parts do not need it."""
        if not gh.is_installed():
            why = "gh is not installed"
        else:
            try:
                plan()
                return True
            except Failed as error:
                needs_plan = isinstance(error, GitHubError) and main_branch.is_plan(error)
                why = f"{main_branch.NO_PLAN} ({error.message})" if needs_plan else error.message
        self.notes.append(f"not set up: {what}: {why}. {_SETTINGS}")
        return False

    def make(self, progress: Progress) -> None:
        """Make every change, also after one that GitHub refuses.

        What exists is read once more: each write replaces rules that others may have changed.
        """
        self._look()
        for change in self.todo:
            try:
                with progress.step(change.does, f"GitHub: {change.what}"):
                    change.make()
            except Failed as error:
                self.problems += [
                    f"not done: {change.what}: {_reason(change, error)}",
                    change.command,
                ]

    def _plan_environment(self, *, asks: bool) -> None:
        name = self.repository.full_name
        found = environment.read(name, self.env)
        if asks and self.guarded and not (found.reviewers or self._reviewers):
            self._reviewers = _asked(self.env)
        self.todo += environment.changes(
            name, self.env, found, self._reviewers, guarded=self.guarded
        )
        self._advise(found)

    def _advise(self, found: Rules) -> None:
        everyone = {(one.type, one.id): one for one in (*found.reviewers, *self._reviewers)}
        if self.guarded and not everyone:
            self.notes.append(
                f"no one must approve a delivery to {self.env}:"
                f" ./ship bootstrap --env {self.env} --reviewer USER_OR_ORGANIZATION/TEAM"
            )
        elif self.guarded and len(everyone) == 1 and not any(t == "Team" for t, _ in everyone):
            [only] = everyone.values()
            self.notes.append(
                f"{only.name} is the only reviewer of {self.env}, and cannot approve a run that"
                f" {only.name} started, such as by merging: name a second one"
            )

    def _plan_rules(self) -> None:
        if main_branch.declared(self.root) is None:
            self.notes.append(f"{main_branch.FILE} is missing, so main gets no rules")
        self.todo += main_branch.changes(self.repository.full_name, self.root)

    def _plan_variables(self) -> None:
        self.todo += github.variables(self.repository, self.env, self.shared, self.own)


def _reason(change: Change, error: Failed) -> str:
    """Return why GitHub refused a change, with the plan that it takes where that may be why."""
    if not isinstance(error, GitHubError):
        return error.message
    if main_branch.is_plan(error):
        return f"{error.says} ({main_branch.NO_PLAN})"
    if "/environments/" in change.path and error.status in (404, 422):
        return f"{error.says} ({environment.NO_PLAN})"
    return error.says


def check_reviewers(names: Sequence[str], *, by_jobs: bool) -> None:
    """Check that reviewers can be named here.

    Raises:
        UsageError: they cannot.
    """
    if names and not (by_jobs and gh.is_installed()):
        why = "gh is not installed" if by_jobs else "Cloud Build has no reviewers"
        raise UsageError(f"--reviewer {names[0]}: {why}", _SETTINGS)


def _asked(env: str) -> list[Reviewer]:
    """Ask who must approve deliveries, until all names are known; none if the answer is empty."""
    while True:
        print(
            f"Who must approve a delivery to {env}? GitHub users or ORGANIZATION/TEAM, separated by"
            " spaces\n(empty: no one): ",
            end="", file=sys.stderr, flush=True,
        )  # fmt: skip
        try:
            return [environment.reviewer(name) for name in sys.stdin.readline().split()]
        except UsageError as error:
            print(f"  {error.message.removeprefix('--reviewer ')}", file=sys.stderr)
