"""append: commands on their way into their partitions' streams.

All commands of one loop turn go in one call a partition, and a partition has one unanswered call at most, so that
a client's commands arrive in the order in which they were sent, over reconnects too (P10).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

from statemq.codec import command_id
from statemq.config import LIMITS, RESEND_WITHIN_MS
from statemq.errors import NamespaceLost, RedisAway, StatemqError
from statemq.keys import PartitionKeys
from statemq.store.catalog import Catalog
from statemq.store.draft import Appended, Draft, fail, said, settle
from statemq.store.durability import Durability, outcomes_settled, settled
from statemq.store.router import Router
from statemq.store.wire import ReplyError, Wire

CONNECT_EVERY_S = 60.0
"""How long one wait for a connection lasts before it is begun anew; who waits has a deadline of their own."""


class _Line:
    """The commands of one partition that are not accepted yet, in their order."""

    def __init__(self, keys: PartitionKeys) -> None:
        self.keys = keys
        self.waiting: deque[tuple[Draft, asyncio.Future[Appended]]] = deque()
        self.task: asyncio.Task[None] | None = None

    def take(self) -> list[tuple[Draft, asyncio.Future[Appended]]]:
        """What one call can hold; what nobody waits for any more was never sent and is dropped."""
        batch: list[tuple[Draft, asyncio.Future[Appended]]] = []
        size = 0
        while self.waiting and len(batch) < LIMITS.batch:
            draft, answer = self.waiting[0]
            if not answer.done():
                size += draft.size
                if batch and size > LIMITS.batch_bytes:
                    break
                batch.append((draft, answer))
            self.waiting.popleft()
        return batch


class Appender:
    """``reply`` is the channel on which the client hears of outcomes."""

    def __init__(self, router: Router, catalog: Catalog, *, reply: str, durability: Durability | None = None) -> None:
        self._router, self._catalog, self._reply, self._durability = router, catalog, reply, durability
        self._lines: dict[tuple[str, int], _Line] = {}
        self._clocks: dict[Wire, tuple[int, float]] = {}
        self._closed = False

    def append(self, draft: Draft) -> asyncio.Future[Appended]:
        """Once done, the command is queued or was found to be. Cancelling it before ``draft.id`` is set sends nothing.

        Raises BacklogFull, StreamExhausted, Refused, TooLarge, IdempotencyConflict, NamespaceLost, Pending (too late to tell).
        """
        if self._closed:
            raise RedisAway("the client was closed; the command was not sent")
        loop = asyncio.get_running_loop()
        where = (draft.keys.machine, draft.keys.number)
        line = self._lines.get(where)
        if line is None:
            line = self._lines[where] = _Line(draft.keys)
        answer: asyncio.Future[Appended] = loop.create_future()
        line.waiting.append((draft, answer))
        if line.task is None:
            line.task = loop.create_task(self._drain(line))
        return answer

    async def close(self) -> None:
        """Nothing is sent any more; what was not answered raises RedisAway."""
        self._closed = True
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _drain(self, line: _Line) -> None:
        batch: list[tuple[Draft, asyncio.Future[Appended]]] = []
        try:
            while line.waiting:
                wire = await self._connected(line.keys)
                batch = line.take()
                if batch:
                    await self._send(line, wire, batch)
        except asyncio.CancelledError:
            for _, answer in [*batch, *line.waiting]:
                fail(answer, RedisAway("the client was closed before Redis had confirmed the command"))
            raise
        except (StatemqError, ReplyError) as error:
            for _, answer in [*batch, *line.waiting]:
                fail(answer, said(error, line.keys))
            line.waiting.clear()
        finally:
            line.task = None

    async def _connected(self, keys: PartitionKeys) -> Wire:
        """The partition's wire, up, with its server's clock known."""
        while True:
            wire = self._router.wire_for(keys.lease)
            while not wire.up:
                with contextlib.suppress(RedisAway):
                    await wire.connected(CONNECT_EVERY_S)
            clock = self._clocks.get(wire)
            if clock is not None and clock[0] == wire.generation:
                return wire
            await self._learn_time(wire)

    async def _learn_time(self, wire: Wire) -> None:
        """The offset of the server's clock from this host's, half a round trip allowed for."""
        generation, before = wire.generation, time.time()
        seconds, micros = await wire.call("TIME")
        here_ms = (before + time.time()) * 500
        self._clocks[wire] = (generation, int(seconds) * 1000 + int(micros) / 1000 - here_ms)

    async def _send(self, line: _Line, wire: Wire, batch: list[tuple[Draft, asyncio.Future[Appended]]]) -> None:
        known = self._catalog.kept(line.keys.machine)
        generation = wire.generation
        now_ms = int(time.time() * 1000 + self._clocks[wire][1])
        for draft, _ in batch:
            draft.id = draft.id or command_id(line.keys.machine, line.keys.number, now_ms)
        try:
            answers = await self._run(line.keys, known.config.incarnation, [draft for draft, _ in batch])
            if answers is None:
                fresh = await self._catalog.reread(line.keys.machine)
                if fresh.config.incarnation != known.config.incarnation and fresh.config.partitions == known.config.partitions:
                    answers = await self._run(line.keys, fresh.config.incarnation, [draft for draft, _ in batch])
            if answers is None:
                raise NamespaceLost(
                    f"partition {line.keys.number} of {line.keys.machine} was wiped or replaced (namespace {line.keys.namespace}); "
                    "nothing was queued"
                )
            await self._be_safe(line.keys, answers)
        except (StatemqError, ReplyError) as error:
            for _, answer in batch:
                fail(answer, said(error, line.keys))
            return
        once_sent = wire.generation == generation
        again = []
        for (draft, answer), text in zip(batch, answers, strict=True):
            if text == b"late" and once_sent and not draft.retimed:
                again.append((draft, answer))
            else:
                settle(draft, answer, text.decode())
        if again:
            # sent once and refused for its age, so it is nowhere: a clock was changed, and a new id is safe
            await self._learn_time(wire)
            for draft, _ in again:
                draft.id, draft.retimed = "", True
            line.waiting.extendleft(reversed(again))

    async def _be_safe(self, keys: PartitionKeys, answers: list[bytes]) -> None:
        """What the answers say is as safe as was asked for (P23)."""
        if self._durability is None:
            return
        if any(answer.startswith(b"ended") for answer in answers):
            while not await outcomes_settled(self._router, keys, self._durability):
                pass
        while not await settled(self._router, keys.lease, self._durability):
            pass

    async def _run(self, keys: PartitionKeys, incarnation: str, drafts: list[Draft]) -> list[bytes] | None:
        """The script's words; None if the partition is not of this incarnation."""
        names = [keys.commands, keys.accepted, keys.lease, keys.outcomes_, keys.timers, keys.timers_data]
        args: list[bytes | str | int] = [
            incarnation,
            LIMITS.backlog,
            RESEND_WITHIN_MS,
            LIMITS.key,
            LIMITS.arguments,
            self._reply,
            len(drafts),
        ]
        specials: list[bytes | str | int] = []
        args += [d.id for d in drafts]
        for place, d in enumerate(drafts, start=1):
            args += (d.key, d.transition, d.args)
            if d.extras or d.digest or d.delay_ms is not None:
                if d.digest:
                    names.append(keys.once(d.key, d.idempotency_key))
                delay = "" if d.delay_ms is None else d.delay_ms
                specials += (place, delay, d.digest, len(d.extras) // 2, *d.extras)
        args += specials
        answers: list[bytes] | bytes = await self._router.run("append", names, *args)
        return None if isinstance(answers, bytes) else answers
