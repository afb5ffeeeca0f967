"""The worker: which partitions it holds, from joining the registry to leaving it.

It hears who lives (registry, life signs, news) and keeps a view of who holds what; ``assign.plan`` says what it should hold;
it acquires what is free or dead and lets go of what is another's. The work itself is in Partition and Lane.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msgspec.structs import replace

from statemq import events
from statemq.codec import short_id
from statemq.config import DEFAULT_NAMESPACE, DEFAULT_URL, LEASE_MS_MOST, WorkerSettings, check_namespace
from statemq.declaration.spec import MachineSpec, spec_of
from statemq.errors import RedisAway, StatemqError, UnknownMachine
from statemq.keys import PartitionKeys
from statemq.store import lease
from statemq.store.damage import find_damage
from statemq.store.declare import declare, read_config
from statemq.store.fence import Closed, Fenced, ScriptFailed, TenureOver
from statemq.store.lease import Acquired, Held, NotAcquired
from statemq.store.libraries import Libraries
from statemq.store.router import Router
from statemq.store.scripts import library
from statemq.store.wire import ReplyError
from statemq.worker.assign import plan
from statemq.worker.away import tell_away
from statemq.worker.clock import Moment, earlier, moment
from statemq.worker.fork import clean_children
from statemq.worker.leftover import END_S
from statemq.worker.life import STOPS_WITHIN_S, Life
from statemq.worker.notice import notice_branches
from statemq.worker.pacing import Pacing
from statemq.worker.partition import Partition
from statemq.worker.peers import CONFIRM_S, Peers, Served
from statemq.worker.process import Fate, own_name
from statemq.worker.reading import Reading
from statemq.worker.recover import serve_ready
from statemq.worker.shop import CrashPlan, Shop
from statemq.worker.slots import Slots
from statemq.worker.sweep import sweep
from statemq.worker.threads import MOST, StepThreads
from statemq.worker.timers import Timers
from statemq.worker.turn import Turn

SURVEY_S = 3.0
"""How often the leases of others are read; news tells of changes at once."""

LOOK_S = 0.1
"""How often a partition that should go and may not stop is looked at: it goes when nothing of it runs."""

LATE_MS = 500
"""Whose lease was over for so long, after a survey had the time to see it renewed, gets no share."""

CLOCK_SET_MS = 1000
"""Redis time that moved so much against this process's clock was set; less is the network."""

CLOCK_DRIFT_MS = 20
"""Two clocks part by less than this between two surveys; more corrects what a slow answer had left open."""

FAR_MS = LEASE_MS_MOST
"""A lease that ends so much later than usual was written before Redis' clock was set back; its owner, if it lives, renews it sooner."""

LEAVE_S, KILLED_S = 5.0, 1.0
"""How long Redis may take for the next part of handing over, once nothing runs any more; and when it is to end at once."""

BODIES_S = 1.0
"""How long a body that was closed is waited for before its partition is another's."""

ENDS_S = LEAVE_S + BODIES_S + STOPS_WITHIN_S + END_S + 2.0
"""Beyond its grace period a worker process takes no longer than this to end, in the worst case."""

TROUBLE_S = 5.0
"""How long a damaged or wiped partition is left alone before it is tried again."""


class Worker:
    """Runs the transitions of ``machines`` until ``stop``. ``id`` is new for each process start; ``serving`` is told when it has begun,
    before anything runs."""

    def __init__(
        self,
        machines: Sequence[type[Any]],
        url: str = DEFAULT_URL,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        settings: WorkerSettings | None = None,
        crash: CrashPlan | None = None,
        serving: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = short_id()
        self.settings = settings or WorkerSettings()
        self._threads = StepThreads(min(MOST, self.settings.concurrency))
        self.partitions: dict[PartitionKeys, Partition] = {}
        self._specs = [spec_of(machine) for machine in machines]
        self._url, self._namespace, self._crash, self._tell_serving = url, check_namespace(namespace), crash, serving
        self._served: dict[str, Served] = {}
        self._taking: set[PartitionKeys] = set()
        self._trouble_until: dict[PartitionKeys, float] = {}
        self._pacing: Pacing[PartitionKeys] = Pacing()
        self._suspects: dict[PartitionKeys, dict[str, str]] = {}
        self._failures: dict[PartitionKeys, list[float]] = {}
        self._taken: dict[tuple[str, str, bool], list[int]] = {}
        self._n = 0
        self._clock_offset_ms = 0.0
        self._replan_due = False
        self._alarm: asyncio.TimerHandle | None = None
        self._turning: asyncio.TimerHandle | None = None
        self._life: Life | None = None
        self._reading: Reading | None = None
        self._alarm_s = 0.0
        self._stopping = asyncio.Event()
        self._killed = False
        self._failed: BaseException | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def stop(self) -> None:
        """Takes nothing new, lets what runs end within the grace period, hands over, and ``run`` returns."""
        self._stopping.set()

    def kill(self) -> None:
        """Leaves what runs to the next owner, now."""
        self._killed = True
        self._stopping.set()

    def attended(self, yes: bool) -> None:
        """Whether somebody looks at what runs, in a debugger: meanwhile this worker keeps its leases and is not stuck. Any thread."""
        if self._life is not None:
            self._life.attended = yes

    def now_ms(self) -> int:
        """Redis time, from its offset to this process's monotonic clock."""
        return int(time.monotonic() * 1000 + self._clock_offset_ms)

    async def run(self) -> None:
        """Serves until stopped. Raises RedisAway, UnsupportedServer, PartitionMismatch … when it cannot begin, or go on."""
        with clean_children():
            await self._run()

    async def _run(self) -> None:
        self._router = Router(self._url)
        self._peers = Peers(self._router, self._namespace, self.settings, self._served, self._spawn, self._replan)
        try:
            await self._until_stopped(self._start())  # nothing is awaited beside it: a Redis that is away must not keep this worker
            if self._life is not None:
                await self._leave_in_time(self._life)
        finally:
            await to_its_end(self._end())
        if self._failed is not None:
            raise self._failed

    async def _until_stopped(self, start: Coroutine[Any, Any, None]) -> None:
        """``start``, and then until it is to stop; or only a part of it. Raises what ``start`` does."""
        starting, stopping = asyncio.ensure_future(start), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopping
        finally:
            stopping.cancel()
            starting.cancel()
            await to_its_end(asyncio.wait([starting]))

    async def _start(self) -> None:
        self._spawn(tell_away(self._router))
        await self._router.open()
        await self._set_clock()
        for spec in self._specs:
            await self._declare(spec)
        slots, turn = Slots(self.settings.concurrency), Turn(self._router)
        base = contextvars.copy_context()
        notice_branches(asyncio.get_running_loop())
        self._shop = Shop(self._router, self.id, self.settings, slots, self._threads, self.now_ms, self._over, turn, base, self._crash)
        self._reading = Reading(self._router, self._fail)
        all_keys = {name: s.keys for name, s in self._served.items()}
        self._life = Life(self._url, self._namespace, self.id, all_keys, self.settings, self._about(), self)
        self._life.running = self._running
        self._turn(self._life)
        await self._life.start()
        self._tell_serving()
        self._spawn(self._survey_often())
        self._spawn(Libraries(self._router, self._namespace).watch())

    async def _end(self) -> None:
        """Nothing of this worker runs any more, however it came to this."""
        self._stopping.set()
        bodies = [lane.task for p in self.partitions.values() for lane in p.lanes.values() if lane.task is not None]
        for p in list(self.partitions.values()):
            p.close()
        self._threads.shutdown()
        if bodies and not self._killed:  # while this worker can be heard, nobody takes its partitions
            await asyncio.wait(bodies, timeout=BODIES_S)
        for timer in (self._turning, self._alarm):
            if timer is not None:
                timer.cancel()
        if self._life is not None:  # one whose loop is gone would end the process (P6)
            await self._life.stop()
        if self._reading is not None:
            await self._reading.close()
        for task in list(self._tasks):
            task.cancel()
        await self._router.close()

    async def _declare(self, spec: MachineSpec, reinit: bool = False) -> None:
        config = await declare(
            self._router, self._namespace, spec.name, spec.partitions, spec.graph(), schema=spec.schema, update=True, reinit=reinit
        )
        partitions = [PartitionKeys(self._namespace, spec.name, p) for p in range(config.partitions)]
        if (served := self._served.get(spec.name)) is not None:
            served.config = config
        else:
            self._served[spec.name] = Served(spec, config, partitions, set(), [Held() for _ in partitions])

    def _about(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "process": own_name(),
            "started": self.now_ms(),
            "concurrency": self.settings.concurrency,
            "library": library().name,
        }

    def _turn(self, life: Life) -> None:
        """P6: shows the life thread that this loop turns."""
        life.turned_s = time.monotonic()
        self._turning = asyncio.get_running_loop().call_later(0.2, self._turn, life)

    def _running(self) -> list[str]:
        return [
            f"{p.spec.name}/{lane.key} {attempt.command.transition}"
            for p in list(self.partitions.values())
            for lane in list(p.lanes.values())
            if (attempt := lane.attempt) is not None
        ]

    async def _set_clock(self) -> None:
        """What this worker takes for Redis time is what it was, or the nearest that the answer allows: Redis read its clock at some moment
        between question and answer, and these may lie seconds apart while a host hangs (Marzullo's bounds, with one source)."""
        asked_s = time.monotonic()
        redis_ms = await lease.redis_now_ms(self._router)
        offset_ms = min(max(self._clock_offset_ms, redis_ms - time.monotonic() * 1000), redis_ms + 1 - asked_s * 1000)
        by_ms, self._clock_offset_ms = offset_ms - self._clock_offset_ms, offset_ms
        self._clock_was_set(by_ms)
        for p in self.partitions.values():  # a paused guest has no clock that says so, but Redis has
            p.confirmed = earlier(p.confirmed, max(0.0, by_ms) / 1000)

    def _clock_was_set(self, by_ms: float) -> None:
        """When Redis' clock is set, or this host stood still, leases end as much later or earlier by it as was still left of them. The time
        of a partition that is ahead of it was reckoned from what this worker took for Redis time: a correction of that is none of this."""
        was_set = abs(by_ms) > CLOCK_SET_MS
        for served in self._served.values() if was_set else ():
            served.view = [replace(h, deadline_ms=h.deadline_ms + round(by_ms)) if h.token else h for h in served.view]
        for p in self.partitions.values():
            if was_set or (p.ahead_ms and abs(by_ms) > CLOCK_DRIFT_MS):
                p.clock_was_set(by_ms)

    # -- what others do (called in this loop by the life thread) --------------------------------------

    def heard_failed(self, error: StatemqError) -> None:
        self._fail(error)

    def heard_live(self, machine: str, live: list[str]) -> None:
        self._lives(self._served[machine], {*live})

    def _lives(self, served: Served, live: set[str]) -> None:
        live.discard(self.id)
        if live != served.live:
            served.live = live
            self._replan()
        self._peers.heard_live(served)

    def heard_news(self, machine: str, words: list[str]) -> None:
        served = self._served[machine]
        match words:
            case ["released", p]:
                self._saw(served, int(p), Held())
            case ["acquired", p, token, owner]:
                self._saw(served, int(p), Held(token, owner, self.now_ms() + self.settings.lease_ms))
            case ["joined", worker]:
                self._lives(served, served.live | {worker})
            case ["left", worker]:
                self._lives(served, served.live - {worker})
            case ["paused" | "resumed" as word]:
                for keys in served.keys:
                    self.heard_paused(keys, word == "paused")

    def heard_silent(self, partition: PartitionKeys, owner: str) -> None:
        self._peers.heard_silent(partition, owner)

    def heard_again(self, partition: PartitionKeys, owner: str) -> None:
        self._peers.heard_again(partition, owner)

    def heard_lost(self, partition: PartitionKeys, token: str, over: TenureOver) -> None:
        p = self.partitions.get(partition)
        if p is not None and p.fence.token == token:
            p.lose(over)

    def heard_renewed(self, partition: PartitionKeys, token: str, asked: Moment) -> None:
        p = self.partitions.get(partition)
        if p is not None and p.fence.token == token:
            p.confirmed = max(p.confirmed, asked)

    def heard_paused(self, partition: PartitionKeys, paused: bool) -> None:
        p = self.partitions.get(partition)
        if p is not None and p.paused != paused:
            p.paused = paused
            p.resume()

    def _saw(self, served: Served, number: int, held: Held) -> None:
        if 0 <= number < len(served.view):
            served.view[number] = held
            self._tell_life()
            self._replan()

    # -- who should hold what ------------------------------------------------------------------------

    async def _survey_often(self) -> None:
        while True:
            await self._survey()
            await asyncio.sleep(self._until_survey_s())
            await self._set_clock()

    def _until_survey_s(self) -> float:
        """Until just after the next deadline of another's lease as last seen, or after the moment at which that costs it its share: who
        was never seen to die is found out by that alone (P5)."""
        now_ms = self.now_ms()
        others = [h.deadline_ms for s in self._served.values() for h in s.view if h.token and h.owner != self.id]
        moments = [deadline_ms + late_ms for deadline_ms in others for late_ms in (0, LATE_MS)]
        next_ms = min((m for m in moments if m >= now_ms), default=now_ms + SURVEY_S * 1000)
        return min(SURVEY_S, max(SURVEY_S / 10, (next_ms - now_ms) / 1000 + 0.02))

    async def _survey(self) -> None:
        for served in self._served.values():
            others = [keys for keys in served.keys if keys not in self.partitions]  # of our own the renewals tell
            before = list(served.view)
            for keys, held in zip(others, await lease.survey(self._router, others), strict=True):
                if served.view[keys.number] is before[keys.number]:  # else there was news meanwhile, which may be younger
                    served.view[keys.number] = self._dated(held, served.view[keys.number])
            served.surveyed = True
            await self._peers.look(served)
        self._tell_life()
        self._replan()

    def _dated(self, held: Held, before: Held) -> Held:
        """The lease as read, its end by this worker's clock: an owner that renews puts it off, and a clock that was set does not."""
        same = held.token == before.token
        if same and held.said_ms == before.said_ms:
            return replace(held, deadline_ms=before.deadline_ms)
        ends_ms = min(held.deadline_ms, self.now_ms() + self.settings.lease_ms + FAR_MS)
        # a renewal was seen, so no doubt of an earlier reading outlasts it: what is left is no more than a lease
        kept_ms = min(before.deadline_ms, self.now_ms() + self.settings.lease_ms) if same else 0
        return replace(held, deadline_ms=max(ends_ms, kept_ms))

    def _tell_life(self) -> None:
        if self._life is None:
            return
        self._life.tenures = [p.fence for p in self.partitions.values()]
        self._life.looks.owners = {
            keys: served.view[keys.number].owner
            for served in self._served.values()
            for keys in served.keys
            if keys not in self.partitions and served.view[keys.number].owner
        }

    def _replan(self) -> None:
        if not self._replan_due:
            self._replan_due = True
            asyncio.get_running_loop().call_soon(self._carry_out)

    def _carry_out(self) -> None:
        self._replan_due = False
        if self._stopping.is_set():
            return
        for served in self._served.values():
            if not served.surveyed:
                continue
            late = {held.owner for held in served.view if held.token and held.deadline_ms + LATE_MS < self.now_ms()}
            live = sorted(served.live - self._peers.gone(served) - late | {self.id})
            owners = [self.id if keys in self.partitions else served.view[keys.number].owner or None for keys in served.keys]
            for keys, wanted in zip(served.keys, plan(live, owners), strict=True):
                mine = self.partitions.get(keys)
                if mine is None and wanted == self.id:
                    self._maybe_take(served, keys)
                elif mine is not None and wanted == self.id and mine.leaving:
                    mine.leaving = False
                elif mine is not None and wanted != self.id:
                    mine.leaving = True
                    if not mine.handing_over:
                        mine.handing_over = True
                        self._spawn(self._hand_over(mine))

    def _maybe_take(self, served: Served, keys: PartitionKeys) -> None:
        """Only what is free, a dead one's or overdue; a living owner hands over by itself."""
        held = served.view[keys.number]
        dead = self._peers.is_dead(keys, held.owner)
        overdue = held.token and held.deadline_ms < self.now_ms()
        if keys in self._taking or self._trouble_until.get(keys, 0) > time.monotonic() or self._pacing.wait_s(keys, time.monotonic()):
            return
        if not held.token or held.owner == self.id or dead or overdue:
            self._taking.add(keys)
            self._spawn(self._take(served, keys, held, dead))
        else:
            self._look_again(held.deadline_ms)

    def _look_again(self, deadline_ms: int) -> None:
        """A silent host's lease is taken when it ends, not at the next survey."""
        loop = asyncio.get_running_loop()
        at_s = loop.time() + max(0.0, deadline_ms - self.now_ms()) / 1000 + 0.01
        if self._alarm is not None and self._alarm_s > at_s:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None:
            self._alarm, self._alarm_s = loop.call_at(at_s, self._ring), at_s

    def _ring(self) -> None:
        self._alarm = None
        self._replan()

    async def _take(self, served: Served, keys: PartitionKeys, held: Held, dead: bool) -> None:
        fate = self._peers.fate(held.owner)
        try:
            self._n += 1
            asked = moment()
            got = await lease.acquire(
                self._router, keys, worker=self.id, n=self._n, believed=held.token, lease_ms=self.settings.lease_ms,
                incarnation=served.config.incarnation, owner=held.owner, reinit=False,
                process=own_name(), silent=held.owner if dead else "", ended=fate is Fate.ended, lives=fate is Fate.lives,
                passed_ms=held.said_ms if held.deadline_ms < self.now_ms() else 0,
            )  # fmt: skip
            if isinstance(got, NotAcquired):
                await self._not_acquired(served, keys, held, got)
            elif self._stopping.is_set():
                await lease.release(self._router, keys, got.token)
            else:
                self._begin(served, keys, held, got, asked)
        except ReplyError as error:
            why = await find_damage(self._router, keys, served.spec.states, self.now_ms())
            self._trouble(keys, f"{served.spec.name}:{keys.number} is halted, a key of it is damaged: {why or error}")
        except RedisAway as error:
            if not self._stopping.is_set():
                raise error
        finally:
            self._taking.discard(keys)

    def _begin(self, served: Served, keys: PartitionKeys, held: Held, got: Acquired, asked: Moment) -> None:
        served.view[keys.number] = Held(got.token, self.id, self.now_ms() + self.settings.lease_ms, got.paused)
        p = Partition(self._shop, served.spec, keys, got, self._suspects.setdefault(keys, {}), asked)
        self.partitions[keys] = p
        self._tell_life()
        self._replan()  # others may have joined since it was asked for, and the news of it may have come before its answer
        if got.crashed and got.dead not in served.owners:
            # else it would count in the shares until its last life sign is old, and be left partitions that it never takes; not before
            # its last partition is taken, since who starts on its host knows by its record that it has ended
            self._spawn(self._tell_gone(served.spec.name, got.dead))
        if events.listeners:
            taken = held.owner if held.owner != self.id else ""
            events.emit(
                events.Acquired(
                    machine=served.spec.name, partition=keys.number, taken_from=taken, crashed=got.crashed, reclaimed=len(got.pending)
                )
            )
            if taken:
                self._tell_taken((served.spec.name, taken, got.crashed), len(got.pending))
        Timers(p)
        p.on_caught_up = lambda: serve_ready(p)
        p.tidying = p.spawn(sweep(p))
        assert self._reading is not None
        self._reading.add(p)

    def _tell_taken(self, whose: tuple[str, str, bool], reclaimed: int) -> None:
        """A dead worker's partitions come one by one; they are told of together."""
        if whose not in self._taken:
            self._taken[whose] = []
            asyncio.get_running_loop().call_later(0.05, self._told_taken, whose)
        self._taken[whose].append(reclaimed)

    def _told_taken(self, whose: tuple[str, str, bool]) -> None:
        counts, (machine, owner, crashed) = self._taken.pop(whose), whose
        events.emit(events.TookOver(machine=machine, taken_from=owner, crashed=crashed, partitions=len(counts), reclaimed=sum(counts)))

    async def _not_acquired(self, served: Served, keys: PartitionKeys, held: Held, got: NotAcquired) -> None:
        name = f"{served.spec.name}:{keys.number}"
        if got.word == "taken":
            self._saw(served, keys.number, Held(got.token, got.owner, self.now_ms() + self.settings.lease_ms))
        elif got.word == "alive":
            self._peers.heard_again(keys, held.owner)
            (read,) = await lease.survey(self._router, [keys])
            served.view[keys.number] = self._dated(read, served.view[keys.number])
            if self._peers.is_dead(keys, held.owner):  # its server has not noticed yet, or a child of it has its connections
                now_s = time.monotonic()
                pause_s = max(CONFIRM_S, self._pacing.ended(keys, began_s=now_s, now_s=now_s))
                asyncio.get_running_loop().call_later(pause_s, self._replan)
        elif got.word == "foreign" and await self._made_anew(served):
            self._replan()
        elif self.settings.on_wipe == "reinit":
            events.emit(
                events.Failing(machine=served.spec.name, partition=keys.number, text=f"{name} was {_WIPED[got.word]}; it is made anew")
            )
            await self._declare(served.spec, reinit=True)
            self._replan()
        else:
            self._trouble(
                keys,
                f"{name} was {_WIPED[got.word]}, so its commands and states are not what this namespace had; "
                "nothing is made anew silently: start a worker with --on-wipe reinit to allow it",
            )

    async def _made_anew(self, served: Served) -> bool:
        """Whether somebody who was allowed to has made the machine anew; then it is served as it is now."""
        try:
            config = await read_config(self._router, self._namespace, served.spec.name)
        except UnknownMachine:
            return False
        if config.incarnation == served.config.incarnation or config.partitions != served.config.partitions:
            return False
        served.config = config
        events.emit(
            events.Warned(
                machine=served.spec.name, text=f"{served.spec.name} was made anew by another process; this worker continues with it"
            )
        )
        return True

    def _trouble(self, keys: PartitionKeys, text: str) -> None:
        events.emit(events.Failing(machine=keys.machine, partition=keys.number, text=text))
        self._trouble_until[keys] = time.monotonic() + TROUBLE_S
        asyncio.get_running_loop().call_later(TROUBLE_S + 0.1, self._replan)

    def _over(self, p: Partition, over: TenureOver) -> None:
        """A tenure ended by itself."""
        if self.partitions.get(p.keys) is p:
            del self.partitions[p.keys]
        self._tell_life()
        self._pace(p)
        if isinstance(over, Closed):
            return
        served = self._served[p.keys.machine]
        if events.listeners:
            why = f"{type(over).__name__}: {over}" if str(over) else type(over).__name__
            events.emit(events.Fenced(machine=p.spec.name, partition=p.keys.number, why=why))
        if isinstance(over, Fenced):
            served.view[p.keys.number] = Held("unknown", "unknown", self.now_ms() + self.settings.lease_ms)
            self._spawn(self._survey())
            return
        if isinstance(over, ScriptFailed):
            self._spawn(self._diagnose(p, over))
            return
        # rewound or failed: the same owner begins anew with nothing in memory (P2)
        self._replan()

    def _pace(self, p: Partition) -> None:
        """Tenures that end soon after they began, one after the other and whatever ends them, are begun again after growing pauses."""
        if pause_s := self._pacing.ended(p.keys, began_s=p.began_s, now_s=time.monotonic()):
            asyncio.get_running_loop().call_later(pause_s + 0.001, self._replan)

    async def _diagnose(self, p: Partition, over: ScriptFailed) -> None:
        """P20: a damaged key that all share halts the partition; else one command is to blame, and the partition begins anew to find it."""
        if why := await find_damage(self._router, p.keys, p.spec.states, self.now_ms()):
            p.suspects.clear()
            self._trouble(p.keys, f"{p} is halted, a key of it is damaged: {why}")
        elif self._failing_again(p.keys):
            self._trouble(p.keys, f"{p} is halted, a script of it fails again and again: {over}")
        self._replan()

    def _failing_again(self, keys: PartitionKeys) -> bool:
        """Whether this partition's scripts failed several times within a short while; then it is given a rest."""
        now = time.monotonic()
        times = [t for t in self._failures.get(keys, []) if now - t < 10] + [now]
        self._failures[keys] = times
        return len(times) > 6

    async def _tell_gone(self, machine: str, worker: str) -> None:
        """The registry has the worker no more; one that is damaged is the life thread's to complain of."""
        with contextlib.suppress(ReplyError):
            await lease.beat(self._router, self._namespace, machine, worker, b"", gone=True)

    # -- letting go ----------------------------------------------------------------------------------

    async def _hand_over(self, p: Partition) -> None:
        """P7: it goes as soon as nothing of it runs. It stops for that, starting nothing, only as far as others of its keys lose little
        time; given up when the share changed."""
        until_s = 0.0
        while not p.closed and not self._stopping.is_set():
            now_s = time.monotonic()
            p.patience.look(p.under_way(), now_s)
            if p.draining and (not p.leaving or (p.busy and now_s > until_s)):
                p.patience.has_stopped(now_s)
                p.undrain()
            if not p.leaving:
                break
            if not p.busy:
                p.drain()
                await self._release(p)
            elif not p.draining and (for_s := p.patience.may_stop_s(now_s)):
                until_s = now_s + for_s
                p.drain()
            await asyncio.sleep(0.005 if p.draining else LOOK_S)
        p.handing_over = False

    async def _release(self, p: Partition) -> None:
        if self.partitions.pop(p.keys, None) is None:
            return
        bodies = [lane.task for lane in p.lanes.values() if lane.task is not None]
        p.close()
        self._pace(p)
        if bodies and not self._killed:  # they are being closed; the next owner's must not run beside their last words
            await asyncio.wait(bodies, timeout=BODIES_S)
        served = self._served[p.keys.machine]
        served.view[p.keys.number] = Held()
        self._tell_life()
        try:
            await lease.release(self._router, p.keys, p.fence.token)
        except ReplyError as error:  # damaged by hand: nobody has it, and who tries to take it says so
            events.emit(events.Warned(machine=p.spec.name, partition=p.keys.number, text=f"{p} could not be released: {error}"))
        if events.listeners:
            events.emit(events.Released(machine=p.spec.name, partition=p.keys.number))
        asyncio.get_running_loop().call_later(0.5, self._replan)

    async def _leave_in_time(self, life: Life) -> None:
        """Leaving asks Redis; when it does not answer, the process ends all the same, and what it held is free when its leases end."""
        leaving = asyncio.ensure_future(self._leave(life))
        moved_s = time.monotonic()
        grace_until, left = moved_s + self.settings.grace_s, len(self.partitions)
        try:
            while not leaving.done():
                await asyncio.wait([leaving], timeout=0.05)
                self._router.hurry()
                now = time.monotonic()
                runs = now < grace_until and not self._killed and any(p.busy for p in self.partitions.values())
                if runs or len(self.partitions) < left:
                    moved_s, left = now, len(self.partitions)
                elif now - moved_s > (KILLED_S if self._killed else LEAVE_S):
                    events.emit(events.Warned(text="Redis does not answer; this worker leaves without handing over what it holds"))
                    return
            leaving.result()
        finally:
            leaving.cancel()

    async def _leave(self, life: Life) -> None:
        """SIGTERM: each partition goes as soon as nothing of it runs; what outlasts the grace period is left pending."""
        self._shop.slots.closed = life.leaving = True
        until = time.monotonic() + self.settings.grace_s
        for name in self._served:
            await self._tell_gone(name, self.id)
        for p in list(self.partitions.values()):
            p.drain()
        while self.partitions or self._taking:  # what is being taken is given back
            idle = [p for p in self.partitions.values() if not p.busy or self._killed or time.monotonic() > until]
            await asyncio.gather(*(self._release(p) for p in idle))
            if self.partitions or self._taking:
                await asyncio.sleep(0.005)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """A fault of our own, or a Redis that cannot be used any more: the process ends with it, and its peers go on."""
        if not self._stopping.is_set():
            self._failed = error
            self._stopping.set()


async def to_its_end(work: Coroutine[Any, Any, Any]) -> None:
    """``work``, which must be short, also if who waits is cancelled, once or often; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


_WIPED = {"wiped": "wiped (its lease is gone)", "foreign": "replaced (its lease belongs to another incarnation)"}
