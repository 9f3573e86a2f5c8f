"""What bootstrap does at GitHub: variables, the environment's protection, the rules of main."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from scripts.command.progress import Progress
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, UsageError
from scripts.setup import environment, gh, github, main_branch
from scripts.setup.environment import Reviewer, Rules
from scripts.setup.gh import Change, GitHubError
from scripts.setup.identity_provider import Repository
from scripts.setup.permissions import Federation

_SETTINGS = "docs/security.md lists the settings of GitHub that remain"


class AtGitHub:
    """One environment at GitHub.

    Args:
        repository: at GitHub.
        declared: every service that has the environment.
        access: who may do what.

    Attributes:
        todo: the changes that lack.
        paste: the commands that a person has to run, because gh cannot be asked.
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
        """Find out what lacks. If gh cannot read it, everything is left to the user.

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
        if not gh.is_installed():
            self._leave("gh is not installed")
            return
        try:
            if self.by_jobs:
                self._plan_environment(asks=asks)
            if main_branch.declared(self.root) is None:
                self.notes.append(f"{main_branch.FILE} is missing, so main gets no rules")
            self.todo += main_branch.changes(self.repository.full_name, self.root)
            self.todo += github.variables(self.repository, self.env, self.shared, self.own)
        except Failed as error:
            print(f"ship: {error.message}", file=sys.stderr)
            self._leave("gh cannot read them")

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
                self.problems += [f"not done: {change.what}: {self._why(error)}", change.command]

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

    def _leave(self, why: str) -> None:
        self.todo = []
        self.paste = github.paste(self.repository, self.env, self.shared, self.own)
        self.notes = [
            f"the GitHub Environment {self.env} and the rules of main were not looked at: {why}."
            f" {_SETTINGS}"
        ]

    def _why(self, error: Failed) -> str:
        """Return the reason of a failure, with the plan that GitHub asks for where it is one."""
        says = error.says if isinstance(error, GitHubError) else error.message
        if isinstance(error, GitHubError) and main_branch.is_plan(error):
            return f"{says} ({main_branch.NO_PLAN})"
        if isinstance(error, GitHubError) and error.status in (404, 422):
            return f"{says} ({environment.NO_PLAN})"
        return says


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
