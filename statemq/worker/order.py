"""The order in which a body with branches hears of what has ended: one thing at a time, and at each attempt in the same order.

Each record is numbered, and names the sleeps and time-outs that the body has heard end since the one before. So the journal says who won
a race: an attempt that goes on hears all of that first, in that order, and only then does anything new begin or end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from statemq.worker.step import decode_record

if TYPE_CHECKING:
    from statemq.worker.execute import Attempt

QUIET = 8
"""Turns of the loop after which, if no branch has anything to do, what was heard has had its effect, also by way of further futures."""

RESTLESS = 512
"""After so many turns the next thing is heard all the same: a branch that polls is never quiet."""

LOOK_S, PATIENCE_S, TIMED_S = 0.05, 10.0, 3600.0
"""A branch may stand in a plain await before it comes to what it is to hear next: how often that is looked at, for how long at most, and
for how long if a timer of the body's own runs, which will ring again as it rang the first time."""


class News:
    """Something that has ended, or will, in its place behind what came before."""

    __slots__ = ("event", "tell", "told")

    def __init__(self, event: str) -> None:
        self.event, self.told = event, False
        self.tell: Callable[[], None] | None = None
        """Set once it has ended."""


def tell(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def end_of(field: str) -> str:
    """The event that a sleep or time-out is over; a record's event is its field."""
    return f"@{field}"


class Order:
    def __init__(self, attempt: Attempt) -> None:
        self._attempt, self._branches = attempt, attempt.branches
        self._loop = asyncio.get_running_loop()
        self._context = attempt.partition.shop.context
        self._recorded: deque[str] = deque() if attempt.former else recorded_events(attempt.command.journal, attempt.unread)
        self._left = set(self._recorded)
        self._asked: dict[str, Callable[[], None]] = {}
        self._coming: deque[News] = deque()
        self._gate: list[asyncio.Future[None]] = []
        """Who waits for all that to have been heard."""
        self._turning = False
        self._turns = 0
        self._look: asyncio.TimerHandle | None = None
        self._moved_s = self._loop.time()
        self.ended: list[str] = []
        """Sleeps and time-outs whose end was heard since the last record."""
        self.live = not self._recorded

    @property
    def idle(self) -> bool:
        return self.live and not self._coming

    # -- what was recorded -------------------------------------------------------------------------

    async def recorded(self, event: str) -> None:
        """Returns when it is the turn of this event, which is in the journal."""
        if event in self._left:
            heard = self._loop.create_future()
            await self._hold(heard, lambda: self.expect(event, lambda: tell(heard)), lambda: self.forget(event))

    def expect(self, event: str, then: Callable[[], None]) -> None:
        """``then`` is called when it is the event's turn, if the journal has it."""
        if event in self._left:
            self._asked[event] = then
            self.kick()

    def forget(self, event: str) -> None:
        self._asked.pop(event, None)

    async def until_live(self) -> None:
        """Returns when the body has heard all that is recorded: what is new begins after it."""
        while not self.live:
            heard = self._loop.create_future()
            self._gate.append(heard)
            await self._hold(heard, self.kick, lambda: None)

    async def _hold(self, heard: asyncio.Future[None], begin: Callable[[], None], end: Callable[[], None]) -> None:
        begin()
        try:
            await self._branches.hold(heard)
        finally:
            end()

    # -- what is new -------------------------------------------------------------------------------

    def place(self, event: str) -> News:
        """Its place behind all that has ended before."""
        news = News(event)
        self._coming.append(news)
        return news

    def withdraw(self, news: News) -> None:
        """Nobody is there to hear it any more."""
        if not news.told:
            with contextlib.suppress(ValueError):
                self._coming.remove(news)
                self.kick()

    def take_ended(self) -> tuple[str, ...]:
        """For the record that is made now."""
        ended, self.ended = tuple(self.ended), []
        return ended

    async def heard(self, news: News) -> None:
        """Returns when it is the turn of what has ended."""
        heard = self._loop.create_future()

        def ended() -> None:
            news.tell = lambda: tell(heard)
            self.kick()

        await self._hold(heard, ended, lambda: self.withdraw(news))

    def over(self, field: str, then: Callable[[], None]) -> News:
        """A sleep or time-out is over; ``then`` is called when it is its turn."""
        news = self.place(field)

        def told() -> None:
            self.ended.append(field)
            then()

        news.tell = told
        self.kick()
        return news

    # -- turns -------------------------------------------------------------------------------------

    def kick(self) -> None:
        """There may be something to hear."""
        if not self._turning and (not self.live or (self._coming and self._coming[0].tell is not None)):
            self._turning, self._turns = True, 0
            self._loop.call_soon(self._turn, context=self._context)

    def close(self) -> None:
        if self._look is not None:
            self._look.cancel()

    def _turn(self) -> None:
        if not self._attempt.is_open:
            return
        self._turns += 1
        if self._turns % QUIET or (self._turns < RESTLESS and not self._branches.settled):
            self._loop.call_soon(self._turn, context=self._context)
            return
        self._turning = False
        if self._tell():
            self._moved_s = self._loop.time()
            if self._look is not None:
                self._look.cancel()
                self._look = None
            self.kick()

    def _tell(self) -> bool:
        """Tells what comes next, if it is there."""
        if not self._attempt.slot.regained():  # it kicks when there is one
            return False
        while self._recorded:
            event = self._recorded[0]
            then = self._asked.pop(event, None)
            if then is None and not self._passes():
                return False
            self._recorded.popleft()
            self._left.discard(event)
            if then is not None:
                then()
                return True
        if not self.live:
            self._attempt.waits.due()  # what was over before comes before what begins now
            if not self._coming:
                self.live = True
                for waiting in self._gate:
                    tell(waiting)
                self._gate.clear()
                return True
        if self._coming and (then := self._coming[0].tell) is not None:
            self._coming.popleft().told = True
            then()
            return True
        return False

    def _passes(self) -> bool:
        """Nobody will come to hear the next thing: the code has changed, or does not do the same each time."""
        waited_s = self._loop.time() - self._moved_s
        if self._branches.held_all or waited_s > (TIMED_S if self._branches.timers else PATIENCE_S):
            return True
        if self._look is None:
            self._look = self._loop.call_later(LOOK_S, self._looks, context=self._context)
        return False

    def _looks(self) -> None:
        self._look = None
        self.kick()


def recorded_events(journal: dict[str, bytes], unread: set[str]) -> deque[str]:
    """All that the journal says was heard, in order, but for what was read already."""
    records = sorted((record.n, field, record) for field in unread if (record := decode_record(journal[field])).n)
    return deque(event for _, field, record in records for event in (*map(end_of, record.ended), field))
