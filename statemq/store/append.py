"""append: commands on their way into their partitions' streams.

All commands of one loop turn go in one call a partition, and a partition has one unanswered call at most, so that
a client's commands arrive in the order in which they were sent, over reconnects too (P10).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable

from statemq.codec import command_id
from statemq.config import ABANDONED_BYTES, LIMITS, RESEND_WITHIN_MS, Share
from statemq.errors import NamespaceLost, RedisAway, ServerError, StatemqError
from statemq.keys import PartitionKeys
from statemq.store.catalog import Catalog
from statemq.store.draft import ACCEPTED, Answer, Appended, Draft, fail, said, settle, unsure
from statemq.store.durability import CannotWait, Durability, secured, stand
from statemq.store.router import Router
from statemq.store.wire import ReplyError, Wire

CONNECT_EVERY_S = 60.0
"""How long one wait for a connection lasts before it is begun anew; who waits has a deadline of their own."""


Sent = tuple[Draft, Answer]


class _Line:
    """The commands of one partition that are not accepted yet, in their order, and who sends them."""

    __slots__ = ("_bytes", "_tidy_at", "keys", "offset_ms", "task", "waiting")

    def __init__(self, keys: PartitionKeys) -> None:
        self.keys = keys
        self.waiting: deque[Sent] = deque()
        self.offset_ms: float | None = None
        """Of the partition's own time from this host's, where that is not Redis time, whose clock was set back."""
        self._bytes, self._tidy_at = 0, ABANDONED_BYTES
        self.task: asyncio.Task[None] | None = None

    def put(self, draft: Draft, answer: Answer) -> None:
        """Behind all others. While Redis is away senders give up; what they leave behind is dropped before it fills the memory."""
        self.waiting.append((draft, answer))
        self._bytes += draft.size
        if self._bytes > self._tidy_at:
            self.waiting = deque(sent for sent in self.waiting if not sent[1].done())
            self._bytes = sum(draft.size for draft, _ in self.waiting)
            self._tidy_at = max(ABANDONED_BYTES, 2 * self._bytes)

    def take(self) -> list[Sent]:
        """What one call can hold; what nobody waits for any more was never sent and is dropped."""
        batch: list[Sent] = []
        size = 0
        while self.waiting and len(batch) < LIMITS.batch:
            draft, answer = self.waiting[0]
            if not answer.done():
                size += draft.size
                if batch and size > LIMITS.batch_bytes:
                    break
                batch.append((draft, answer))
            self.waiting.popleft()
        self._bytes = max(0, self._bytes - size) if self.waiting else 0
        return batch


class Appender:
    """``reply`` is the channel on which the client hears of outcomes."""

    def __init__(self, router: Router, catalog: Catalog, *, reply: str, durability: Durability | None = None) -> None:
        self._router, self._catalog, self._reply, self._durability = router, catalog, reply, durability
        self._lines: dict[tuple[str, int], _Line] = {}
        self._clocks: dict[Wire, tuple[int, float]] = {}
        self._asking: dict[Wire, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def append(self, draft: Draft) -> asyncio.Future[Appended]:
        """Once done, the command is queued or was found to be. Cancelling it before ``draft.id`` is set sends nothing.

        Raises BacklogFull, StreamExhausted, Refused, TooLarge, IdempotencyConflict, NamespaceLost, Pending (too late to tell).
        """
        answer: asyncio.Future[Appended] = self._loop.create_future()
        self.send(draft, answer)
        return answer

    def send(self, draft: Draft, answer: Answer) -> None:
        """The same for an answer of the caller's."""
        if self._closed:
            raise RedisAway("the client was closed; the command was not sent")
        where = (draft.keys.machine, draft.keys.number)
        line = self._lines.get(where)
        if line is None:
            line = self._lines[where] = _Line(draft.keys)
        line.put(draft, answer)
        if line.task is None:
            line.task = self._loop.create_task(self._drain(line))

    async def close(self) -> None:
        """Nothing is sent any more; what was not answered raises Pending if it was sent, else RedisAway."""
        self._closed = True
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for line in self._lines.values():
            _fail_all(line.waiting, _closed())

    async def _drain(self, line: _Line) -> None:
        batch: list[Sent] = []
        try:
            while line.waiting:
                wire = await self._connected(line.keys)
                if batch := line.take():
                    await self._send(wire, line, batch)
                    batch = []
        except asyncio.CancelledError:
            _doubt(batch, _closed())
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must be told (I6)
            _doubt([*batch, *line.waiting], said(error, line.keys))
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
        """The server's clock is known anew; lines that ask at one time ask once."""
        asking = self._asking.get(wire)
        if asking is None:
            asking = self._asking[wire] = self._loop.create_task(self._ask_time(wire))
            asking.add_done_callback(lambda _: self._asking.pop(wire))
        await asyncio.shield(asking)

    async def _ask_time(self, wire: Wire) -> None:
        """The offset of the server's clock from this host's, half a round trip allowed for."""
        generation, before = wire.generation, time.time()
        seconds, micros = await wire.call("TIME")
        here_ms = (before + time.time()) * 500
        self._clocks[wire] = (generation, int(seconds) * 1000 + int(micros) / 1000 - here_ms)

    async def _send(self, wire: Wire, line: _Line, batch: list[Sent]) -> None:
        generation = wire.generation
        now_ms = int(time.time() * 1000 + (self._clocks[wire][1] if line.offset_ms is None else line.offset_ms))
        if not _fits(batch, self._catalog.kept(line.keys.machine).config.partitions):
            _fail_all(batch, _lost(line.keys))
            return
        for draft, _ in batch:
            draft.id = draft.id or command_id(line.keys.machine, line.keys.number, now_ms)
        try:
            answers = await self._safely(line.keys, batch)
        except (StatemqError, ReplyError) as error:
            # a call whose connection was lost has been sent before, and that one may have been taken
            alone = wire.up and stand(self._router, line.keys) == (wire, generation)
            refused = isinstance(error, NamespaceLost) or (alone and not isinstance(error, CannotWait))
            (_fail_all if refused else _doubt)(batch, said(error, line.keys))
            return
        late: list[Sent] = []
        text_of_late = b""
        for (draft, answer), text in zip(batch, answers, strict=True):
            if text.startswith(b"late") and not draft.retimed and wire.generation == generation:
                late.append((draft, answer))
                text_of_late = text
            else:
                try:
                    settle(draft, answer, text)
                except (StatemqError, ValueError) as error:  # an outcome or id that was damaged by hand
                    fail(answer, ServerError(f"append answered what cannot be read: {error}"))
        if late:
            _, _, there_ms = text_of_late.partition(b" ")
            line.offset_ms = int(there_ms) - time.time() * 1000 if there_ms else None
            # sent once and refused for its age, so it is nowhere: a clock was changed, and a new id is safe
            for draft, _ in late:
                draft.id, draft.retimed = "", True
            line.waiting.extendleft(reversed(late))
            await self._learn_time(wire)

    async def _again(self, keys: PartitionKeys, incarnation: str, batch: list[Sent]) -> list[bytes]:
        """The partition was of another incarnation; it may have been made anew by somebody who was allowed to."""
        fresh = await self._catalog.reread(keys.machine)
        if fresh.config.incarnation != incarnation and _fits(batch, fresh.config.partitions):
            answers = _words(await self._run(keys, fresh.config.incarnation, batch), batch)
            if answers is not None:
                return answers
        raise _lost(keys)

    async def _safely(self, keys: PartitionKeys, batch: list[Sent]) -> list[bytes]:
        """The script's words, when what they say is as safe as was asked for (P23). If the connection is lost before that, the commands
        are sent again: another server may not have them."""
        while True:
            since = stand(self._router, keys)
            incarnation = self._catalog.kept(keys.machine).config.incarnation
            answers = _words(await self._run(keys, incarnation, batch), batch)
            if answers is None:
                answers = await self._again(keys, incarnation, batch)
            if self._durability is None or await secured(self._router, keys, self._durability, since):
                return answers

    def _run(self, keys: PartitionKeys, incarnation: str, batch: list[Sent]) -> asyncio.Future[list[bytes] | bytes]:
        """The script's answer."""
        names = [keys.commands, keys.accepted, keys.lease, keys.outcomes_, keys.timers, keys.timers_data]
        args: list[bytes | str | int] = [
            incarnation,
            LIMITS.backlog,
            RESEND_WITHIN_MS,
            LIMITS.key,
            LIMITS.arguments,
            self._reply,
            len(batch),
        ]
        specials: list[bytes | str | int] = []
        args += [d.id for d, _ in batch]
        for place, (d, _) in enumerate(batch, start=1):
            args += (d.key, d.transition, d.args)
            if d.extras or d.digest or d.delay_ms is not None or d.share is not None:
                if d.digest:
                    names.append(keys.once(d.key, d.idempotency_key))
                specials += (
                    place,
                    ("" if d.delay_ms is None else str(d.delay_ms)) + ("" if d.share is None else _said(d.share)),
                    " ".join(filter(None, (d.digest, d.meaning, d.conditions))),
                    len(d.extras) // 2,
                    *d.extras,
                )
        return self._router.run("append", names, *args, *specials)


def _said(share: Share) -> str:
    return f" {share.caller} {share.commands} {share.bytes}"


def _words(reply: list[bytes] | bytes, batch: list[Sent]) -> list[bytes] | None:
    """One word a command; None if the partition is not of this incarnation."""
    if isinstance(reply, list):
        return reply
    return [ACCEPTED] * len(batch) if reply == ACCEPTED else None


def _fits(batch: list[Sent], partitions: int) -> bool:
    """The commands were laid out for so many partitions."""
    return all(draft.partitions == partitions for draft, _ in batch)


def _lost(keys: PartitionKeys) -> NamespaceLost:
    return NamespaceLost(
        f"partition {keys.number} of {keys.machine} was wiped or replaced (namespace {keys.namespace}); nothing was queued"
    )


def _fail_all(batch: Iterable[Sent], error: StatemqError) -> None:
    for _, answer in batch:
        fail(answer, error)


def _doubt(batch: Iterable[Sent], error: StatemqError) -> None:
    """Those that were sent may have been queued: their senders get their ids."""
    for draft, answer in batch:
        fail(answer, unsure(draft, f"may have been queued, but {error}") if draft.id else error)


def _closed() -> RedisAway:
    return RedisAway("the client was closed before Redis had confirmed the command")
