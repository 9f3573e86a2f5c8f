"""Instances that outlived a killed emulator: written down when started, ended at the next start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from emulator.store import Store


class Ledger:
    """Which process groups this state folder's instances run in."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, pid: int) -> None:
        """Write down the leader of a new process group."""
        self._store.write(f"{pid}.json", {"pid": pid, "started": started_at(pid)})

    def remove(self, pid: int) -> None:
        """Forget a process group that has ended."""
        self._store.delete(f"{pid}.json")

    def end_leftovers(self, workplace: Path) -> None:
        """Kill what an earlier emulator left; it works somewhere in the folder `workplace`.

        A process counts only if it started when the ledger says: by now, its number may be that
        of another one.
        """
        for entry in list(self._store.documents(".")):
            pid: int = entry["pid"]
            now = started_at(pid)
            if (now and now == entry["started"]) or (not now and _is_ours(pid, workplace)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            self.remove(pid)


def started_at(pid: int) -> str:
    """When a process started, as text that no later process of the same number repeats; or ""."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # Field 2 is the command in brackets, and may hold blanks; field 22 is the start.
            return stat.read_text().rpartition(")")[2].split()[19]
        except (OSError, IndexError):
            return ""
    listing = subprocess.run(
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listing.stdout.strip()


def _is_ours(group: int, workplace: Path) -> bool:
    """Whether a process group whose leader is gone has a member that works in `workplace`."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) != group:
                continue
            if Path(os.readlink(stat.parent / "cwd")).is_relative_to(workplace):
                return True
    return False
