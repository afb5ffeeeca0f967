"""One attempt of one command: the body runs, its steps are recorded before it goes on (I4).

In order: the body is called, when its start was answered (P3); each ``ctx.step`` answers from the journal or, when all earlier
commits are answered (P13), runs and is recorded; ``ctx.sleep`` waits here or, when nothing else happens, the body is closed and the command
leaves memory until then. A body may have branches (``branches``), which hear of all that in one order (``order``). How the attempt ended is
the lane's to carry out.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from statemq.config import LIMITS
from statemq.context import Context
from statemq.errors import Fail, StepConflict, StepFailed, TooLarge
from statemq.store.commands import Queued
from statemq.worker import cut, tell
from statemq.worker.branches import STANDING, Branch, Branches, drop, left_behind
from statemq.worker.engine import NOW, Engine
from statemq.worker.journal import failed_before
from statemq.worker.judge import Run
from statemq.worker.limit import TimeLimit
from statemq.worker.order import Order
from statemq.worker.pure import Pure
from statemq.worker.returned import read_result
from statemq.worker.slot import Slot
from statemq.worker.step import Step, StepRecord, args_digest, decode_record, encode_record, numbers
from statemq.worker.suspects import went_on
from statemq.worker.tries import tried
from statemq.worker.waits import Timeout, Waits

if TYPE_CHECKING:
    from statemq.worker.lane import Lane

__all__ = ["Attempt", "Pure"]

R = TypeVar("R")

INSIST_S = 5.0
"""How long a body that was cancelled may take to end, until it is cancelled again."""


REFUSALS = 100
"""What a body asks for after its end is refused so often as its cancellation; a loop that swallows that each time gets another error."""


class Closing(asyncio.CancelledError):
    """The attempt is over; its body must not do anything durable any more."""


class Closed(BaseException):
    """The same, for a body that swallows its cancellation in a loop, which would keep the worker's loop from turning."""


class Gone(BaseException):
    """The command was cancelled or removed while it ran."""


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class Attempt:
    """The engine behind a body's ``ctx``. ``stopped``: why we closed it (suspend, cancel, redo, gone, late, over), or None."""

    def __init__(self, lane: Lane, command: Queued, run: Run) -> None:
        self.lane, self.command, self.run = lane, command, run
        self.partition = lane.partition
        self.stopped: str | None = None
        self.due_ms = 0
        self.ran: list[tuple[str, int]] = []
        """Steps that ran in this attempt, with ms."""
        self.clock_ms = self.began_ms = self.partition.now_ms()
        self.unread: set[str] = set()
        """Recorded steps that this attempt has not come to yet."""
        if journal := command.journal:
            self.unread.update(f for f in journal if not f.startswith(("@", NOW)))
            self.clock_ms = int(journal.get("@started", self.began_ms))
        self.recorded = len(self.unread)
        self._records = sum(not f.startswith("@") or f.startswith(cut.CUT) for f in command.journal)
        self._bytes = sum(map(len, command.journal.values()))
        self.called: dict[str, Coroutine[Any, Any, Any] | Timeout] = {}
        """Operations that were called and have not begun."""
        self._n = -1 if command.journal else 0
        self.causes: dict[str, Exception] = {}
        """What steps raised that failed in this attempt, for the traceback."""
        self._failures: dict[str, asyncio.Task[Any]] = {}
        self.running: set[str] = set()
        """Steps that run now."""
        self.in_step: dict[str, asyncio.Task[Any]] = {}
        """Steps that have begun and not ended, in a body with branches; what is recorded may still wait for its turn."""
        self.main = Branch(self)
        self.order: Order | None = None
        """Set once the body has branches, or a time-out."""
        self.former = False
        """A former version began it: it has no places and no order in its journal, and goes on without."""
        self.late_in: list[str] = []
        """Those that ran when its time was up."""
        self.pausing: dict[str, int] = {}
        """Steps that wait for their next try, and until when."""
        self.noted: asyncio.Future[bytes | None] | None = None
        """A time that was told and whose record is not answered: what is done from then on may depend on it."""
        self.slot = Slot(self)
        self._ended = False
        self._refused = 0
        self._body: asyncio.Task[Any] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._limit = None if run.case.timeout_ms is None else TimeLimit(run.case.timeout_ms, self._late)
        self.context = Context(Engine(self), command.key, command.id, command.attempts + 1, command.origin)

    @property
    def is_open(self) -> bool:
        """The body may do something durable."""
        return self.stopped is None and not self._ended

    @property
    def replaying(self) -> bool:
        return bool(self.unread)

    async def body(self) -> Any:
        """What the body returns or raises. Must run in a task of its own, which ``stop`` cancels."""
        if self.stopped is not None:  # before it began
            raise Closing
        self._body = _this_task()
        case = self.run.case
        ctx = (self.context,) if case.has_ctx else ()
        if self._limit is not None:
            self._limit.begin()
        STANDING.set(self.main)
        try:
            result = case.fn(self.run.instance, *ctx, **self.run.arguments)
            if inspect.isawaitable(result):  # else a decorator may have awaited it already
                result = await result
            if (self.called or self.order is not None) and self.is_open and (left := await left_behind(self)):
                raise Fail(left, "left_behind")
            return result
        except asyncio.CancelledError:
            if self.stopped is None:
                raise RuntimeError("the body raised CancelledError by itself") from None
            raise
        finally:
            STANDING.set(None)
            body, self._body, self._ended = self._body, None, True
            if self._limit is not None:
                self._limit.end()
            if self._again is not None:
                self._again.cancel()
            made = vars(self)
            if "waits" in made:
                self.waits.close()
            if self.order is not None:
                self.order.close()
            if "branches" in made:  # gather leaves the others when one raises; they must not go on beside the next attempt
                self.branches.cancel(body)
            if self.called:
                drop(self.called, self.branches)
            self.slot.end()

    def stop(self, reason: str, due_ms: int = 0) -> None:
        """Closes the body; its ``finally`` blocks run, what it calls on ``ctx`` then raises. No effect once the body has ended."""
        if not self._ended and self.stopped is None:
            self.stopped, self.due_ms = reason, due_ms
            if self._body is not None:
                self._insist(0)

    def _insist(self, times: int) -> None:
        """A body may wait in its ``finally``, too, or swallow its end: it is cancelled until it has ended, and told of."""
        if self._body is not None:
            self._body.cancel()
            if times == 2:
                what = f"{self.partition.spec.name}/{self.command.key} {self.command.transition}"
                tell.failing(self.partition, f"{what} does not end though it was cancelled {times + 1} times; its key waits for it")
            self._again = asyncio.get_running_loop().call_later(INSIST_S, self._insist, times + 1)

    def _late(self) -> None:
        self.late_in = sorted(self.running)
        self.stop("late")

    def drain(self) -> None:
        """The worker is leaving: what only sleeps, or pauses before a step's next try, leaves memory now; the next owner need not wait."""
        self.waits.look()

    # -- its branches ------------------------------------------------------------------------------

    @functools.cached_property
    def branches(self) -> Branches:
        return Branches(self, self._body)

    @functools.cached_property
    def waits(self) -> Waits:
        return Waits(self)

    OPERATIONS: ClassVar[frozenset[types.CodeType]]
    """Code of what ``step`` and ``sleep`` give."""

    def branch_out(self) -> None:
        """From now on the body hears of what ends in one order, since it can do more than one thing at a time."""
        if self.order is None:
            self.former = self.began_before()
            self.order = Order(self)

    def moved(self) -> None:
        """A branch has ended."""
        self.waits.moved()
        if self.order is not None:
            self.order.kick()

    def goes_on(self) -> None:
        """It has a slot again."""
        if self.order is not None:
            self.order.kick()
        if self.order is None or self.order.live:
            self.waits.due()

    @property
    def is_still(self) -> bool:
        """Nothing runs, or is about to be heard. A step that pauses runs, but for a worker that is leaving."""
        runs = self.running - self.pausing.keys() if self.partition.draining else self.running
        return not runs and (self.order is None or self.order.idle)

    # -- its operations ----------------------------------------------------------------------------

    def began_before(self) -> bool:
        return not all(numbers(self.command.journal))

    def check_open(self) -> None:
        if self.stopped is not None or self._ended:
            self._refused += 1
            raise (Closing if self._refused <= REFUSALS else Closed)(
                "this attempt is over; put undo into the transition's next attempt, not into finally"
            )

    @property
    def failed(self) -> list[str]:
        """Steps that failed in this attempt, whose failure may have led to its own: the body did nothing durable after they had.

        Where it did, such as undoing an earlier step, it has gone on from the failure, which must stand.
        """
        return list(self._failures)

    def leaves_failures(self) -> None:
        if self._failures:
            task = _this_task()
            main = task is self._body  # what its branches raised it has heard of
            self._failures = {field: of for field, of in self._failures.items() if of is not task and not (main and of.done())}

    def check_room(self) -> None:
        records = self._records + len(self.running)
        if records >= LIMITS.steps:
            raise TooLarge(f"the journal of {self.command.transition}", records + 1, LIMITS.steps, "records")

    async def step(self, step: Step) -> Any:
        field, order = step.field, self.order
        self.called.pop(field, None)
        self.check_open()
        self.leaves_failures()
        earlier = False
        if order is not None:
            self.in_step[field] = _this_task()
        try:
            step.mark = args_digest(step.args) if step.args else ""
            raw = self.command.journal.get(field)
            if raw is None:
                record = await self._run_and_record(step)
            else:
                earlier = field in self.unread
                self.unread.discard(field)
                record = decode_record(raw)
                if order is not None:
                    await self.untimed(order.recorded(field))
                    await cut.stays(self, field, record.n)  # its record was on its way when it was cancelled
        finally:
            if order is not None:
                self.in_step.pop(field, None)
        if record.args != step.mark:
            raise StepConflict.changed(field, failed_before(self.command.journal)) if earlier else StepConflict(field)
        self.clock_ms = max(self.clock_ms, record.at)
        if record.error is not None:
            error, self._failures[field] = record.error, _this_task()
            raise StepFailed(field, error.type, error.reason, error.code) from self.causes.pop(field, None)
        # the first run decodes what it recorded, so it sees what a replay sees
        return read_result(field, step.returns, record.result)

    async def _run_and_record(self, step: Step) -> StepRecord:
        """The record that stands: the one made here, or one made before."""
        partition, limit, field = self.partition, self._limit, step.field
        if self.order is not None:
            await self.untimed(self.order.until_live())
            await cut.stays(self, field)
        self.check_room()
        self.running.add(field)
        standing, loop, began_s = STANDING.get(), asyncio.get_running_loop(), -1.0
        try:
            if not self._is_clear():
                await self.untimed(self.clear())
            STANDING.set(step)  # what its function makes is no branch
            began_s = loop.time()
            work = tried(self, step)
            result, error = await (work if limit is None else limit.working(work))
            took_ms = round((loop.time() - began_s) * 1000)
            STANDING.set(standing)
            if error is not None:
                self._failures[field] = _this_task()  # from now on it stands, also if the body ends before it hears of it
            record = StepRecord(result, error, step.mark, partition.now_ms(), took_ms, n=self.count())
            if self.order is not None:
                record = await self.keep(field, record)
            elif (raw := await self._record(field, value := encode_record(record))) is not value:
                record = decode_record(raw)
            self.ran.append((field, took_ms))
            tell.recorded(partition, self.command, field, took_ms)
            return record
        except asyncio.CancelledError:
            if began_s >= 0 and self.is_open:
                cut.note(self, field)
            raise
        finally:
            self.running.discard(field)
            STANDING.set(standing)

    def beside(self, work: Awaitable[R]) -> Awaitable[R]:
        """``work`` is for a step that works, and not the body's: neither its time limit nor the step's runs meanwhile."""
        return work if self._limit is None else self._limit.beside(work, step=True)

    def untimed(self, work: Awaitable[R]) -> Awaitable[R]:
        """``work`` is not the body's: its time limit does not run meanwhile."""
        return work if self._limit is None else self._limit.beside(work)

    def _is_clear(self) -> bool:
        """``clear`` has nothing to wait for."""
        return self.lane.is_settled and self.partition.is_confirmed and self.stopped is None and self.slot.held and self.noted is None

    async def clear(self) -> None:
        """Returns when outside effects are allowed: nothing this stands on can be undone (P13), and the lease has not run out."""
        await self.slot.taken()
        await self.lane.settled()
        while (noted := self.noted) is not None:
            if await asyncio.shield(noted) is None:
                self.stop("gone")
                raise Gone
            if self.noted is noted:
                self.noted = None
        await self.partition.confirm()
        self.check_open()

    @property
    def records(self) -> int:
        """How many there are, by their numbers."""
        if self._n < 0:
            self._n = max(numbers(self.command.journal), default=0)
        return self._n

    def count(self) -> int:
        """The number of the record that is made now."""
        self._n = self.records + 1
        return self._n

    async def keep(self, field: str, record: StepRecord) -> StepRecord:
        """The record that stands: this one, or one made before; in a body with branches when it is its turn to be heard."""
        order = self.order
        if order is None:
            value = encode_record(record)
            raw = await self._record(field, value)
            return record if raw is value else decode_record(raw)
        record = msgspec.structs.replace(record, ended=order.take_ended())
        news = order.place(field)
        try:
            value = encode_record(record)
            raw = await self._record(field, value)
            await self.untimed(order.heard(news))
            return record if raw is value else decode_record(raw)
        finally:
            order.withdraw(news)

    def send(self, field: str, value: bytes) -> asyncio.Future[bytes | None]:
        """Answered with the record that stands: this one, or one made before (P15)."""
        command, started = self.command, b""
        if self._bytes + len(value) > LIMITS.journal:
            raise TooLarge(f"the journal of {command.transition}", self._bytes + len(value), LIMITS.journal)
        self._records, self._bytes = self._records + 1, self._bytes + len(value)
        if "@started" not in command.journal and not field.startswith("@"):
            started = command.journal["@started"] = b"%d" % self.clock_ms
        command.journalled = True
        if command.crashes:  # in one write with the record: code that dies as soon as it hears of it has gone on all the same
            went_on(self.lane, command)
        return self.partition.batches.record(command, field, value, started)

    async def _record(self, field: str, value: bytes) -> bytes:
        """The record that stands: this one, or one made before (P15)."""
        stands = await self.untimed(self.send(field, value))
        if stands is None:
            self.stop("gone")
            raise Gone
        self.command.journal[field] = stands
        return stands

    async def sleep(self, field: str, ms: int) -> None:
        self.called.pop(field, None)
        due_ms = await self.waits.reach(field, ms)
        if self.order is not None or due_ms > self.partition.now_ms():
            await self.untimed(self.waits.until(field, due_ms))
        self.clock_ms = max(self.clock_ms, due_ms)


Attempt.OPERATIONS = frozenset({Attempt.step.__code__, Attempt.sleep.__code__})
