"""The calls of the APIs: which were made, and which of them a fault strikes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from emulator.faults.settings import CallFault

_KEPT = 10_000


class Call(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A call of an API.

    Attributes:
        number: Its place among all calls since the start, from 1.
        method: Its method.
        path: Its path with the query.
        api: The API's short name; "" for a call that belongs to none.
        status: The status of the real answer; 0 if the call was not done, or not yet.
        fault: The fault that struck it; "" for none.
    """

    number: int
    method: str
    path: str
    api: str = ""
    status: int = 0
    fault: str = ""


class Strike:
    """An active fault of calls, and what it has met so far."""

    def __init__(self, fault: CallFault) -> None:
        self.fault = fault
        self.met = 0
        self.struck = 0
        self.ended = asyncio.Event()
        self.answers: dict[str, Any] = {}
        """The answer to each path before the first strike, for `stale`."""

    def meet(self, call: Call) -> bool:
        """Count a call; return whether the fault strikes it."""
        fault = self.fault
        spreads = fault.spread and self.struck > 0
        if not spreads and not fault.matches(call.method, call.path, call.api):
            return False
        self.met += 1
        behind = self.met - fault.start
        strikes = (
            behind >= 0
            and behind % fault.every == 0
            and (not fault.times or self.struck < fault.times)
        )
        self.struck += strikes
        return strikes

    @property
    def document(self) -> dict[str, Any]:
        """The settings, and how many calls the fault has met and struck."""
        return {**msgspec.to_builtins(self.fault), "met": self.met, "struck": self.struck}


class Calls:
    """Every call, and the faults that strike some of them."""

    def __init__(self) -> None:
        self.strikes: dict[str, Strike] = {}
        self.made: deque[Call] = deque(maxlen=_KEPT)
        self._count = 0

    def start(self, fault: CallFault) -> None:
        """Start a fault; it takes the place of an active one of the same name."""
        self.end(fault.name)
        self.strikes[fault.name] = Strike(fault)

    def end(self, name: str) -> bool:
        """End a fault: calls that hang because of it continue. Return whether it was active."""
        strike = self.strikes.pop(name, None)
        if strike is not None:
            strike.ended.set()
        return strike is not None

    def close(self) -> None:
        """End every fault."""
        for name in list(self.strikes):
            self.end(name)

    def begin(self, method: str, path: str, api: str) -> tuple[Call, Strike | None]:
        """Note a call; return it, and the fault that strikes it."""
        self._count += 1
        call = Call(number=self._count, method=method, path=path, api=api)
        self.made.append(call)
        struck = [strike for strike in self.strikes.values() if strike.meet(call)]
        if struck:
            call.fault = struck[0].fault.name
        return call, struck[0] if struck else None
