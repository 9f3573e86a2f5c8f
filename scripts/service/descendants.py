"""A late commit steps aside: what is newer is told by the history of the clone.

Where the clone does not know a commit, a delivery goes on: a shallow clone must not stop releases.
"""

from __future__ import annotations

import msgspec

from scripts.command.results import Result
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.release.changes import StepsAside
from scripts.release.state import State
from scripts.service.context import Context, Move, moved


class Descendants:
    """Whether a commit is newer than the one that is delivered, as this clone's history tells."""

    def __init__(self, context: Context, commit: Commit) -> None:
        self._context = context
        self._than = commit
        self._known: dict[str, bool | None] = {}

    def __call__(self, commit: str) -> bool:
        return bool(self._ask(commit))

    def _ask(self, commit: str) -> bool | None:
        if commit not in self._known:
            self._known[commit] = git.is_newer(self._context.root, commit, self._than.sha)
        return self._known[commit]

    def tell_unknown(self, state: State) -> None:
        """Say where nobody can tell: in a shallow clone, or after the history was written anew."""
        for revision in state.shares:
            commit = state.commits.get(revision, "")
            if commit not in self._known and self._ask(commit) is None:
                self._context.progress.line(
                    f"note: {commit[:7]}, which serves, is not in this clone: whether it is newer"
                    f" than {self._than.short} cannot be told (git fetch --unshallow?)"
                )


def overtaken(context: Context, commit: Commit, aside: StepsAside) -> Result:
    """The result of a delivery that a newer commit has overtaken: nothing is wrong.

    Args:
        context: the call.
        commit: what was to be delivered.
        aside: what it met.
    """
    by = aside.state.commits[aside.revision]
    share = aside.state.shares.get(aside.revision, 0)
    doing = f"serves {share} %" if share else "is under way"
    commits = aside.state.commits
    own = next((name for name in commits if commits[name] == commit.sha), None)
    to = f" --to {own}" if own in aside.state.ready else ""
    said = (
        f"{commit.short} steps aside: {by[:7]} is newer and {doing} in {context.pipeline.env};"
        f" to go back on purpose: ./ship rollback {context.where}{to}"
    )
    states = [(region, state) for region in context.regions if (state := region.read())]
    moves = [Move(region=region.region, before=state, after=state) for region, state in states]
    title = f"{commit.short} steps aside in {context.pipeline.env}: {by[:7]} is newer"
    result = moved(context, moves, [said], title=title)
    data = {
        "outcome": "overtaken",
        "overtaken": True,
        "commit": commit.sha,
        "newer": by,
        "revision": aside.revision,
        "url": str((aside.state.service.get("status") or {}).get("url", "")),
    }
    return msgspec.structs.replace(result, data={**result.data, **data})
