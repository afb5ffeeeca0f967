"""How long one attempt may take: its own time, not that of durable sleeps, of the store, or of a loop that stands still."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

STILL_S = 0.1
"""A loop that rings so much too late stood still."""


class TimeLimit:
    """Calls ``over`` when ``ms`` of the attempt's time have passed between ``begin`` and ``end``, once.

    Its time runs while a step works, and while no branch of the body waits for what does not count.
    """

    __slots__ = ("_alarm", "_beside", "_context", "_ended", "_left_s", "_loop", "_over", "_since_s", "_still", "_working")

    def __init__(self, ms: int, over: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # its alarm is no timer of the body's
        self._left_s, self._over = ms / 1000, over
        self._since_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._working = self._beside = 0
        self._still = self._ended = False

    def begin(self) -> None:
        self._turn()

    def end(self) -> None:
        self._ended = True
        self._turn()

    async def working(self, work: Awaitable[T]) -> T:
        """What ``work`` gives. The time runs, whatever others wait for."""
        self._working += 1
        self._turn()
        try:
            return await work
        finally:
            self._working -= 1
            self._turn()

    async def beside(self, work: Awaitable[T], *, step: bool = False) -> T:
        """What ``work`` gives, which does not count; ``step``: a step works on it, but not now."""
        self._beside += 1
        self._working -= step
        self._turn()
        try:
            return await work
        finally:
            self._beside -= 1
            self._working += step
            self._turn()

    def _turn(self) -> None:
        """Whether its time runs has changed, or has not."""
        runs = not self._ended and (self._working > 0 or not self._beside)
        if runs and self._alarm is None:
            self._since_s = self._loop.time()
            self._alarm = self._loop.call_later(self._left_s, self._ring, context=self._context)
        elif not runs and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
            self._left_s -= self._loop.time() - self._since_s

    def _ring(self) -> None:
        self._alarm = None
        late_s = self._loop.time() - self._since_s - self._left_s
        if late_s > STILL_S and not self._still:
            # the loop stood still, for no fault of the body's: what it waits for may have come meanwhile
            self._still, self._left_s = True, late_s
            self._turn()
        else:
            self._ended = True
            self._over()
