"""Deliver commits of the sample app to a local Cloud Run, and show what users notice.

Shows a good release, a broken one, one that never starts, a promotion, and a rollback with its
hold, under a steady load of requests. Uses a scratch clone and a scratch local Cloud Run.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.command import options
from scripts.command.call import Call
from scripts.command.tables import Table
from scripts.demo.load import failed, observed
from scripts.demo.stage import Ended, Stage
from scripts.errors import Failed


class Options(options.Options, frozen=True, kw_only=True):
    bake: options.FixedBake = "3s"


def run(options: Options, call: Call) -> int:
    with (
        TemporaryDirectory(prefix="shipway-demo-") as folder,
        Stage(call.root, Path(folder)) as stage,
    ):
        story = Story(stage, options.bake)
        story.tell()
        stage.show(story.table())
        if story.surprises:
            raise Failed("the demo did not go as expected", evidence=story.surprises)
        stage.wait_for_visitor()
    return 0


_PAGE = "web/templates/index.html"
_PORT = "0.0.0.0:{os.environ.get('PORT', '8080')}"


class Story:
    """The demo's chapters, with the result, the duration and the failed requests of each."""

    def __init__(self, stage: Stage, bake: str) -> None:
        self.stage = stage
        self.bake = bake
        self.rows: list[list[str]] = []
        self.surprises: list[str] = []

    def tell(self) -> None:
        """Run every chapter in order."""
        self.stage.expect(_PAGE, "answering now")  # before the first release, which takes longer
        self.first_release()
        with self.stage.load():
            self.good_release()
            self.broken_release()
            self.release_that_never_listens()
            self.promote_and_roll_back()
            self.held_release()

    def first_release(self) -> None:
        """Build, push, deploy, check, and serve."""
        self.stage.chapter("1", "The first release")
        ended = self.stage.ship("deliver")
        self._tell(ended, "first release", "serving", code=0)

    def good_release(self) -> None:
        """Roll out step by step, and show the split that users saw."""
        self.stage.chapter("2", "A good release: 10 %, 50 %, 100 % under a steady load")
        self.stage.commit("Say it better", _PAGE, "answering now", "answering")
        with self.stage.heavy_load():
            ended = self.stage.ship("deliver", "--bake", self.bake)
        self._tell(ended, "good release", "rolled out", code=0)
        self._show_split(ended)

    def broken_release(self) -> None:
        """Release a revision that starts, but whose health check is wrong: no user gets it."""
        self.stage.chapter("3", "A broken release: its health check answers wrongly")
        self.stage.commit("Break health", "web/pages.py", '"status": "ok"', '"status": "broken"')
        ended = self.stage.ship("deliver", "--bake", self.bake)
        self._tell(ended, "broken release", "stopped by smoke checks", code=1)
        self._no_user_reached(ended)

    def release_that_never_listens(self) -> None:
        """Release a revision that listens on another port than $PORT."""
        self.stage.chapter("4", "A release that never listens on $PORT")
        self.stage.revert("web/pages.py")
        self.stage.commit("Choose the port", "gunicorn.conf.py", _PORT, "127.0.0.1:0")
        ended = self.stage.ship("deliver")
        self._tell(ended, "never listens", "stopped at its start", code=1)
        self._no_user_reached(ended)

    def promote_and_roll_back(self) -> None:
        """Run the commands of a release manager."""
        self.stage.chapter("5", "A release manager promotes, and rolls back")
        self.stage.revert("gunicorn.conf.py")
        self.stage.commit("Say more", _PAGE, "is answering", "answers you")
        for verb in ("build", "deploy"):
            self._expect(self.stage.ship(verb), 0)
        self._tell(self.stage.ship("promote"), "promote", "to 10 %", code=0)
        self._tell(self.stage.ship("promote", "--all"), "promote --all", "to 100 %", code=0)
        self._expect(self.stage.ship("status"), 0)
        ended = self.stage.ship("rollback", "--reason", "customers see errors")
        self._tell(ended, "rollback", "back, and on hold", code=0)

    def held_release(self) -> None:
        """Show that the hold stops the next release until it is released."""
        self.stage.chapter("6", "The next release meets the hold")
        self.stage.commit("Fix it", _PAGE, "answers you", "answers now")
        self._tell(self.stage.ship("deliver"), "deliver on hold", "refused", code=3)
        self._tell(self.stage.ship("resume"), "resume", "hold released", code=0)
        self._tell(self.stage.ship("deliver"), "deliver again", "serving", code=0)

    def table(self) -> Table:
        """Return the table at the end."""
        return Table(
            columns=["WHAT", "HAPPENED", "TOOK", "REQUESTS", "FAILED", "EXIT CODE"], rows=self.rows
        )

    def _tell(self, ended: Ended, what: str, happened: str, code: int) -> None:
        answers = ended.answers
        self.rows.append(
            [what, happened, f"{ended.seconds:.1f} s", str(len(answers)), str(failed(answers)),
             str(ended.code)]
        )  # fmt: skip
        if failed(answers):
            self.surprises.append(f"{what}: {failed(answers)} requests failed")
        self._expect(ended, code)

    def _expect(self, ended: Ended, code: int) -> None:
        if ended.code != code:
            self.surprises.append(f"{ended.command}: exit code {ended.code}, expected {code}")

    def _no_user_reached(self, ended: Ended) -> None:
        revision = self.stage.revision()
        reached = sum(answer.revision == revision for answer in ended.answers)
        self.stage.say(f"{reached} of {len(ended.answers)} user requests reached {revision}")
        if reached:
            self.surprises.append(f"{revision}: {reached} user requests reached it")

    def _show_split(self, ended: Ended) -> None:
        rows = []
        for plan in self.stage.plans(ended.started, ended.started + ended.seconds):
            seen = observed(plan.answers)
            for name in sorted(plan.shares, key=lambda name: -plan.shares[name]):
                rows.append(
                    [name, f"{plan.shares[name]} %", f"{seen.get(name, 0):.1f} %",
                     str(len(plan.answers)), str(failed(plan.answers))]
                )  # fmt: skip
        columns = ["REVISION", "WEIGHT", "OBSERVED", "OF REQUESTS", "FAILED"]
        self.stage.show(Table(columns=columns, rows=rows))
