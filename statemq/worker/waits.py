"""What an attempt waits for durably: sleeps and time-outs. They end in memory at their own time, whatever stands beside them.

When all branches wait for such things and nothing else, and have for a while, the body leaves memory until the earliest of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from types import TracebackType
from typing import TYPE_CHECKING, Any

from statemq.codec import duration_text
from statemq.context import InvalidCall
from statemq.worker import tell
from statemq.worker.order import News, end_of
from statemq.worker.order import tell as done
from statemq.worker.step import StepRecord, decode_record

if TYPE_CHECKING:
    from statemq.worker.execute import Attempt

LOOK_S = 0.05
"""How soon it is looked again whether a body may leave, where that is urgent."""


def current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread
        return None


class Wait:
    __slots__ = ("due_ms", "end", "field", "news", "over")

    def __init__(self, field: str, due_ms: int, end: Callable[[], None]) -> None:
        self.field, self.due_ms, self.end, self.over = field, due_ms, end, False
        self.news: News | None = None
        """It is over and will be told when it is its turn."""


class Waits:
    """Those of one attempt."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt, self._partition = attempt, attempt.partition
        self._loop = asyncio.get_running_loop()
        self._context = attempt.partition.shop.context
        self._waits: dict[str, Wait] = {}
        self._next: list[tuple[int, int, Wait]] = []
        """Those that are not due yet, the earliest first, and some that are over: a heap."""
        self._begun = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        self._look: asyncio.TimerHandle | None = None
        self._moved_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._waits)

    async def reach(self, field: str, ms: int) -> int:
        """When the sleep or time-out is over: recorded when it was first reached."""
        attempt = self._attempt
        attempt.check_open()
        attempt.leaves_failures()
        if field.startswith("timeout@"):
            attempt.branch_out()  # it may end while something else is waited for
        order = attempt.order
        if (raw := attempt.command.journal.get(field)) is not None:
            attempt.unread.discard(field)
            if order is not None:
                await attempt.untimed(order.recorded(field))
            return decode_record(raw).due
        if order is not None:
            await attempt.untimed(order.until_live())
        attempt.check_room()
        await attempt.untimed(attempt.clear())
        now = self._partition.now_ms()
        return (await attempt.keep(field, StepRecord(due=now + ms, at=now, n=attempt.count()))).due

    async def until(self, field: str, due_ms: int) -> None:
        """Returns when it is due, and this branch's turn to hear of it."""
        over = self._loop.create_future()
        self.begin(field, due_ms, lambda: done(over))
        self._attempt.slot.rest()
        try:
            await self._attempt.branches.hold(over)
        finally:
            self.end(field)

    async def pause(self, field: str, ms: int) -> None:
        """Returns when the step may be tried again."""
        attempt, over = self._attempt, self._loop.create_future()
        attempt.pausing[field] = self._partition.now_ms() + ms
        timer = self._loop.call_later(ms / 1000, done, over, context=self._context)
        if self._partition.draining:
            self._look_in(0)
        try:
            await attempt.branches.hold(over)
        finally:
            timer.cancel()
            del attempt.pausing[field]

    def begin(self, field: str, due_ms: int, end: Callable[[], None]) -> None:
        """``end`` is called when it is due."""
        attempt, partition = self._attempt, self._partition
        wait = self._waits[field] = Wait(field, due_ms, end)
        self._begun += 1
        heappush(self._next, (due_ms, self._begun, wait))
        if attempt.order is not None:
            attempt.order.expect(end_of(field), end)
        if partition.crash is not None:
            partition.crash.passed(attempt.command.id)
        tell.waits(partition, attempt.command, due_ms, left=False)
        self.moved()
        self._arm()
        if self._look is None or partition.draining:
            self._look_in(0 if partition.draining else partition.patience_s)

    def end(self, field: str) -> None:
        wait, order = self._waits.pop(field), self._attempt.order
        wait.over = True
        if order is not None:
            order.forget(end_of(field))
            if wait.news is not None:
                order.withdraw(wait.news)
        self.moved()

    def moved(self) -> None:
        """A branch has gone on."""
        self._moved_s = self._loop.time()

    def close(self) -> None:
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()

    # -- their ends --------------------------------------------------------------------------------

    def due(self) -> None:
        """Those that are over by now end, the earliest first; in a body with branches each when it is its turn."""
        attempt, now_ms = self._attempt, self._partition.now_ms()
        while (wait := self._first()) is not None and wait.due_ms <= now_ms:
            if attempt.order is not None:
                wait.news = attempt.order.over(wait.field, wait.end)
            elif attempt.slot.regained():
                wait.end()
            else:  # it is asked again when there is one
                return
            heappop(self._next)
        self._arm()

    def _first(self) -> Wait | None:
        """The earliest that is not due yet."""
        while self._next and self._next[0][2].over:
            heappop(self._next)
        return self._next[0][2] if self._next else None

    def _arm(self) -> None:
        wait = self._first()
        if wait is not None and (self._timer is None or wait.due_ms < self._timer_ms):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_ms = wait.due_ms
            wait_s = max(0.0, (wait.due_ms - self._partition.now_ms()) / 1000)
            self._timer = self._loop.call_later(wait_s, self._ring, context=self._context)

    def _ring(self) -> None:
        """Time goes on meanwhile, and a timer may ring a little early: what is not ended now has a timer again."""
        self._timer = None
        attempt = self._attempt
        if attempt.is_open and (attempt.order is None or attempt.order.live):  # else the order asks when all that was recorded is heard
            self.due()

    # -- leaving memory ----------------------------------------------------------------------------

    def look(self) -> None:
        """Whether the body may leave memory now."""
        self._look = None
        attempt, partition = self._attempt, self._partition
        dues = [*(wait.due_ms for wait in self._waits.values()), *attempt.pausing.values()]
        if not attempt.is_open or not dues:
            return
        patience_s, due_ms = partition.patience_s, min(dues)
        far = partition.draining or due_ms - partition.now_ms() > partition.settings.suspend_after_s * 1000
        waited = partition.draining or self._loop.time() - self._moved_s >= patience_s * 0.9
        still = attempt.is_still and attempt.branches.held_all
        if far and waited and still:
            attempt.stop("suspend", due_ms)
            return
        if still:
            attempt.slot.rest()
        self._look_in(LOOK_S if partition.draining else max(patience_s, LOOK_S))

    def _look_in(self, seconds: float) -> None:
        if self._look is not None:
            self._look.cancel()
        self._look = self._loop.call_later(seconds, self.look, context=self._context)


class Timeout:
    """``async with ctx.timeout(…)``: the block ends with TimeoutError when its deadline, which was recorded, has passed."""

    __slots__ = ("_attempt", "_caller", "_cancelling", "_field", "_ms", "_over", "_task")

    def __init__(self, attempt: Attempt, field: str, ms: int) -> None:
        self._attempt, self._field, self._ms = attempt, field, ms
        self._over = False
        self._caller = current_task()
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0

    @property
    def forgotten(self) -> bool:
        """Of one that is not entered: its caller has ended, and neither was cancelled nor failed before it could enter it."""
        task = self._caller
        return task is None or task is current_task() or (task.done() and not task.cancelled() and task.exception() is None)

    async def __aenter__(self) -> None:
        if self._task is not None:
            raise InvalidCall("ctx.timeout(…) is for one block; call it anew for each")
        self._attempt.called.pop(self._field, None)
        self._task = asyncio.current_task()
        assert self._task is not None
        due_ms = await self._attempt.waits.reach(self._field, self._ms)
        self._cancelling = self._task.cancelling()
        self._attempt.waits.begin(self._field, due_ms, self._ring)

    def _ring(self) -> None:
        assert self._task is not None
        self._over = True
        self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._attempt.waits.end(self._field)
        if self._over and self._task is not None and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError(f"the block did not end within {duration_text(self._ms)}") from error
