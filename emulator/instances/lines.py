"""Writes a container's output to its revision's log, line by line."""

from __future__ import annotations

from emulator.logging.models import RevisionLog

_LONGEST = 256 * 1024
_SIGNALS = range(1, 65)


class Lines:
    """The lines of a stream, "stdout" or "stderr". A very long line is logged in parts."""

    def __init__(self, stream: str, log: RevisionLog) -> None:
        self._stream = stream
        self._log = log
        self._pending = b""

    def feed(self, piece: bytes) -> None:
        """Log the lines that a piece of output completes."""
        *lines, self._pending = (self._pending + piece).split(b"\n")
        if len(self._pending) > _LONGEST:
            lines.append(self._pending)
            self._pending = b""
        for line in lines:
            self._write(line)

    def close(self) -> None:
        """Log the last line if it has no end."""
        if self._pending:
            self._write(self._pending)
            self._pending = b""

    def _write(self, line: bytes) -> None:
        self._log.line(self._stream, line.decode("utf-8", "replace").rstrip("\r"))


def of_shell(code: int) -> int:
    """Return the exit code of a command for `ending`: for a signal, a shell's is 128 more."""
    return 128 - code if code - 128 in _SIGNALS else code


def ending(code: int) -> tuple[str, str]:
    """Return the severity and text that Cloud Run logs when a container ends.

    Args:
        code: The exit code; -NUMBER for a signal.
    """
    if code < 0:
        return "ERROR", f"Container terminated on signal {-code}."
    return "ERROR" if code else "WARNING", f"Container called exit({code})."
