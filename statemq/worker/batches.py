"""What a partition's lanes ask of the store, gathered and sent as one call for each kind.

They go at the end of the loop's turn, a commit when the one before it is answered: so commits grow with load.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from statemq import events
from statemq.config import LIMITS
from statemq.store.commands import Queued
from statemq.store.commit import Ended, lay_out, take_batch, words
from statemq.store.fence import Record, ScriptFailed, failure
from statemq.store.wire import swallow
from statemq.worker import tell
from statemq.worker.bury import look_into
from statemq.worker.suspects import SUSPICIOUS

if TYPE_CHECKING:
    from statemq.worker.execute import Attempt
    from statemq.worker.lane import Job, Lane
    from statemq.worker.partition import Partition
    from statemq.worker.turn import Turn


DATA_EXPECTED = 32 * 1024
"""Bytes of an instance's data, before any was loaded."""


class Batches:
    """Those of one tenure."""

    def __init__(self, partition: Partition, turn: Turn) -> None:
        self.partition = partition
        self._turn = turn
        self._claims: list[Job] = []
        self._loads: list[Lane] = []
        self._parks: dict[str, list[Queued]] = {}
        self._records: list[Record] = []
        self._record_answers: list[asyncio.Future[bytes | None]] = []
        self._ended: list[Ended] = []
        self._ended_bytes = 0
        self._held_back: list[Lane] = []
        self._expected_data = DATA_EXPECTED
        """Bytes of an instance's data, as what was loaded lets expect."""
        self._loading = 0
        self._ran: dict[str, Attempt] = {}
        self._committing = False
        self._loop = asyncio.get_running_loop()

    @property
    def busy(self) -> bool:
        """What has run is on its way to the store."""
        return bool(self._ended or self._committing or self._parks or self._records)

    @property
    def full(self) -> bool:
        """What has ended and is not committed takes much memory: nothing new begins."""
        return self._ended_bytes >= self.partition.settings.window_bytes

    def hold_back(self, lane: Lane) -> None:
        """The lane is offered again when commits have made room."""
        self._held_back.append(lane)

    def claim(self, job: Job) -> None:
        """The job runs once its commands are claimed; or is put back, if the tenure ends before."""
        self._claims.append(job)
        self._turn.touch(self)

    def load(self, lane: Lane) -> None:
        lane.loading, lane.stale = True, False  # a look from now on may be younger than what is read
        self._loads.append(lane)
        self._turn.touch(self)

    def park(self, lane: Lane, commands: Sequence[Queued]) -> None:
        if commands:
            lane.inbox = True
            lane.parks += 1
            if lane.key not in self._parks:
                self._parks[lane.key] = []
                lane.parking += 1
            self._parks[lane.key] += commands
            for c in commands:
                if c.crashes >= SUSPICIOUS:  # P14: the group forgets it
                    swallow([self.record(c, "@crashes", b"%d" % c.crashes)])
            self._turn.touch(self)

    def record(self, c: Queued, field: str, value: bytes, started: bytes = b"") -> asyncio.Future[bytes | None]:
        """The record that stands (this very value if it is this one), or None when the command is gone."""
        answer: asyncio.Future[bytes | None] = self._loop.create_future()
        self._records.append((c.id, field, value, started))
        self._record_answers.append(answer)
        self._turn.touch(self)
        return answer

    def end(self, ended: Ended, attempt: Attempt | None) -> None:
        self._ended.append(ended)
        self._ended_bytes += ended.size
        if attempt is not None:
            self._ran[ended.command.id] = attempt
        self._turn.touch(self)

    def send(self) -> None:
        """Sends what was gathered."""
        if self.partition.closed:
            self._cancel_records()
            return
        if self._parks:
            self._flush_parks()
        if self._loads:  # after the parks, so that they see them (P8)
            self._flush_loads()
        if self._claims:
            self._send_claims()
        if self._records:
            self._send_records()
        if self._ended and not self._committing:
            self._commit()

    def close(self) -> None:
        """The tenure is over: nobody gets a record any more, and what was to be claimed goes back into its lane."""
        self._cancel_records()
        claims, self._claims = self._claims, []
        for job in claims:
            job.lane.run(job)

    # -- starts ------------------------------------------------------------------------------------

    def _send_claims(self) -> None:
        claims, self._claims = self._claims, []
        while claims:
            jobs: list[Job] = []
            commands: list[Queued] = []
            while claims and (not jobs or len(commands) + len(claims[-1].claims) <= LIMITS.batch):
                jobs.append(claims.pop())
                commands += jobs[-1].claims
            call = self.partition.fence.start(commands)
            call.add_done_callback(functools.partial(self._claimed, jobs, commands))

    def _claimed(self, jobs: list[Job], commands: list[Queued], done: asyncio.Future[Any]) -> None:
        p = self.partition
        over = p.fence.verdict(done)
        if over is None:
            for index in done.result()[1:]:
                commands[index - 1].gone = True
        elif not p.closed:
            p.lose(over)
        for job in jobs:
            job.lane.run(job)

    # -- loads -------------------------------------------------------------------------------------

    def _flush_loads(self) -> None:
        """As many at one time as their data is likely to find room, one at least; the others follow when these are answered."""
        most = max(1, self.partition.settings.window_bytes // self._expected_data)
        while self._loads and self._loading < most:
            n = min(LIMITS.batch, most - self._loading)
            lanes, self._loads = self._loads[:n], self._loads[n:]
            self._send_load(lanes)

    def _send_load(self, lanes: list[Lane]) -> None:
        self._loading += len(lanes)
        keys = self.partition.keys
        names = [keys.ready]
        for lane in lanes:
            names += (keys.instance(lane.key), keys.inbox(lane.key))
        call = self.partition.router.run("load", names, *(lane.key for lane in lanes))
        call.add_done_callback(functools.partial(self._loaded, lanes))

    def _loaded(self, lanes: list[Lane], done: asyncio.Future[Any]) -> None:
        p = self.partition
        if p.closed:
            done.cancelled() or done.exception()
            return
        self._loading -= len(lanes)
        if self._loads:
            self._turn.touch(self)
        over = failure(done)
        if over is None:
            size = sum(len(row[2] or b"") for row in done.result())
            self._expected_data = max(1, self._expected_data // 2, size // len(lanes))
            for lane, row in zip(lanes, done.result(), strict=True):
                try:
                    lane.took_row(row)
                except ValueError as error:  # no number, or no UTF-8: written by hand
                    lane.unreadable(str(error))
        elif isinstance(over, ScriptFailed) and len(lanes) > 1:
            for lane in lanes:  # one key was damaged by hand: it alone must suffer
                self._send_load([lane])
        elif isinstance(over, ScriptFailed):
            p.spawn(self._unreadable(lanes[0], over))
        else:
            p.lose(over)

    async def _unreadable(self, lane: Lane, why: ScriptFailed) -> None:
        """P20: T:ready is everybody's; all else that a load reads is this key's alone."""
        if await self.partition.ask("TYPE", self.partition.keys.ready) not in (b"zset", b"none"):
            raise why
        lane.unreadable(str(why))

    # -- parks -------------------------------------------------------------------------------------

    def _flush_parks(self) -> None:
        p = self.partition
        parks, self._parks = self._parks, {}
        commands = [(key, c) for key, gathered in parks.items() for c in sorted(gathered, key=lambda c: c.order)]
        at = 0
        while at < len(commands):
            batch: dict[str, list[Queued]] = {}
            n = size = 0
            while at < len(commands) and n < LIMITS.batch and size <= LIMITS.batch_bytes:
                key, c = commands[at]
                batch.setdefault(key, []).append(c)
                at, n, size = at + 1, n + 1, size + c.size
            may_run = {key: not p.lane(key).asleep for key in batch}
            answered = list(parks) if at == len(commands) else []
            p.then(p.fence.park(batch, may_run), functools.partial(self._parked, batch, answered))

    def _parked(self, batch: dict[str, list[Queued]], answered: list[str], reply: list[Any]) -> None:
        for commands in batch.values():  # until now they were in memory, on their way
            for c in commands:
                self.partition.let_go(c)
        if len(reply) > 1:
            gone = {entry.decode() for entry in reply[1:]}
            for commands in batch.values():
                for c in commands:
                    if c.entry in gone:
                        look_into(self.partition, c)
        for key in answered:
            lane = self.partition.lane(key)
            lane.parking -= 1
            lane.offer()

    # -- records -----------------------------------------------------------------------------------

    def _send_records(self) -> None:
        records, answers = self._records, self._record_answers
        self._records, self._record_answers = [], []
        at = 0
        while at < len(records):
            n = size = 0
            for record in records[at : at + LIMITS.batch]:
                size += len(record[2])
                if n and size > LIMITS.batch_bytes:
                    break
                n += 1
            batch, waiting = records[at : at + n], answers[at : at + n]
            self.partition.then(self.partition.fence.record(batch), functools.partial(self._recorded, batch, waiting), waiting)
            at += n

    def _recorded(self, batch: list[Record], waiting: list[asyncio.Future[bytes | None]], reply: list[Any]) -> None:
        crash = self.partition.crash
        for record, answer, stands in zip(batch, waiting, reply[1:], strict=True):
            if not answer.done():
                answer.set_result(None if stands is None else stands or record[2])
            if crash is not None:
                crash.passed(record[0])

    def _cancel_records(self) -> None:
        for answer in self._record_answers:
            answer.cancel()
        self._record_answers.clear()

    # -- commits -----------------------------------------------------------------------------------

    def _commit(self) -> None:
        """As much of what has ended as one call holds."""
        p = self.partition
        suspicious = p.suspects and any(e.command.id in p.suspects for e in self._ended)
        batch = [self._ended.pop(0)] if suspicious else take_batch(self._ended)
        self._committing = True
        states, names, args = lay_out(batch, p.keys)
        sent = p.fence.commit(states, names, args, len(batch))
        p.then(sent, functools.partial(self._committed, batch), on_error=functools.partial(self._suspect, batch))

    def _suspect(self, batch: list[Ended], error: str) -> None:
        for e in batch:
            self.partition.suspects[e.command.id] = error if len(batch) == 1 else ""

    def _committed(self, batch: list[Ended], reply: list[Any]) -> None:
        p = self.partition
        self._committing = False
        answers = list(zip(batch, words(reply, len(batch)), strict=True))
        if undone := {e.command.key for e, word in answers if word != "applied"}:
            # what ended meanwhile stood on what was not applied: it is not sent
            answers += [(e, "conflict") for e in self._ended if e.command.key in undone]
            self._ended = [e for e in self._ended if e.command.key not in undone]
        for e, word in answers:
            c = e.command
            self._ended_bytes -= e.size
            attempt = self._ran.pop(c.id, None) if self._ran else None
            if p.suspects and word == "applied":
                p.suspects.pop(c.id, None)
            p.lanes[c.key].committed(c, word)
            if word == "applied" and (events.followers or events.listeners):
                tell.ended(p, e, attempt)
        if self._held_back and not self.full:
            lanes, self._held_back = self._held_back, []
            for lane in lanes:
                lane.offer()
        if self._ended:
            self._turn.touch(self)
