"""The process groups of instances: those that outlive a killed emulator end at its next start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from emulator.store import Store


class ProcessGroups:
    """The process groups that the instances of a state folder run in, on disk."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, pid: int) -> None:
        """Store the leader of a new process group."""
        self._store.write(f"{pid}.json", {"pid": pid, "started": started_at(pid)})

    def remove(self, pid: int) -> None:
        """Forget a process group that has ended."""
        self._store.delete(f"{pid}.json")

    def end_leftovers(self, workplace: Path) -> None:
        """Kill the processes that an earlier emulator left, which work in the folder `workplace`.

        A process is killed only if its start time is the stored one: its number may belong to
        another process by now.
        """
        for entry in list(self._store.documents(".")):
            pid: int = entry["pid"]
            now = started_at(pid)
            if (now and now == entry["started"]) or (not now and _is_ours(pid, workplace)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            self.remove(pid)


def started_at(pid: int) -> str:
    """Return when a process started; "" if it does not run.

    No later process with the same number has the same text.
    """
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # Field 2 is the command in brackets, and may have blanks; field 22 is the start.
            return stat.read_text().rpartition(")")[2].split()[19]
        except (OSError, IndexError):
            return ""
    listing = subprocess.run(
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listing.stdout.strip()


def _is_ours(group: int, workplace: Path) -> bool:
    """Return whether a process group without its leader has a member that works in `workplace`."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) != group:
                continue
            if Path(os.readlink(stat.parent / "cwd")).is_relative_to(workplace):
                return True
    return False
