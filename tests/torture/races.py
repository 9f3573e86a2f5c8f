"""Races: two or three commands at once, while others edit the service by hand."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from tests.clients.test_gcloud import Gcloud
from tests.torture import judge
from tests.torture.cells import Result, words
from tests.torture.place import Ended, Facts, Place

PAIRS = (
    ("promote", "rollback"), ("promote", "promote"), ("rollout", "rollback"), ("rollout", "hold"),
    ("deliver", "rollback"), ("deliver", "deliver"), ("older", "newer"), ("promote", "hold"),
    ("deliver", "hold", "status"), ("rollout", "promote", "rollback"), ("hold", "rollback"),
    ("older", "newer", "hold"), ("rollout", "deliver", "promote"), ("resume", "rollback"),
    ("older", "newer", "rollback"), ("deploy", "promote"), ("rollback", "rollback"),
)  # fmt: skip
_STATES = ("ten", "deployed", "steady", "held")
_EDIT = "team.example/edit"


class Editor:
    """Someone who edits the service with another tool, again and again, as fast as allowed.

    Attributes:
        tags: The tags that were acknowledged.
        note: The annotation that was acknowledged last.
    """

    def __init__(self, place: Place, chance: random.Random, gcloud: Gcloud | None) -> None:
        self.tags: dict[str, str] = {}
        self.note = ""
        self._place = place
        self._pauses = [chance.uniform(0, 0.06) for _ in range(8)]
        self._gcloud = gcloud
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        if self._gcloud is not None:
            return self._run_gcloud()
        for number, pause in enumerate(self._pauses):
            time.sleep(pause)
            service = self._place.service()
            tag, note = f"edit{number}", f"edit {number}"
            revision = max(service["spec"]["traffic"], key=lambda one: one.get("percent", 0))
            name = revision["revisionName"]
            service["spec"]["traffic"].append({"revisionName": name, "tag": tag})
            service["metadata"]["annotations"][_EDIT] = note
            service.pop("status")
            status, _ = self._place.api.send("PUT", self._place.path(), service)
            if status == 200:
                self.tags[tag], self.note = name, note
        return None

    def _run_gcloud(self) -> None:
        assert self._gcloud is not None
        name = self._place.project.name
        revision = next(iter(self._place.facts().shares))
        done = self._gcloud.type(
            "run", "services", "update-traffic", name, f"--update-tags=edit0={revision}"
        )
        if done.returncode == 0:
            self.tags["edit0"] = revision


def round_of(place: Place, number: int, seed: int, *, by_gcloud: bool = False) -> Result:
    """Run one round: the commands start within the time that one of them takes."""
    chance = random.Random(f"{seed}/{number}")
    verbs = PAIRS[number % len(PAIRS)]
    state = "steady" if "older" in verbs else chance.choice(_STATES)
    if "resume" in verbs:
        state = "held"
    if "deploy" in verbs:
        state = "ten"  # it needs an image
    place.restore(state)
    commits = _commits(place) if "older" in verbs else {}
    gcloud = None
    if by_gcloud:
        gcloud = Gcloud(place.cloud_run.url, place.folder / "gcloud", "shipway-local")
    before, asked = place.facts(), place.load.asked
    if chance.random() < 0.5:  # a wider window between what is read and what is written
        place.start_fault({
            "name": "slow", "seconds": chance.uniform(0.02, 0.2),
            "method": chance.choice(["PUT", "GET"]), "path": "*/services/*",
        })  # fmt: skip
    edits = chance.random() < 0.6 or by_gcloud
    editor = Editor(place, chance, gcloud) if edits else None
    running = []
    for verb in chance.sample(verbs, len(verbs)):
        command = ["deliver", "--commit", commits[verb]] if verb in commits else words(place, verb)
        running.append((verb, place.start(*command)))
        time.sleep(chance.choice([0, 0, chance.uniform(0, 0.3)]))
    ended = [(verb, one.wait(65)) for verb, one in running]
    if editor:
        editor.wait()
    place.end_faults()
    after = place.facts()
    problems = judge.service_problems(place, before, after)
    for verb, end in ended:
        problems += _problems_of(verb, end)
    problems += _outcome(place, dict(ended), before, after, commits)
    if editor:
        problems += _lost_edits(after, editor)
    failed, place.load.failed = place.load.failed, []
    problems += [f"requests failed: {len(failed)}, {failed[0]}"] if failed else []
    codes = ", ".join(f"{verb} {end.code}" for verb, end in ended)
    said = "\n".join(f"{verb}: {end.err[-500:]}" for verb, end in ended)
    event = "gcloud" if by_gcloud else "edits" if editor else "race"
    return Result(
        f"race {number} seed {seed} {state} {codes}", "+".join(verbs), state, event, problems, 0,
        max(end.seconds for _, end in ended), asked=place.load.asked - asked,
        said=said if problems else "",
    )  # fmt: skip


def _commits(place: Place) -> dict[str, str]:
    older = place.commits["new"]
    return {"older": older, "newer": place.commit("newer", older)}


def _problems_of(verb: str, ended: Ended) -> list[str]:
    said = ended.out + ended.err
    if not ended.in_time:
        return [f"late: {verb}"]
    problems = []
    if found := judge.BUG.search(said):
        problems.append(f"bug: {verb}: {found[0]}")
    if ended.code not in (0, 1, 3):
        problems.append(f"code: {verb} {ended.code}")
    if ended.code and "ship: " not in said and "FAILED" not in said:
        problems.append(f"silent: {verb} {ended.code}")
    return problems


def _outcome(
    place: Place, ended: dict[str, Ended], before: Facts, after: Facts, commits: dict[str, str]
) -> list[str]:
    """Check who won."""
    problems = []
    done = {verb for verb, end in ended.items() if end.code == 0}
    shares = place.by_role(after.shares)
    if "rollback" in done and "resume" not in ended:
        up = {name for name in shares if name in ("v3", "new", "newer")}
        if up and not after.hold:
            problems.append(f"race: rollback lost its hold, {shares}")
        elif up:
            problems.append(f"race: rollback is overtaken, {shares}")
    if {"hold", "rollback"} & done and "resume" not in ended and not after.hold:
        problems.append("race: a hold is lost")
    if before.hold and "resume" not in ended and not after.hold:
        problems.append("race: the earlier hold is lost")
    if before.hold and not {"resume", "rollback"} & set(ended) and before.shares != after.shares:
        problems.append(f"I7: {shares} during a hold")
    if commits and "newer" in done:
        older, newer = place.project.revision(commits["older"]), shares.get("newer", 0)
        if after.shares.get(older) and not {"rollback", "hold"} & set(ended):
            problems.append(f"race: the older commit serves beside the newer, {shares}")
        if newer != 100 and not {"rollback", "hold"} & set(ended):
            problems.append(f"race: the newer commit ended with {shares}")
    return problems


def _lost_edits(after: Facts, editor: Editor) -> list[str]:
    problems = []
    for tag, revision in editor.tags.items():
        if after.tags.get(tag) != revision:
            problems.append(f"I8: the tag {tag} is lost")
    found: Any = after.service["metadata"]["annotations"].get(_EDIT, "")
    if found != editor.note:
        problems.append(f"I8: the edit {editor.note!r} is lost, there is {found!r}")
    return problems
