"""One key's way through this worker: its commands in entry order, one at a time (I1, I2).

A lane holds what was read of its key and the instance's tip: the state after the last command that ended here, committed or
on its way (P12, P13). ``prepare`` says what comes next, ``run`` runs it; the rest is what the store answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from statemq.store.commands import Queued, from_element
from statemq.store.commit import Ended
from statemq.store.fence import Closed
from statemq.worker import endings, versions
from statemq.worker.bury import bury, look_into
from statemq.worker.execute import Attempt
from statemq.worker.journal import asked_to_stop, inbox_head, peek
from statemq.worker.judge import Doomed, Run, Snapshot, Unfit, Unreadable, cancelled, conclude, describe, judge, trace_of
from statemq.worker.pure import Pure
from statemq.worker.suspects import NOT_YET, SUSPICIOUS, killer, kills

if TYPE_CHECKING:
    from statemq.worker.partition import Partition

CHAIN = 64
"""Pure commands of one key that run in one turn."""

CONFLICTS = 3
"""Conflicts in a row that halt a key (P20)."""


class Job(msgspec.Struct, eq=False):
    """Commands of one lane to run next: a chain of pure ones, or one that may wait. ``claims`` are to be claimed before (P3)."""

    lane: Lane
    commands: list[Queued]
    claims: list[Queued]


class Lane:
    __slots__ = (
        "among",
        "asleep",
        "attempt",
        "backing_off",
        "broken",
        "conflicts",
        "fetching",
        "inbox",
        "inflight",
        "key",
        "loaded",
        "loading",
        "offered",
        "parking",
        "parks",
        "partition",
        "prepared",
        "queue",
        "redo",
        "settling",
        "snap",
        "stale",
        "suspected",
        "task",
        "unknown_since",
        "weight",
    )

    def __init__(self, partition: Partition, key: str) -> None:
        self.partition, self.key = partition, key
        self.queue: deque[Queued] = deque()
        self.snap = Snapshot("", 0, b"", "", False)
        self.weight = 0
        """Bytes of its data, as the partition counts them."""
        self.loaded = self.loading = self.stale = False
        self.inbox = False
        """The inbox may hold commands: what arrives goes behind them."""
        self.asleep = False
        """The inbox's head waits or the instance is paused: nothing runs until a wake-up or a look."""
        self.fetching = False
        self.parking = self.parks = 0
        """Parks that are not answered, and all there were."""
        self.inflight = 0
        """Commands that ended here and whose commit is not answered."""
        self.broken = False
        """A commit was not applied: what stood on it runs again when all answers are in."""
        self.redo: list[Queued] = []
        self.conflicts = 0
        self.unknown_since = 0
        """Since when (ms) the key has waited for another version of the code, if it has."""
        self.attempt: Attempt | None = None
        self.backing_off = False
        """Its task only waits for the next attempt, which any owner can make."""
        self.task: asyncio.Task[None] | None = None
        """The running attempt, its back-off, or the burial of its command."""
        self.offered = self.prepared = False
        """Waits for its turn; has a job that is not run yet."""
        self.settling: list[asyncio.Future[None]] = []
        self.suspected: Queued | None = None
        """The command that runs as a suspect."""
        self.among = NOT_YET
        """How many suspects run, it included; 0: it alone."""

    # -- what is there to do -----------------------------------------------------------------------

    @property
    def occupied(self) -> bool:
        return self.task is not None

    @property
    def idle(self) -> bool:
        """Nothing of the key is in memory but its instance."""
        return not (
            self.queue
            or self.task
            or self.prepared
            or self.inflight
            or self.loading
            or self.fetching
            or self.parking
            or self.redo
            or self.offered
        ) and (not self.inbox or self.asleep)

    @property
    def crowd(self) -> int:
        """How many suspects may run beside each other, by the one that runs here or is next; 0: any number."""
        c = self.suspected or (self.queue[0] if self.queue else None)
        return 0 if c is None else c.crowd

    def prepare(self, suspect: bool = False) -> Job | None:
        """The next commands to run; or None, and what is missing for it was asked for."""
        p = self.partition
        if self.task is not None or self.prepared or self.broken or self.loading or self.fetching or p.closed or p.draining or p.paused:
            return None
        if not self.loaded or self.stale:
            if self.inflight == 0:
                p.batches.load(self)
            return None
        if self.asleep:
            self.park_all()
            return None
        if not self.queue:
            # P9: an older one may still come from the stream
            if self.inbox and self.inflight == 0 and self.parking == 0 and p.caught_up:
                self.fetching = True
                p.spawn(self._fetch(self.parks))
            return None
        head = self.queue[0]
        if head.journalled and not head.peeked:
            self.fetching = True
            p.spawn(self._peek())
            return None
        if p.batches.full:
            p.batches.hold_back(self)
            return None
        if head.crashes >= SUSPICIOUS and not kills(head, p.settings.max_crashes):
            if not suspect:
                p.slots.suspect(self)
                return None
            self.suspected = head
        commands = [self.queue.popleft()]
        if head.transition in p.pure and not suspect:
            while self.queue and len(commands) < CHAIN and self._chains(self.queue[0]):
                commands.append(self.queue.popleft())
        self.prepared = True
        pure = p.pure
        return Job(self, commands, [c for c in commands if c.journalled or c.transition not in pure])

    def _chains(self, c: Queued) -> bool:
        return c.crashes < SUSPICIOUS and (c.peeked or not c.journalled) and c.transition in self.partition.pure

    # -- running -----------------------------------------------------------------------------------

    def run(self, job: Job) -> None:
        """Runs what ``prepare`` gave: pure handlers here and now, others as a task that keeps the slot."""
        p, commands = self.partition, job.commands
        self.prepared = False
        for i, c in enumerate(commands):
            if self.broken or p.closed or p.draining or p.paused or p.batches.full:
                self._put_back(commands[i:])
                break
            if c.gone:
                p.let_go(c)
                look_into(p, c)
                continue
            if c.journal and "@cancel" in c.journal:
                self.end(cancelled(self.snap, c), self.snap)
                continue
            verdict: Run | Ended | Doomed | Unfit | Unreadable
            if p.suspects and (why := p.suspects.get(c.id)):
                verdict = Doomed(f"its commit failed: {why}", "commit", garbage=True)
            elif kills(c, p.settings.max_crashes):
                verdict = killer(c)
            else:
                try:
                    verdict = p.fresh().run(judge, p.spec, self.snap, c)
                except Exception as error:  # noqa: BLE001 - a type of the user's raised when it was made of what is stored, or was sent
                    verdict = Doomed(describe(error)[:2000], "internal", type(error).__name__, trace_of(error), garbage=True)
            if isinstance(verdict, Run) and not verdict.case.pure:
                self._put_back(commands[i + 1 :])
                self._attempt(c, verdict)
                return
            if isinstance(verdict, Run):
                if p.crash is not None:
                    p.crash.started(c.id, c.crashes, f"{p.spec.name}/{c.key} {c.transition}")
                    p.crash.ending(c.id)
                try:
                    ended, snap = self._call(c, verdict)
                except BaseException as error:  # noqa: BLE001 - the user's code: its error is the command's, never the worker's
                    self._put_back(commands[i + 1 :])
                    self._own(endings.undoable(self, c, endings.after_error(self, c, verdict, error)))
                    return
                self.end(ended, snap)
                continue
            if not isinstance(verdict, Ended):
                self._put_back(commands[i + 1 :])
                self._own(endings.undoable(self, c, self._halted(c, verdict)))
                return
            self.end(verdict, self.snap)
        p.slots.end(self)
        if self.broken or self.redo:
            self._rebuild()
        if self.queue or self.inbox or self.stale:
            self.offer()

    def _halted(self, c: Queued, why: Doomed | Unfit | Unreadable) -> Coroutine[Any, Any, None]:
        if isinstance(why, Doomed):
            return endings.doomed(self, c, why)
        return versions.unknown(self, c, why) if isinstance(why, Unfit) else versions.unreadable(self, c, why)

    def _call(self, c: Queued, run: Run) -> tuple[Ended, Snapshot]:
        case, spec, call = run.case, self.partition.spec, self.partition.fresh().run
        if case.has_ctx:
            ctx = Pure(spec.name, c, self.partition.now_ms()).context()
            result = call(case.fn, run.instance, ctx, **run.arguments)
        else:
            result = call(case.fn, run.instance, **run.arguments)
        return conclude(spec, self.snap, c, run, result)

    def _attempt(self, c: Queued, run: Run) -> None:
        versions.came(self.partition, c)
        self.attempt = Attempt(self, c, run)
        if self.stale:  # a look came when its journal had been read
            self.partition.spawn(self._ask_cancel(self.attempt))
        if self.partition.crowded:
            self._park_unparked()
        self._own(endings.undoable(self, c, endings.run_attempt(self, self.attempt, c, run)))

    def _own(self, work: Any) -> None:
        """The lane is occupied until ``work`` is over; the slot goes back with it."""
        self.task = self.partition.spawn(work)
        self.task.add_done_callback(self._owned)

    def _owned(self, task: asyncio.Task[None]) -> None:
        self.task = self.attempt = None
        self.partition.slots.end(self)
        self._rebuild()
        self.offer()

    def end(self, ended: Ended, snap: Snapshot, attempt: Attempt | None = None) -> None:
        """The command has ended: its commit goes with the next call, the tip is its result."""
        self.snap = snap
        self.inflight += 1
        self.partition.batches.end(ended, attempt)

    @property
    def is_settled(self) -> bool:
        """``settled`` has nothing to wait for, and nothing to raise."""
        return not (self.inflight or self.broken or self.partition.closed)

    async def settled(self) -> None:
        """Waits until what this lane has ended is committed (P13): effects and ends must not stand on what may be undone.

        Raises endings.Undone when it was not applied, Closed when the tenure is over and nobody will tell.
        """
        if self.partition.closed:
            raise Closed
        if self.inflight and not self.broken:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.settling.append(waiter)
            await waiter
        if self.broken:
            raise endings.Undone

    # -- what the store answered -------------------------------------------------------------------

    def committed(self, c: Queued, word: str) -> None:
        p = self.partition
        self.inflight -= 1
        if word == "applied":
            self.conflicts = 0
            p.let_go(c)
        else:
            self.broken = True
            if word == "conflict":
                self.redo.append(c)
            else:
                p.let_go(c)
                look_into(p, c)
            if self.attempt is not None:
                self.attempt.stop("redo")
        if self.inflight == 0:
            if self.settling:
                self._settle()
            if self.broken or self.redo:
                self._rebuild()
            if self.queue or self.inbox or self.stale:
                self.offer()
            p.weighed(self)

    def _settle(self) -> None:
        for waiter in self.settling:
            if not waiter.done():
                waiter.set_result(None)
        self.settling.clear()

    def _rebuild(self) -> None:
        """All answers are in and nothing runs: what was not applied runs again, in order, on what is stored."""
        if (self.broken or self.redo) and self.inflight == 0 and self.task is None and not self.prepared:
            self.broken = self.loaded = False
            again, self.redo = self.redo, []
            for c in again:
                c.peeked, c.journalled = False, True
            if again:
                self.conflicts += 1
            self.queue = deque(sorted([*again, *self.queue], key=lambda c: c.order))
            if self.conflicts >= CONFLICTS:
                self.partition.halt_key(self)

    def took_row(self, row: list[Any]) -> None:
        """The instance as stored, and its inbox's head (P8): what is older than the head runs first, the rest goes behind."""
        state, version, data, entered, paused, head, ready = row
        self.loading = False
        self.loaded = True
        exists = version is not None
        self.snap = Snapshot(
            state.decode() if exists else self.partition.spec.initial,
            int(version) if exists else 0,
            data or b"",
            entered.decode() if entered else "",
            exists,
        )
        self.asleep = bool(paused) or (head is not None and ready is None)
        if paused and paused.startswith(versions.PAUSED.encode()) and versions.readable(self.partition.spec, self.key, self.snap):
            self.partition.spawn(versions.read_again(self.partition, self.key))
        self.inbox = head is not None or self.parking > 0
        first = from_element(head) if head is not None else None
        if first is not None and self.queue:
            older = [c for c in self.queue if not c.parked and c.order < first.order]
            younger = [c for c in self.queue if not c.parked and c.order > first.order]
            for c in self.queue:
                if c.parked:
                    self.partition.let_go(c)
            self.queue = deque(older)
            self.partition.batches.park(self, younger)
            if older and not paused:
                self.asleep = False
        if self.asleep:
            self.park_all()
        self.offer()
        self.partition.weighed(self)  # last: until it is offered it may seem idle, and two lanes of a key would be two writers (I1)

    def unreadable(self, error: str) -> None:
        """A key of the instance was damaged by hand: what waits for it here is buried with the error, others go on."""
        self.loading = self.loaded = False
        queued, self.queue = list(self.queue), deque()
        doom = Doomed(f"{self.partition.spec.name}/{self.key} cannot be read: {error}", "damaged", garbage=True)
        for c in queued:
            self.partition.spawn(bury(self.partition, c, doom, self.snap))

    def arrived(self, c: Queued) -> None:
        """A command was read. Beyond a small read-ahead a busy key's commands are parked, so that they do not fill the window."""
        p = self.partition
        if (self.inbox and self.loaded) or (self.occupied and (p.crowded or len(self.queue) >= p.settings.read_ahead)):
            p.batches.park(self, [c])
        else:
            self.queue.append(c)
            if self.task is None:
                self.offer()

    def woken(self) -> None:
        """The inbox's head may run, unless the instance was paused: it is read anew."""
        self.asleep, self.inbox, self.stale = False, True, True
        self.offer()

    def look(self) -> None:
        """Somebody changed the instance or its queue: it is read anew."""
        self.stale = True
        for c in self.queue:
            c.peeked = False  # it may be asked to cancel
        if self.attempt is not None:
            self.partition.spawn(self._ask_cancel(self.attempt))
        self.offer()

    def park_all(self) -> None:
        """An asleep key keeps nothing in memory."""
        self._park_unparked()
        for c in self.queue:
            self.partition.let_go(c)
        self.queue.clear()

    def _park_unparked(self) -> None:
        self.partition.batches.park(self, [c for c in self.queue if not c.parked])
        self.queue = deque(c for c in self.queue if c.parked)

    def offer(self) -> None:
        if not self.partition.closed:
            self.partition.slots.offer(self)

    def drop(self) -> None:
        """The tenure is over."""
        if self.attempt is not None and not self.backing_off:
            self.attempt.stop("over")
        elif self.task is not None:
            self.task.cancel()
        for waiter in self.settling:
            waiter.cancel()
        self.settling.clear()
        self.queue.clear()

    # -- asking ------------------------------------------------------------------------------------

    async def _fetch(self, parks: int) -> None:
        """Takes the next commands of the inbox into memory; they stay in the inbox until their commit.

        ``parks``: how many there were when this was decided, all of them answered.
        """
        p = self.partition
        n = 1 if p.crowded else min(CHAIN, p.affords)
        expected = n * p.mean_bytes
        p.reserve(expected)
        try:
            found = [from_element(raw) for raw in await inbox_head(p, self.key, n)]
            commands = [c for c in found if c is not None]
            if commands:
                p.expect(sum(c.size for c in commands), len(commands))
            live = await peek(p, commands, check_accepted=True)
            if found and not live:
                await p.skip(self.key)  # only ended ones, or what is no command: off they go
            elif not found:
                self.inbox = self.parks != parks  # what was parked since may be younger than this answer
            for c in live:
                p.hold(c)
            self.queue.extend(live)
        finally:
            p.reserve(-expected)
            self.fetching = False
        self.offer()

    async def _peek(self) -> None:
        """Reads the journals of the next commands: attempts, a request to cancel, recorded steps (I4)."""
        try:
            await peek(self.partition, [c for c in list(self.queue)[:CHAIN] if c.journalled and not c.peeked])
        finally:
            self.fetching = False
        self.offer()

    async def _ask_cancel(self, attempt: Attempt) -> None:
        why = await asked_to_stop(self.partition, attempt.command.id)
        if why and self.attempt is attempt:
            attempt.stop(why)

    def _put_back(self, commands: list[Queued]) -> None:
        for c in commands:
            if c.claimed:  # from then on who cancels it asks, by way of its journal (P28)
                c.journalled, c.peeked = True, False
        self.queue.extendleft(reversed(commands))
