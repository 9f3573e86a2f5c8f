"""A late commit steps aside for a newer one, by the clone's history.

If the clone lacks a commit, the delivery continues: a shallow clone must not stop releases.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from scripts.command import failure
from scripts.command.results import Result
from scripts.errors import ShipError
from scripts.ledger import may_have_written
from scripts.machine import git
from scripts.machine.git import Commit
from scripts.release.choices import StepsAside
from scripts.release.state import State
from scripts.service.context import Context
from scripts.service.regions import Acted, Move, report


class NewerCommits:
    """The commits that are newer than the one being delivered: its descendants."""

    def __init__(self, context: Context, commit: Commit) -> None:
        self._context = context
        self._than = commit
        self._known: dict[str, bool | None] = {}

    def includes(self, commit: str) -> bool:
        """Return whether a commit (full SHA) is newer; False if the clone lacks it."""
        return bool(self._ask(commit))

    def _ask(self, commit: str) -> bool | None:
        if commit not in self._known:
            self._known[commit] = git.is_newer(self._context.root, commit, self._than.sha)
        return self._known[commit]

    def report_unknown(self, states: list[State]) -> None:
        """Report commits missing here: in a shallow clone, or after history was rewritten."""
        serving = {s.commits.get(revision, "") for s in states for revision in s.shares}
        for commit in sorted(serving):
            if self._ask(commit) is None:
                self._context.progress.line(
                    f"note: {commit[:7]}, which serves, is not in this clone, so it is unknown"
                    f" whether it is newer than {self._than.short} (git fetch --unshallow?)"
                )


def overtaken(context: Context, commit: Commit, aside: StepsAside) -> Result:
    """Make the result of a delivery that steps aside for a newer commit.

    Args:
        context: the call.
        commit: the commit to deliver.
        aside: the newer commit's revision, and the service as read.
    """
    newer = aside.state.commits[aside.revision]
    share = aside.state.shares.get(aside.revision, 0)
    doing = f"serves {share} %" if share else "is being released"
    commits = aside.state.commits
    own = next((name for name in commits if commits[name] == commit.sha), None)
    to = f" --to {own}" if own in aside.state.ready else ""
    note = (
        f"{commit.short} steps aside: {newer[:7]} is newer and {doing} in {context.pipeline.env}."
        f" To roll back on purpose: ./ship rollback {context.where}{to}"
    )
    moves = {}
    for region in context.regions:
        with suppress(
            ShipError
        ):  # a region that cannot be read keeps no commit from stepping aside
            if state := region.read():
                moves[region.region] = Move(region=region.region, before=state, after=state)
    notes = [note]
    if may_have_written(context.record.writes):
        notes.append(f"{'; '.join(failure.written(context.record))}; nothing else changed")
    title = f"{commit.short} steps aside in {context.pipeline.env}: {newer[:7]} is newer"
    result = report(context, Acted(done=moves), notes, title)
    data = {
        "outcome": "overtaken",
        "overtaken": True,
        "commit": commit.sha,
        "newer": newer,
        "revision": aside.revision,
        "url": aside.state.url,
    }
    return msgspec.structs.replace(
        result, data={**result.data, **data}, outputs={**result.outputs, "delivered": ""}
    )
