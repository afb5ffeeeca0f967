"""Waiting for callers and outcomes: as long as was asked, while the caller is there and the server runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Any

from statemq.client.client import Handle
from statemq.errors import Pending
from statemq.http.request import Request
from statemq.records import Outcome

SHORT_S = 0.5
"""Most commands end within this; only longer waits pay for watching the caller."""

ASK_WITHIN_S = 2.0


class Within:
    """A time-out that stands in ``limits`` while it runs.

    A class and no generator: after a time-out one of contextlib's would keep the frames of what was done in it until the garbage collector
    comes, and with them the body that did not arrive. The server closes a connection only when nobody holds its body.
    """

    def __init__(self, limits: set[asyncio.Timeout], seconds: float) -> None:
        self._limits, self._limit = limits, asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._limits.add(self._limit)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._limits.discard(self._limit)
        await self._limit.__aexit__(kind, error, trace)


class Waiting:
    """The requests of this process that wait; ``limit`` of them at most, ``each`` of one caller."""

    def __init__(self, limit: int, each: int) -> None:
        self.limit, self.each, self.count = limit, each, 0
        self._of: Counter[str] = Counter()
        self._stopping = asyncio.Event()
        self._limits: set[asyncio.Timeout] = set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Every waiting request answers now that its command goes on, and no further one waits."""
        self._stopping.set()
        for limit in self._limits:
            with suppress(RuntimeError):  # it expires in this very turn
                limit.reschedule(0)

    def within(self, seconds: float) -> Within:
        """Raises TimeoutError in what is done in it after this time, or when the server stops."""
        return Within(self._limits, 0 if self.stopping else seconds)

    async def outcome(self, req: Request, handle: Handle[object], seconds: float) -> Outcome:
        """How the command ended. Raises Pending when the time is over or it is no use to wait on; the command goes on."""
        if self.stopping or self.count >= self.limit or self._of[req.caller] >= self.each:
            return await handle.outcome(timeout=0)
        self.count += 1
        self._of[req.caller] += 1
        try:
            return await (self._short(handle, seconds) if seconds <= SHORT_S else self._long(req, handle, seconds))
        finally:
            self.count -= 1
            self._of[req.caller] -= 1
            if not self._of[req.caller]:
                del self._of[req.caller]

    async def _short(self, handle: Handle[object], seconds: float) -> Outcome:
        """No time to hear of the outcome: it is asked for before the answer is that there is none."""
        try:
            return await handle.outcome(timeout=seconds)
        except Pending:
            with suppress(TimeoutError):
                async with self.within(ASK_WITHIN_S):
                    outcome = (await handle.status()).outcome
                    if outcome is not None:
                        return outcome
            raise

    async def _long(self, req: Request, handle: Handle[object], seconds: float) -> Outcome:
        answer = asyncio.ensure_future(handle.outcome(timeout=seconds))
        others: list[asyncio.Future[Any]] = []
        try:
            await asyncio.wait([answer], timeout=SHORT_S)
            if not answer.done():
                others = [asyncio.ensure_future(req.until_gone()), asyncio.ensure_future(self._stopping.wait())]
                await asyncio.wait([answer, *others], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
        finally:
            for task in [answer, *others]:
                task.cancel()
            await asyncio.gather(answer, *others, return_exceptions=True)
        return await handle.outcome(timeout=0)
