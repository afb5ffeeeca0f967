"""One attempt of one command: the body runs, its steps are recorded before it goes on (I4).

In order: the body is called, when its start was answered (P3); each ``ctx.step`` answers from the journal or, when all earlier
commits are answered (P13), runs and is recorded; ``ctx.sleep`` waits here or, when it is long, the body is closed and the command
leaves memory until then. How the attempt ended is the lane's to carry out.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from statemq.config import LIMITS
from statemq.context import Context
from statemq.errors import Fail, StepConflict, StepFailed, TooLarge, deciding
from statemq.retry import Retry, next_ms
from statemq.store.commands import Queued
from statemq.worker import tell
from statemq.worker.judge import Run, describe, text_of
from statemq.worker.limit import TimeLimit
from statemq.worker.pure import Logger, Pure, uuid_of
from statemq.worker.returned import encode_result, read_result
from statemq.worker.step import (
    NULL,
    Step,
    StepError,
    StepRecord,
    args_digest,
    asked,
    bounded,
    decode_record,
    encode_record,
    in_loop,
    in_thread,
    last_error,
    unfit,
)
from statemq.worker.suspects import went_on

if TYPE_CHECKING:
    from statemq.worker.lane import Lane
    from statemq.worker.threads import Place

__all__ = ["Attempt", "Closing", "Gone", "Pure"]

R = TypeVar("R")

INSIST_S = 5.0
"""How long a body that was cancelled may take to end, until it is cancelled again."""


class Closing(BaseException):
    """The attempt is over; its body must not do anything durable any more."""


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
        self._clock_ms = self.began_ms = self.partition.now_ms()
        self._unread: set[str] = set()
        """Recorded steps that this attempt has not come to yet."""
        if journal := command.journal:
            self._unread.update(f for f in journal if not f.startswith("@"))
            self._clock_ms = int(journal.get("@started", self.began_ms))
        self.recorded = len(self._unread)
        self._records, self._bytes = self.recorded, sum(map(len, command.journal.values())) if command.journal else 0
        self._names: dict[str, int] = {}
        self._uuids = 0
        self._causes: dict[str, Exception] = {}
        """What steps raised that failed in this attempt, for the traceback."""
        self._failures: dict[str, asyncio.Task[Any]] = {}
        self._running: set[str] = set()
        """Steps that run now."""
        self._branches: set[asyncio.Task[Any]] = set()
        """Tasks that are in a step or sleep: the body's own, or those it has made."""
        self.late_in: list[str] = []
        """Those that ran when its time was up."""
        self._quiet: asyncio.Future[None] | None = None
        """Set when none does any more, for who waits for that."""
        self._sleeping: dict[str, int] = {}
        self._pausing: dict[str, int] = {}
        """Steps that wait for their next try, and until when."""
        self._has_slot = True
        self._ended = False
        self._regaining: asyncio.Lock | None = None
        self._body: asyncio.Task[Any] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._limit = None if run.case.timeout_ms is None else TimeLimit(run.case.timeout_ms, self._late)
        self.context = Context(self, command.key, command.id, command.attempts + 1)

    @property
    def replaying(self) -> bool:
        return bool(self._unread)

    @property
    def logger(self) -> Logger:
        return Logger(self.partition.spec.name, self.command.key, self)

    async def body(self) -> Any:
        """What the body returns or raises. Must run in a task of its own, which ``stop`` cancels."""
        if self.stopped is not None:  # before it began
            raise Closing
        self._body = asyncio.current_task()
        case = self.run.case
        ctx = (self.context,) if case.has_ctx else ()
        if self._limit is not None:
            self._limit.begin()
        try:
            result = case.fn(self.run.instance, *ctx, **self.run.arguments)
            return await result if inspect.isawaitable(result) else result  # a decorator may have awaited it already
        except asyncio.CancelledError:
            if self.stopped is None:
                raise RuntimeError("the body raised CancelledError by itself") from None
            raise
        finally:
            self._body, self._ended = None, True
            if self._limit is not None:
                self._limit.end()
            if self._again is not None:
                self._again.cancel()
            for task in self._branches:  # gather leaves the others when one raises; they must not go on beside the next attempt
                task.cancel()
            if not self._has_slot:
                self.partition.slots.free -= 1  # the lane gives it back
                self._has_slot = True

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
        self.late_in = sorted(self._running)
        self.stop("late")

    def drain(self) -> None:
        """The worker is leaving: a command that only sleeps, or pauses before a step's next try, leaves memory now, so that the next owner
        need not wait for it."""
        waits = [*self._sleeping.values(), *self._pausing.values()]
        if waits and self._running <= self._pausing.keys() and self.stopped is None:
            self.stop("suspend", min(waits))

    # -- Context's engine --------------------------------------------------------------------------

    def now_ms(self) -> int:
        return self._clock_ms

    def uuid(self) -> uuid.UUID:
        self._uuids += 1
        return uuid_of(self.command, self._uuids)

    def step(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], retry: Retry | None, timeout_ms: int | None, returns: Any
    ) -> Coroutine[Any, Any, Any]:
        self._check_open()
        if not name or len(name.encode()) > LIMITS.step_name or "@" in name:
            raise ValueError(f'"{name[:80]}" cannot name a step: 1 to {LIMITS.step_name} bytes, without "@"')
        # counted when called, not when awaited: branches made in one order count in that order at each attempt
        n = self._names[name] = self._names.get(name, 0) + 1
        field = name if n == 1 else f"{name}#{n}"
        return self._step(asked(field, fn, args, retry, timeout_ms, returns))

    def sleep(self, ms: int) -> Coroutine[Any, Any, None]:
        self._check_open()
        n = self._names["sleep@"] = self._names.get("sleep@", 0) + 1
        return self._sleep(f"sleep@{n}", ms)

    def _check_open(self) -> None:
        if self.stopped is not None or self._ended:
            raise Closing("this attempt is over; put undo into the transition's next attempt, not into finally")

    @property
    def failed(self) -> list[str]:
        """Steps that failed in this attempt, whose failure may have led to its own: the body did nothing durable after they had.

        Where it did, such as undoing an earlier step, it has gone on from the failure, which must stand.
        """
        return list(self._failures)

    def _goes_on(self) -> None:
        if self._failures:
            task = _this_task()
            main = task is self._body  # what its branches raised it has heard of
            self._failures = {field: of for field, of in self._failures.items() if of is not task and not (main and of.done())}

    def _check_room(self) -> None:
        records = self._records + len(self._running)
        if records >= LIMITS.steps:
            raise TooLarge(f"the journal of {self.command.transition}", records + 1, LIMITS.steps, "records")

    async def _step(self, step: Step) -> Any:
        self._check_open()
        self._goes_on()
        step.mark = args_digest(step.args) if step.args else ""
        raw = self.command.journal.get(step.field)
        if raw is None:
            record = await self._run_and_record(step)
        else:
            self._unread.discard(step.field)
            record = decode_record(raw)
        if record.args != step.mark:
            raise StepConflict(step.field)
        self._clock_ms = max(self._clock_ms, record.at)
        if record.error is not None:
            error, self._failures[step.field] = record.error, _this_task()
            raise StepFailed(step.field, error.type, error.reason, error.code) from self._causes.pop(step.field, None)
        # the first run decodes what it recorded, so it sees what a replay sees
        return read_result(step.field, step.returns, record.result)

    async def _run_and_record(self, step: Step) -> StepRecord:
        """The record that stands: the one made here, or one made before."""
        partition, limit, field = self.partition, self._limit, step.field
        self._check_room()
        self._running.add(field)
        self._branches.add(task := _this_task())
        try:
            if not self._is_clear():
                await self._untimed(self._clear())
            began_s = time.monotonic()
            work = self._try(step)
            result, error = await (work if limit is None else limit.working(work))
            took_ms = round((time.monotonic() - began_s) * 1000)
            record = StepRecord(result, error, step.mark, partition.now_ms(), took_ms)
            value = encode_record(record)
            raw = await self._record(field, value)
            self.ran.append((field, took_ms))
            tell.recorded(partition, self.command, field, took_ms)
            return record if raw is value else decode_record(raw)
        finally:
            self._running.discard(field)
            self._branches.discard(task)
            if self._quiet is not None and not self._running and not self._quiet.done():
                self._quiet.set_result(None)

    async def _try(self, step: Step) -> tuple[msgspec.Raw, StepError | None]:
        """The step's result, or its last error; without a retry policy an error is the attempt's."""
        tries = 0
        while True:
            tries += 1
            place = None if step.is_async else await self._beside(self.partition.threads.take(self._said(step)))
            try:
                if not self.partition.is_confirmed:  # this process may have stood still while it paused, or waited for a thread
                    await self._beside(self.partition.confirm())
                    self._check_open()
                return encode_result(step.field, step.returns, await self._call(step, place)), None
            except (Exception, BaseExceptionGroup) as raised:
                error, end = raised if isinstance(raised, Exception) else unfit(raised), deciding(raised)
                if isinstance(end, Fail):
                    self._causes[step.field] = error
                    return NULL, last_error(end)
                if step.retry is None or isinstance(end, TooLarge) or self.stopped is not None:
                    if error is raised:
                        raise
                    raise error from raised
                wait_ms = next_ms(step.retry, tries, random.random())  # noqa: S311 - jitter
                if wait_ms is None:
                    self._causes[step.field] = error
                    return NULL, StepError(type(error).__name__, text_of(error)[:2000])
                tell.step_retried(self.partition, self.command, step.field, tries, describe(error), wait_ms)
            finally:
                if place is not None:
                    place.give()
            self._pausing[step.field] = self.partition.now_ms() + wait_ms
            try:
                if self.partition.draining:
                    self.drain()
                await asyncio.sleep(wait_ms / 1000)
            finally:
                del self._pausing[step.field]

    def _said(self, step: Step) -> str:
        return f"{self.partition.spec.name}/{self.command.key} {self.command.transition}: {step.field}"

    def _call(self, step: Step, place: Place | None) -> Awaitable[Any]:
        """What the step's function gives; its time-out begins when it does."""
        if place is None:
            work, begun = in_loop(step.fn, step.args), None
        else:
            begun = None if step.timeout_ms is None else asyncio.get_running_loop().create_future()
            work = in_thread(place, step.fn, step.args, begun)
        return work if step.timeout_ms is None else bounded(step.field, work, step.timeout_ms, begun)

    def _beside(self, work: Awaitable[R]) -> Awaitable[R]:
        """``work`` is for a step that works, and not the body's: neither its time limit nor the step's runs meanwhile."""
        return work if self._limit is None else self._limit.beside(work, step=True)

    def _untimed(self, work: Awaitable[R]) -> Awaitable[R]:
        """``work`` is not the body's: its time limit does not run meanwhile."""
        return work if self._limit is None else self._limit.beside(work)

    def _is_clear(self) -> bool:
        """``_clear`` has nothing to wait for."""
        return self.lane.is_settled and self.partition.is_confirmed and self.stopped is None

    async def _clear(self) -> None:
        """Returns when outside effects are allowed: nothing this stands on can be undone (P13), and the lease has not run out."""
        await self.lane.settled()
        await self.partition.confirm()
        self._check_open()

    async def _record(self, field: str, value: bytes) -> bytes:
        """The record that stands: this one, or one made before (P15)."""
        command, started = self.command, b""
        if self._bytes + len(value) > LIMITS.journal:
            raise TooLarge(f"the journal of {command.transition}", self._bytes + len(value), LIMITS.journal)
        self._records, self._bytes = self._records + 1, self._bytes + len(value)
        if "@started" not in command.journal:
            started = command.journal["@started"] = b"%d" % self._clock_ms
        command.journalled = True
        stands = await self._untimed(self.partition.batches.record(command, field, value, started))
        if stands is None:
            self.stop("gone")
            raise Gone
        command.journal[field] = stands
        if command.crashes and stands is value:
            went_on(self.lane, command)
        return stands

    async def _sleep(self, field: str, ms: int) -> None:
        self._check_open()
        self._goes_on()
        partition = self.partition
        raw = self.command.journal.get(field)
        if raw is None:
            self._check_room()
            await self._untimed(self._clear())
            now = partition.now_ms()
            raw = await self._record(field, encode_record(StepRecord(due=now + ms, at=now)))
        self._unread.discard(field)
        due_ms = decode_record(raw).due
        self._clock_ms = max(self._clock_ms, due_ms)
        self._sleeping[field] = due_ms
        self._branches.add(task := _this_task())
        try:
            await self._wait_until(due_ms)
        finally:
            self._branches.discard(task)
            del self._sleeping[field]

    async def _quiet_now(self) -> None:
        """Returns when no step runs."""
        while self._running:  # a branch may have gone from one step to the next
            if self._quiet is None or self._quiet.done():
                self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._quiet)

    async def _wait_until(self, due_ms: int) -> None:
        partition = self.partition
        while (left_ms := due_ms - partition.now_ms()) > 0:
            self._check_open()
            if left_ms > partition.settings.suspend_after_s * 1000 or partition.draining:
                await self._quiet_now()  # steps of other branches end and are recorded first
                self.stop("suspend", min(self._sleeping.values()))
                await asyncio.sleep(0)
                continue
            if partition.crash is not None:
                partition.crash.passed(self.command.id)
            tell.waits(partition, self.command, due_ms, left=False)
            if self._has_slot and not self._running:
                self._has_slot = False
                partition.slots.end(self.lane)
            await self._untimed(asyncio.sleep(left_ms / 1000))
        if self._has_slot:
            return
        if self._regaining is None:
            self._regaining = asyncio.Lock()
        async with self._regaining:  # two branches that wake at one time need one slot
            if not self._has_slot:
                await self._untimed(partition.slots.take())
                if self._ended:  # nobody gives it back
                    partition.slots.give()
                    self._check_open()
                self._has_slot = True
