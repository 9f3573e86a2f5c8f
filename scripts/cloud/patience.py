"""One policy for every request: what is tried again, after which pause, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")

SECONDS = 60.0
_SHORTEST = 3.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0


def pause_after(waited: float) -> float:
    """Return the seconds until the next look at what has not ended after `waited` seconds.

    Its end is then seen at most a twelfth of the time too late, or 20 ms; at most 2 s.
    """
    return min(max(waited / 12, 0.02), 2.0)


class Trouble(Exception):
    """A try that failed for a reason that may pass.

    Args:
        what: the reason: "Cloud Run answers 503".
        end: gives the result of the try, if it is the last one: returns it, or raises its error.
        after: the seconds that the server asks to wait.
    """

    def __init__(self, what: str, end: Callable[[], Any], after: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.end = end
        self.after = after


class Patience:
    """How long a verb keeps trying in total while servers do not answer as they should.

    The time runs only while a call is in trouble: from the start of its first try that fails, to
    its end. Calls at the same time count once. What succeeds at once, a bake, a build, or the wait
    for a revision to become ready takes nothing of it; those have limits of their own. After as
    long without trouble as the limit, the count starts again at zero.

    One call gets half of the limit, so that one region's failure leaves time for the others. At the
    end of the limit each call still gets one try.

    Args:
        seconds: the limit.
        say: called with a line before each pause.
    """

    def __init__(
        self, seconds: float = SECONDS, say: Callable[[str], None] = lambda _line: None
    ) -> None:
        self.seconds = seconds
        self._say = say
        self._lock = threading.Lock()
        self._spent = 0.0
        self._kept = 0.0
        self._troubled = 0
        self._since = self._ended = 0.0
        self._told_until = 0.0
        self.answered: set[str] = set()
        """The hosts that have answered: their addresses are right."""

    def keep(self) -> None:
        """Keep a quarter of the limit to undo what fails for lack of time."""
        self._kept = self.seconds / 4

    def use_kept(self) -> None:
        """Give the calls that follow the quarter that was kept, and no more."""
        with self._lock:
            self._kept, self._spent = 0.0, self.seconds * 3 / 4
            self._since = time.monotonic()

    def left(self) -> float:
        """Return the seconds that are left for trouble."""
        with self._lock:
            running = time.monotonic() - self._since if self._troubled else 0.0
            return max(0.0, self.seconds - self._kept - self._spent - running)

    def try_seconds(self, longest: float) -> float:
        """Return how long one try may wait for an answer, at most `longest`."""
        return min(longest, max(_SHORTEST, min(self.left(), self.seconds / 2)))

    def persist(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it raises no Trouble or the time is up; return or raise its end.

        The pauses grow exponentially with full jitter, but are as long as the server asks for. It
        is not tried again if the server asks for more than is left.
        Source: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
        """
        began = time.monotonic()
        try:
            return attempt()
        except Trouble as trouble:
            first = trouble
        with self._counted(began):
            return self._again(attempt, first, began + self.seconds / 2)

    def _again(self, attempt: Callable[[], T], first: Trouble, deadline: float) -> T:
        # Imported here: without trouble, no command waits for it.
        import tenacity

        tried = [first]
        jitter = tenacity.wait_random_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE)

        def attempt_again() -> T:
            if tried:
                raise tried.pop()
            return attempt()

        def trouble(state: RetryCallState) -> Trouble:
            error = state.outcome.exception() if state.outcome else None
            assert isinstance(error, Trouble)
            return error

        def pause(state: RetryCallState) -> float:
            return max(trouble(state).after or 0.0, float(jitter(state)))

        def is_over(state: RetryCallState) -> bool:
            return bool(state.upcoming_sleep >= min(deadline - time.monotonic(), self.left()))

        def tell(state: RetryCallState) -> None:
            number, seconds = state.attempt_number + 1, state.upcoming_sleep
            exact = f"{seconds:.1f}" if seconds < 1 else f"{seconds:.0f}"
            self._tell(f"{trouble(state).what}; try {number}, next in {exact} s", seconds)

        def end(state: RetryCallState) -> T:
            last = trouble(state)
            if last.after and last.after > self.seconds / 2:
                line = f"{last.what} and asks to wait {last.after:.0f} s: not tried again"
                self._tell(line, self.seconds)
            ended: T = last.end()
            return ended

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Trouble),
            wait=pause,
            stop=is_over,
            before_sleep=tell,
            retry_error_callback=end,
        )
        result: T = retrying(attempt_again)
        return result

    def _tell(self, line: str, seconds: float) -> None:
        """Say what a pause of `seconds` is for, unless another call's pause was told and lasts."""
        now = time.monotonic()
        with self._lock:
            if now < self._told_until:
                return
            self._told_until = now + seconds
        self._say(line)

    @contextmanager
    def _counted(self, began: float) -> Iterator[None]:
        """Count the time since `began` against the limit."""
        with self._lock:
            if not self._troubled:
                if began - self._ended > self.seconds:
                    self._spent = 0.0
                self._since = max(began, self._ended)
            self._troubled += 1
        try:
            yield
        finally:
            with self._lock:
                self._troubled -= 1
                if not self._troubled:
                    self._ended = time.monotonic()
                    self._spent += self._ended - self._since
