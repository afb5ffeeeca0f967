"""Threads for blocking steps: who has one, who waits for one, and which calls nobody waits for any more.

A call in a thread cannot be ended. One that was given up (its time is over, its command was cancelled, its tenure lost) keeps its thread
but does not count any more, up to a bound: so calls that hang hold up no healthy one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

from statemq import events
from statemq.codec import duration_text
from statemq.worker.leftover import Threads

R = TypeVar("R")

MOST = 64
"""Blocking calls at one time, if the concurrency is not less."""

GIVEN_UP = 256
"""Calls that were given up and still run; those beyond count like all others."""

FULL_S = 1.0
"""Who has waited so long for a thread is told of, once until nobody waits any more."""

NAMED = 5
"""Calls that a warning names."""


class Place:
    """A thread for one call, from ``StepThreads.take`` until the call has ended, or ``give`` if there was none."""

    __slots__ = ("_threads", "given_up", "left", "since_s", "used", "what")

    def __init__(self, threads: StepThreads, what: str) -> None:
        self._threads, self.what, self.since_s = threads, what, time.monotonic()
        self.used = self.given_up = self.left = False

    async def run(self, call: Callable[[], R], begun: asyncio.Future[None] | None = None) -> R:
        """What ``call`` gives, which must raise Exceptions only. ``begun`` is done when it runs: a new thread may have to wait for the
        interpreter. Who stops waiting for it gives it up."""
        self.used, loop = True, asyncio.get_running_loop()

        def begins() -> R:
            if begun is not None:
                loop.call_soon_threadsafe(_done, begun)
            return call()

        running = self._threads.submit(begins)

        def ended(_: Future[R]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody counts any more
                loop.call_soon_threadsafe(self._threads.ended, self)

        running.add_done_callback(ended)
        self.since_s = time.monotonic()
        try:
            return await asyncio.wrap_future(running)
        finally:
            if not running.done():
                self._threads.give_up(self)

    def give(self) -> None:
        """It was not needed. No effect once its call was begun."""
        if not self.used:
            self._threads.ended(self)

    def __str__(self) -> str:
        return f"{self.what} ({duration_text(round((time.monotonic() - self.since_s) * 1000))})"


class StepThreads:
    """Those of one worker. ``free``: how many calls may begin at once. All but the calls is of the worker's loop."""

    def __init__(self, n: int) -> None:
        self.n = self.free = n
        self._pool = Threads(n + GIVEN_UP)
        self._places: dict[Place, None] = {}
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._left = 0
        self._tell_left_at = 1
        self._alarm: asyncio.TimerHandle | None = None
        self._told_full = self._closed = False

    async def take(self, what: str) -> Place:
        """A place for a call; ``what`` names it for who has to know what hangs. Places are given in the order of asking."""
        if self.free > 0:
            self.free -= 1
        else:
            await self._wait()
        place = Place(self, what)
        self._places[place] = None
        return place

    def shutdown(self) -> None:
        """Nobody waits for anything of it; what has not begun never does."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._pool.shutdown()

    # -- for places --------------------------------------------------------------------------------

    def submit(self, call: Callable[[], R]) -> Future[R]:
        return self._pool.submit(call)

    def give_up(self, place: Place) -> None:
        """Nobody waits for its call any more, which goes on."""
        place.given_up = True
        self._leave()
        if self._left >= self._tell_left_at and not self._closed:
            self._tell_left_at = 2 * self._left
            given_up = [p for p in self._places if p.given_up]
            events.emit(
                events.Warned(
                    text=f"{_counted(len(given_up), 'call')} of blocking steps still run though nobody waits for them any more: "
                    f"{_named(given_up)}. Each keeps a thread of this process ({GIVEN_UP} at most before others have to wait); "
                    "give the call a time limit of its own"
                )
            )

    def ended(self, place: Place) -> None:
        del self._places[place]
        if place.left:
            self._left -= 1
            self._leave()
        else:
            self._freed()
        if not self._left:
            self._tell_left_at = 1

    # -- waiting -----------------------------------------------------------------------------------

    def _leave(self) -> None:
        """What was given up counts no more, as far as there may be such calls."""
        for place in self._places:
            if self._left >= GIVEN_UP:
                break
            if place.given_up and not place.left:
                place.left = True
                self._left += 1
                self._freed()

    def _freed(self) -> None:
        while self._waiting:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        else:
            self.free += 1
        self._calm()

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        waiting = (turn, loop.time())
        self._waiting.append(waiting)
        if self._alarm is None and not self._told_full:
            self._alarm = loop.call_later(FULL_S, self._ring)
        try:
            await turn
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._calm()
            elif not turn.cancelled():  # its turn came at this very moment
                self._freed()
            raise

    def _ring(self) -> None:
        self._alarm = None
        loop = asyncio.get_running_loop()
        left_s = self._waiting[0][1] + FULL_S - loop.time()
        if left_s > 0:
            self._alarm = loop.call_later(left_s, self._ring)
            return
        self._told_full = True
        events.emit(
            events.Warned(
                text=f"all {_counted(self.n, 'thread')} for blocking steps are taken, further ones wait: {_named(self._places)}. "
                "Give such calls a time-out (ctx.step(…, timeout=…)), or run more workers"
            )
        )

    def _calm(self) -> None:
        """If nobody waits any more, the next time is told of again."""
        if self._waiting:
            return
        self._told_full = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _named(places: Iterable[Place]) -> str:
    longest = sorted(places, key=lambda place: place.since_s)
    return ", ".join(map(str, longest[:NAMED])) + (f" and {len(longest) - NAMED} more" if len(longest) > NAMED else "")


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n > 1 else ''}"
