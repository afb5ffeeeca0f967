"""How long one attempt may take: its own time, not that of durable sleeps and of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class TimeLimit:
    """Calls ``over`` when ``ms`` of the attempt's time have passed between ``begin`` and ``end``, once."""

    __slots__ = ("_alarm", "_beside", "_ended", "_left_s", "_loop", "_over", "_since_s")

    def __init__(self, ms: int, over: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._left_s, self._over = ms / 1000, over
        self._since_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._beside = 0
        """Branches of the body that wait for what does not count."""
        self._ended = False

    def begin(self) -> None:
        self._since_s = self._loop.time()
        self._alarm = self._loop.call_later(self._left_s, self._ring)

    def end(self) -> None:
        self._ended = True
        self._pause()

    async def beside(self, work: Awaitable[T]) -> T:
        """What ``work`` gives. No time counts while any branch waits for such."""
        self._beside += 1
        self._pause()
        try:
            return await work
        finally:
            self._beside -= 1
            if not (self._beside or self._ended):
                self.begin()

    def _pause(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
            self._left_s -= self._loop.time() - self._since_s

    def _ring(self) -> None:
        self.end()
        self._over()
