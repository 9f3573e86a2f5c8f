"""A container's output, line by line into its revision's log."""

from __future__ import annotations

from emulator.logging.models import RevisionLog

_LONGEST = 256 * 1024


class Lines:
    """Takes pieces of one stream ("stdout" or "stderr"); a line without an end is logged in parts.

    `close` logs what is left.
    """

    def __init__(self, stream: str, log: RevisionLog) -> None:
        self._stream = stream
        self._log = log
        self._pending = b""

    def feed(self, piece: bytes) -> None:
        """Log the lines that this piece completes."""
        *lines, self._pending = (self._pending + piece).split(b"\n")
        if len(self._pending) > _LONGEST:
            lines.append(self._pending)
            self._pending = b""
        for line in lines:
            self._write(line)

    def close(self) -> None:
        """Log the last line, if it had no end."""
        if self._pending:
            self._write(self._pending)
            self._pending = b""

    def _write(self, line: bytes) -> None:
        self._log.line(self._stream, line.decode("utf-8", "replace").rstrip("\r"))


def ending(code: int) -> tuple[str, str]:
    """Severity and text of what Cloud Run logs when a container ends; a signal is -NUMBER."""
    if code < 0:
        return "ERROR", f"Container terminated on signal {-code}."
    return "ERROR" if code else "WARNING", f"Container called exit({code})."
