"""One tenure of one partition: from acquire to release or loss.

What was read goes into lanes; what lanes ask of the store is gathered (``batches``).
A reply that ends the tenure drops everything in memory: what was not committed is the next owner's (I1, I3).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Hashable, Iterator, Sequence
from time import monotonic
from typing import Any

from statemq import keys
from statemq.declaration.spec import MachineSpec
from statemq.fresh import copies_of
from statemq.keys import PartitionKeys, forwarded_from
from statemq.store import lease
from statemq.store.commands import ByHand, Garbage, Look, Queued, entry_order, flat_fields, read_entry
from statemq.store.fence import Closed, Fence, ScriptFailed, TenureOver, failure
from statemq.store.lease import Acquired
from statemq.store.periods import times
from statemq.store.wire import ReplyError
from statemq.worker import tell
from statemq.worker.batches import Batches
from statemq.worker.bury import bury_garbage
from statemq.worker.clock import Moment, moment, passed_s
from statemq.worker.lane import Lane
from statemq.worker.patience import Patience
from statemq.worker.shop import Shop
from statemq.worker.window import Window


class Partition(Window):
    def __init__(
        self, shop: Shop, spec: MachineSpec, partition_keys: PartitionKeys, acquired: Acquired, suspects: dict[str, str], asked: Moment
    ) -> None:
        super().__init__(shop.settings, spec.partitions)
        self.shop, self.spec, self.keys = shop, spec, partition_keys
        self.slots, self.threads, self.crash, self._redis_ms = shop.slots, shop.threads, shop.crash, shop.now_ms
        self.fresh = copies_of(shop.context)
        """A context for one call of the user's code."""
        self.router = shop.router
        self.fence = Fence(shop.router, partition_keys, acquired.token, shop.worker)
        self.acquired = acquired
        self.confirmed = asked
        """The last moment at which this tenure is known to have been the partition's: when that was asked, not when it was answered."""
        self.began_s = asked.monotonic_s
        self.ahead_ms = 0
        """By how much the partition's time is ahead of what this worker takes for Redis time."""
        self._looking = False
        self._reckon(acquired.own_ms, acquired.own_ms - acquired.redis_ms, asked.monotonic_s)
        self.suspects = suspects
        """Commands of a batch whose commit raised (P20): each is committed alone; one that raised alone has the error, and is buried."""
        self.position = "0-0"
        self.caught_up = False
        self.paused = acquired.paused
        self.leaving = self.handing_over = False
        """Another worker should have it; somebody waits for the moment to let go."""
        self.patience = Patience(self.settings.grace_s)
        self.in_read = False
        """A blocking read has it."""
        self.tidying: asyncio.Task[None] | None = None
        """Sweeps now and then, which nobody waits for at the end."""
        self.on_caught_up: Callable[[], None] = lambda: None
        self._unread = asyncio.Event()
        self.next_due_ms = acquired.next_due_ms
        self.on_due: Callable[[], None] = lambda: None
        self.pure = frozenset(name for name, t in spec.transitions.items() if all(case.pure for case in t.cases))
        """Transitions that only compute. A fresh command of one is not started: it ends within the loop's turn in which it runs,
        and if the process dies meanwhile, all such commands that were there count as in progress once (P3, P14)."""
        self._channel_prefix = keys.reply_channel(partition_keys.namespace, "")
        self._last_entry = entry_order(acquired.last_entry or "0-0")
        self._past = False
        """Everything that was there before this tenure has been read."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._forwards: list[ByHand] = []
        self._forwarding = False
        self.unknown_told: set[str] = set()
        """What of other versions of the code was told of (``versions``)."""
        self.batches = Batches(self, shop.turn)
        self._loop = asyncio.get_running_loop()

    def now_ms(self) -> int:
        """The partition's own time, by which what waits is due: like Redis time, but it does not go back when the server's clock does. The
        scripts keep it (``own_time``); this is what they said last, and what has passed since."""
        return self._redis_ms() + self.ahead_ms

    def _reckon(self, own_ms: int, ahead_ms: int, asked_s: float) -> None:
        """The partition's time was ``own_ms`` at some moment since it was asked for, and so far ahead of its server's clock. That figure is
        taken where it fits between question and answer: two owners that reckoned from their answers alone would differ by the ways of
        these, and a sleep that one records and the other ends with them. It does not fit where this worker's idea of Redis time is another
        clock's: that of another node, or of the time before the clock was set. Then the nearest that fits is taken."""
        now_ms = self._redis_ms()
        passed_ms = (monotonic() - asked_s) * 1000
        self.ahead_ms = round(min(max(ahead_ms, own_ms - now_ms), own_ms + 1 - now_ms + passed_ms))

    def clock_was_set(self, by_ms: float) -> None:
        """What this worker takes for Redis time has changed by so much, and the partition's time with it only if the scripts say so."""
        self.ahead_ms -= round(by_ms)
        if not self._looking:
            self._looking = True
            self.spawn(self.look_at_clock())

    async def look_at_clock(self) -> None:
        """The partition's time is again what the scripts have for it."""
        self._looking, asked_s = False, monotonic()
        redis_ms, ahead_ms = await times(self.router, self.keys)
        self._reckon(redis_ms + ahead_ms, ahead_ms, asked_s)
        self.on_due()

    def __str__(self) -> str:
        return f"{self.spec.name}:{self.keys.number}"

    @property
    def starting(self) -> bool:
        """Whether new commands may start."""
        return not (self.closed or self.draining or self.paused)

    @property
    def busy(self) -> bool:
        """Something runs or is on its way to the store."""
        return self.batches.busy or any(lane.task and not lane.backing_off for lane in self.lanes.values())

    def under_way(self) -> list[Hashable]:
        """What runs, each with the steps that it is in."""
        running = [lane for lane in self.lanes.values() if lane.task is not None and not lane.backing_off]
        return [(lane.key, lane.attempt and (lane.attempt.command.id, frozenset(lane.attempt.running))) for lane in running]

    async def unread(self) -> None:
        """Returns when no blocking read has this partition, or it is over."""
        while self.in_read and not self.closed:
            self._unread.clear()
            await self._unread.wait()

    def left_read(self) -> None:
        self._unread.set()

    def catch_up(self) -> None:
        """Everything that was there before this tenure has been read: what waits may be served (P9)."""
        self.caught_up = True
        self.on_caught_up()
        self.on_due()
        self.resume()

    @property
    def read_past(self) -> bool:
        """Everything that lay in the stream when this tenure began has been read."""
        return entry_order(self.position) >= self._last_entry

    async def ask(self, command: str, key: str, *args: bytes | str | int) -> Any:
        """A plain read of one of this partition's keys."""
        return await self.told(self.router.call(key, command, key, *args))

    # -- reading -----------------------------------------------------------------------------------

    def take(self, entries: Sequence[tuple[bytes, list[bytes]]]) -> None:
        """Entries as read from the stream, in order. One that was taken before is passed over: taken twice, it would be applied twice."""
        taken = entry_order(self.position)
        if entry_order(entries[0][0].decode()) <= taken:
            entries = [e for e in entries if entry_order(e[0].decode()) > taken]
            if not entries:
                return
        drops: list[tuple[str, str]] = []
        adopts: list[Queued] = []
        size = self.held_bytes
        for raw_entry, fields in entries:
            found = read_entry(raw_entry, fields, self.keys, self.spec.partitions, self._channel_prefix)
            if type(found) is Queued:
                self._arrived(found)
            elif isinstance(found, ByHand) and found.partition == self.keys.number:
                adopts.append(found.command)
                self._arrived(found.command)
            elif isinstance(found, ByHand):
                self.hold(found.command)
                self._forwards.append(found)
            elif isinstance(found, Look):
                drops.append((found.entry, f"@look:{found.key}"))
                self._look(found.key)
            elif isinstance(found, Garbage):
                found.size = sum(map(len, fields)) + 200
                self.hold(found)
                self.spawn(bury_garbage(self, found))
        self.position = entries[-1][0].decode()
        self.expect(self.held_bytes - size, len(entries))
        if adopts:
            self.then(self.fence.adopt(adopts), lambda reply: None)
        if drops:
            self.then(self.fence.drop(drops), lambda reply: None)
        if self._forwards and not self._forwarding:
            self._forwarding = True
            self.spawn(self._forward())

    def _arrived(self, c: Queued) -> None:
        if not self._past and entry_order(c.entry) <= self._last_entry:
            before = self.acquired.pending.get(c.entry)
            if before is not None or self.acquired.crashed or c.transition not in self.pure:
                # it was there before this tenure: a former owner may have begun it, whatever the group says
                c.journalled = c.timed = True
                c.crashes = before if before is not None else int(c.transition in self.pure)
            # else nobody has begun it: a pure command is claimed before anything of it is recorded
        else:
            self._past = True
        self.hold(c)
        (self.lanes.get(c.key) or self.lane(c.key)).arrived(c)

    def lane(self, key: str) -> Lane:
        return self.lanes.get(key) or self.add(Lane(self, key))

    def _look(self, key: str) -> None:
        if key:
            self.lane(key).look()
        else:
            self.next_due_ms = 0
            self.on_due()

    # -- single calls ------------------------------------------------------------------------------

    def claim_now(self, c: Queued) -> None:
        """A command that turned out to need it is claimed before anything of it is recorded."""
        self.then(self.fence.start([c]), lambda reply: None)

    async def postpone(self, c: Queued, fields: Sequence[tuple[str, bytes]], behind: Sequence[Queued], **how: Any) -> bytes:
        sent = self.fence.postpone(c, fields, behind, **how)
        answer: bytes = await self.answer(sent)
        if due := how.get("due_ms"):
            self._due_at(due)
        return answer

    def _due_at(self, due_ms: int) -> None:
        if self.next_due_ms is None or due_ms < self.next_due_ms:
            self.next_due_ms = due_ms
            self.on_due()

    async def skip(self, key: str) -> None:
        await self.answer(self.fence.skip(key))

    def find(self, id: str) -> Queued | None:
        """The command, if it is in memory; for rare questions."""
        for lane in self.lanes.values():
            running = [] if lane.attempt is None else [lane.attempt.command]
            for c in (*lane.queue, *running):
                if c.id == id:
                    return c
        return None

    def removed(self, id: str) -> None:
        """Somebody deleted the entry of this accepted command, or of a look, by hand; the sweep has ended it."""
        if id.startswith("@look:"):
            self._look(id.removeprefix("@look:"))
            return
        tell.warned(self, f"{self}: command {id} was removed from the stream by hand; it ends as failed")
        for lane in list(self.lanes.values()):
            if lane.attempt is not None and lane.attempt.command.id == id:
                lane.attempt.stop("gone")

    @property
    def is_confirmed(self) -> bool:
        """The lease was ours less than its length ago."""
        return passed_s(self.confirmed, moment()) < self.settings.lease_ms / 1000

    async def confirm(self) -> None:
        """Returns when the lease was ours less than its length ago, for code that touches the outside world: a process that was
        stopped, or slept, and goes on asks before it does more. Ends the tenure if it is another's."""
        if self.is_confirmed:
            return
        asked = moment()
        try:
            (answer,) = await lease.renew(self.router, [self.fence], self.settings.lease_ms)
        except ReplyError as error:
            answer = ScriptFailed(str(error))
        if isinstance(answer, TenureOver):
            self.lose(answer)
        else:
            self.confirmed = asked

    def halt_key(self, lane: Lane) -> None:
        """Three conflicts in a row: somebody changes this key behind our back (P20)."""
        lane.conflicts = 0
        lane.loaded, lane.asleep = True, True
        lane.park_all()
        text = f"{self.spec.name}/{lane.key} is halted: it was changed by others {3} times in a row; look at it, then resume it"
        tell.failing(self, text)

    async def _forward(self) -> None:
        """Entries added by hand to the wrong partition go to the right one, in their order, once (P27)."""
        while self._forwards:
            by_hand = self._forwards.pop(0)
            c = by_hand.command
            there = PartitionKeys(self.keys.namespace, self.keys.machine, by_hand.partition)
            fields = flat_fields(c)
            names = [there.commands, there.accepted, there.received]
            source = forwarded_from(self.keys.number)
            await self.told(self.router.run("forward", names, source, c.entry, c.id, len(fields) // 2, *fields))
            await self.answer(self.fence.drop([(c.entry, "")]))
            self.let_go(c)
        self._forwarding = False

    # -- the tenure --------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of this tenure, in a fresh context. The tenure's end ends it quietly; else what it raises is the partition's trouble."""
        task = self._loop.create_task(self._guarded(work), context=self.fresh())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except TenureOver as over:
            self.lose(over)
        except asyncio.CancelledError:
            if not self.closed:
                raise

    async def answer(self, sent: asyncio.Future[Any]) -> Any:
        """The reply to a call of this tenure's fence; raises TenureOver."""
        reply = await self.fence.answer(sent)
        if self.closed:
            raise Closed
        return reply

    async def told(self, sent: asyncio.Future[Any]) -> Any:
        """The reply to a call that is not fenced; raises TenureOver if it failed, or if the tenure is over meanwhile."""
        await asyncio.wait([sent])
        if over := failure(sent):
            raise over
        if self.closed:
            raise Closed
        return sent.result()

    def then(
        self,
        sent: asyncio.Future[Any],
        act: Callable[[Any], None],
        waiting: Sequence[asyncio.Future[Any]] = (),
        on_error: Callable[[str], Any] | None = None,
    ) -> None:
        """``act`` on the reply; a reply that ends the tenure ends it, and cancels who waits."""

        def answered(future: asyncio.Future[Any]) -> None:
            if self.closed:
                future.cancelled() or future.exception()
                over: TenureOver | None = Closed()
            else:
                over = self.fence.verdict(future)
            if over is None:
                act(future.result())
                return
            if on_error is not None and isinstance(over, ScriptFailed):
                on_error(str(over))
            for answer in waiting:
                answer.cancel()
            self.lose(over)

        sent.add_done_callback(answered)

    def resume(self) -> None:
        """Lanes that were held back may start."""
        for lane in list(self.lanes.values()):
            if lane.queue or lane.inbox:
                lane.offer()

    def drain(self) -> None:
        """Nothing new starts; what only sleeps leaves memory; the rest ends."""
        self.draining = True
        for lane in list(self.lanes.values()):
            if lane.attempt is not None:
                lane.attempt.drain()

    def undrain(self) -> None:
        """The partition stays: it is read again, its timers ring again."""
        self.draining = False
        self._roomy.set()
        self.on_due()
        self.resume()

    @contextlib.contextmanager
    def own_trouble(self) -> Iterator[None]:
        """What goes wrong here, in a turn that many partitions share, ends this tenure and no other's work."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a fault of our own
            self._loop.call_exception_handler({"message": f"{self} could not send", "exception": error})
            self.lose(ScriptFailed(f"{type(error).__name__}: {error}"))

    def lose(self, over: TenureOver) -> None:
        """The tenure has ended: nothing in memory counts any more."""
        if not self.closed:
            self.close()
            self.shop.over(self, over)

    def close(self) -> None:
        self.closed = True
        self._roomy.set()
        self._unread.set()
        if self.tidying is not None:
            self.tidying.cancel()
        for lane in list(self.lanes.values()):
            lane.drop()
        self.batches.close()
