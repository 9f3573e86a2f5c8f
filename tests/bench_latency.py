"""A rollback far from the cloud: every answer is 100 ms late, for Shipway and for gcloud alike."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

from tests.clients.test_gcloud import Gcloud
from tests.relay import Relay

_DELAY = 0.1  # seconds


def measure(
    server: str,
    folder: Path,
    revisions: tuple[str, str],
    ship: Callable[..., None],
    seconds: Callable[[Callable[[], None]], float],
    say: Callable[[str, str, str, bool], None],
    rounds: int = 7,
) -> None:
    """Compare `ship rollback` with `gcloud run services update-traffic`, in turns.

    Args:
        server: the local Cloud Run's base URL.
        folder: for gcloud's configuration.
        revisions: two Ready revisions of the service app; the first one serves.
        ship: runs the command line against an `endpoint`.
        seconds: measures a call.
        say: prints one line of the report.
        rounds: how often each is run.
    """
    if not shutil.which("gcloud"):
        print("left out: gcloud is not installed")
        return
    first, second = revisions
    with Relay(server, delay=_DELAY) as relay:
        gcloud = Gcloud(relay.url, folder / "gcloud-far", "shipway-local")

        def ours() -> None:
            ship("rollback", "app", "--to", second, "--no-hold", endpoint=relay.url)

        def theirs() -> None:
            gcloud.run("services", "update-traffic", "app", f"--to-revisions={first}=100")

        mine, their = [], []
        for number in range(rounds):
            relay.exchanges.clear()
            mine.append(seconds(ours))
            if not number:
                print(f"      ship rollback: {len(relay.exchanges)} requests,"
                      f" {relay.in_turn} in turn")  # fmt: skip
            relay.exchanges.clear()
            their.append(seconds(theirs))
            if not number:
                print(f"      gcloud: {len(relay.exchanges)} requests, {relay.in_turn} in turn")
    a, b = statistics.median(mine), statistics.median(their)
    say("ship rollback / gcloud update-traffic, answers 100 ms late",
        f"{a:.3f} s / {b:.3f} s = {a / b:.2f}", "at most 0.50", a / b <= 0.5)  # fmt: skip
