"""Two workers of odd settings come and go on one partition, and everything that can be interrupted is, at random.

Thrown at the engine, all at once: workers that stop or die after up to two seconds, with windows, caches, read-ahead and concurrency of
almost nothing, that sweep several times a second; commands of twelve keys that compute, sleep, run steps, fail, branch; delays, cancels,
pauses, idempotency keys; requests and replies that are lost, connections that are cut, at a worker and at the client; ``CLIENT KILL`` of
all connections or all subscriptions; a lease whose count of calls is set back, as by a failover.

Checked when all is quiet: every command ended once, and who waited for it heard how; an instance's log is what completed, in the order it
was sent (delayed ones aside); nothing is pending, no key is left (fixture ``namespace``), the last worker's counts of what it holds are
back where they began, no task of a tenure goes on, and nothing was raised that nobody took.

The seed settles what is thrown and how often, not the interleaving: play one again a few times
(``CHAOS_SEED=1 bin/test tests/chaos/test_fuzz.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from statemq import Client
from statemq.client.handle import Handle
from statemq.config import WorkerSettings
from statemq.errors import StatemqError
from statemq.server import EmbeddedServer
from statemq.worker import sweep
from statemq.worker.daemon import Worker
from tests.chaos.conftest import Report
from tests.faulty import FaultyProxy
from tests.integration.races import probe
from tests.integration.races.probe import Probe
from tests.integration.races.stage import Stage, stage
from tests.waiting import wait_until

MACHINE = Probe.spec.name
KEYS = [f"k{n}" for n in range(12)]
PER_KEY_AND_S = 60
LEASE_MS = 2000
DRAINS_WITHIN_S = 40.0
SWEEP_EVERY_S = 0.3
LAST_DEEDS = 30
CALLS = (
    "append", "cancel", "acquire", "release", "load", "start", "record", "park", "postpone", "wake", "commit", "xread", "lrange", "hgetall"
)  # fmt: skip


@pytest.fixture
def dice(seed: int) -> Iterator[random.Random]:
    """Also what the bodies of the machine throw."""
    made = random.Random(seed)
    probe.HOOKS.update(work=_body(made), pure=lambda *_: None)
    yield made
    probe.HOOKS.clear()


@pytest.mark.parametrize("run", [0, *(pytest.param(n, marks=pytest.mark.chaos) for n in range(1, 13))])
async def test_whatever_is_interrupted(
    server: EmbeddedServer,
    url: str,
    namespace: str,
    dice: random.Random,
    seed: int,
    run: int,
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep, "EVERY_S", SWEEP_EVERY_S)
    dice.seed(seed + run)  # of its own for each run, and the first one's is the one to give
    async with stage(url, namespace) as play, FaultyProxy(server.port) as proxy:
        async with Client(proxy.url, namespace=namespace, machines=[Probe]) as client:
            fuzz = Fuzz(play, proxy, client, dice)
            try:
                await fuzz.rage(8.0 if run else 5.0)
                await fuzz.drain()
            except Exception as error:
                error.add_note(f"seed {seed + run}\n{fuzz.story()}")
                raise
        found = fuzz.faults()
        assert not found, f"seed {seed + run}: {len(found)} faults, the first:\n" + "\n".join(found[:20]) + f"\n{fuzz.story()}"
    report(f"fuzz: {sum(map(len, fuzz.sent.values()))} commands, {dict(fuzz.counts)} (seed {seed + run}): each once and in order")


class Fuzz:
    """``sent``: key → its commands as (number, id), in order. ``delayed``: the ids that were sent to run later. ``deeds``: the last ones,
    with the second each was done in."""

    def __init__(self, play: Stage, proxy: FaultyProxy, client: Client, dice: random.Random) -> None:
        self.play, self.proxy, self.client, self.dice = play, proxy, client, dice
        self.sent: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self.delayed: set[str] = set()
        self.heard: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.deeds: deque[str] = deque(maxlen=LAST_DEEDS)
        self._began_s = time.monotonic()
        self._until_s = 0.0
        self._unhandled: list[str] = []
        asyncio.get_running_loop().set_exception_handler(self._nobody_took)
        self._waiting: list[asyncio.Task[None]] = []

    @property
    def _on(self) -> bool:
        return time.monotonic() < self._until_s

    def _did(self, what: str, more: str = "") -> None:
        self.counts[what] += 1
        self.deeds.append(f"{time.monotonic() - self._began_s:6.2f} {what} {more}")

    def _nobody_took(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._unhandled.append(f"nobody took: {context.get('message')} {context.get('exception')!r} {context.get('task', '')}")

    def story(self) -> str:
        return f"{dict(self.counts)}, at last:\n" + "\n".join(self.deeds)

    # -- what is thrown ----------------------------------------------------------------------------

    async def rage(self, seconds: float) -> None:
        """All of it at once for so long, until the last worker has gone."""
        self._began_s = time.monotonic()
        self._until_s = self._began_s + seconds
        most = int(seconds * PER_KEY_AND_S)
        async with asyncio.TaskGroup() as group:
            for url in (self.play.url, self.proxy.url):
                group.create_task(self._workers(url))
            for key in KEYS:
                group.create_task(self._produce(key, most))
            pace = self.dice.choice([0.3, 1, 1, 3])
            group.create_task(self._often(0.15 * pace, self._fault))
            group.create_task(self._often(1.0 * pace, self._kill_connections))
            group.create_task(self._often(1.0 * pace, self._rewind))

    async def _often(self, mean_s: float, deed: Callable[[], None]) -> None:
        while self._on:
            await asyncio.sleep(self.dice.uniform(0, 2 * mean_s))
            deed()

    async def _workers(self, url: str) -> None:
        """One after the other, each for up to two seconds."""
        while self._on:
            worker = Worker([Probe], url, namespace=self.play.namespace, settings=self._odd())
            task = asyncio.ensure_future(worker.run())
            try:
                await asyncio.wait([task], timeout=self.dice.uniform(0, 2))
            finally:
                end = self.dice.choice([worker.stop, worker.stop, worker.kill])
                self._did(f"worker {end.__name__}", worker.id)
                end()
                await task

    def _odd(self) -> WorkerSettings:
        pick = self.dice.choice
        return WorkerSettings(
            window=pick([4, 16, 64, 1024]), read_ahead=pick([0, 1, 4, 128]), cache=pick([2, 5, 1000]), concurrency=pick([1, 3, 128]),
            suspend_after_s=pick([0, 0.03, 5]), lease_ms=LEASE_MS, look_s=0.02, grace_s=1,
        )  # fmt: skip

    async def _produce(self, key: str, most: int) -> None:
        for n in range(most):
            if not self._on:
                return
            more: dict[str, Any] = {"idempotency_key": f"{key}-{n}"} if self._chance(0.2) else {}
            if self._chance(0.05):
                more["delay"] = self.dice.uniform(0.01, 0.5)
            transition = self.dice.choice(["note", "work", "work", "pure"])
            handle = await self._client().send(MACHINE, key, transition, {"n": n}, **more)
            self.sent[key].append((n, handle.id))
            if "delay" in more:
                self.delayed.add(handle.id)
            if self._chance(0.05):
                self._waiting.append(asyncio.ensure_future(self._hear(handle)))
            if self._chance(0.05):
                await self._cancel(self.dice.choice(self.sent[key])[1])
            if self._chance(0.03):
                await self._pause(key)
            await asyncio.sleep(self.dice.choice([0, 0, 0, 0.06]))

    async def _hear(self, handle: Handle[Any]) -> None:
        self.heard[handle.id] = (await handle.outcome(timeout=DRAINS_WITHIN_S)).outcome

    def _client(self) -> Client:
        """The one whose replies are lost, or one whose connection is killed at most; a key's commands come by both."""
        return self.dice.choice([self.client, self.play.client])

    async def _cancel(self, id: str) -> None:
        await asyncio.sleep(self.dice.uniform(0, 0.05))
        with contextlib.suppress(StatemqError):  # it has ended
            await self._client().cancel(id)
            self._did("cancel", id)

    async def _pause(self, key: str) -> None:
        await self._client().pause(MACHINE, key)
        await asyncio.sleep(self.dice.uniform(0, 0.1))
        await self._client().resume(MACHINE, key)
        self._did("pause", key)

    def _fault(self) -> None:
        """Something is lost on a connection of the worker, or the client, behind the proxy."""
        how = self.dice.choice([self.proxy.lose_reply, self.proxy.lose_reply, self.proxy.lose_request, self.proxy.cut_after, None])
        if how is None:
            self.proxy.cut()
            self._did("cut")
            return
        word, nth = self.dice.choice(CALLS), self.dice.randint(1, 5)
        how(word, nth)
        self._did(how.__name__, f"{word} {nth}")

    def _kill_connections(self) -> None:
        kind = self.dice.choice(["pubsub", "normal"])
        killed = self.play.redis.client_kill_filter(_type=kind, skipme=True)
        self._did(f"kill {kind}", str(killed))

    def _rewind(self) -> None:
        """The owner finds a lease that counts fewer calls than it made."""
        if self.play.redis.hexists(self.play.part.lease, "call"):
            self.play.redis.hset(self.play.part.lease, "call", 0)
            self._did("rewind")

    def _chance(self, of: float) -> bool:
        return self.dice.random() < of

    # -- what must hold ----------------------------------------------------------------------------

    async def drain(self) -> None:
        """A worker like any other ends what is left, and then holds nothing."""
        for key in KEYS:
            await self.play.client.resume(MACHINE, key)
        async with self.play.worker(lease_ms=LEASE_MS) as last:
            try:
                await wait_until(lambda: not self.play.redis.hlen(self.play.part.accepted), DRAINS_WITHIN_S)
                await wait_until(lambda: not _held(last))
                await wait_until(lambda: all(task.done() for task in self._waiting))
            except AssertionError:
                raise AssertionError(self._stuck(last)) from None
            await asyncio.gather(*self._waiting)
        with contextlib.suppress(AssertionError):  # ``faults`` names those that go on
            await wait_until(lambda: not any(_where(task) for task in asyncio.all_tasks()), timeout_s=5)

    def _stuck(self, last: Worker) -> str:
        numbers = {id: f"{key} {n}" for key, commands in self.sent.items() for n, id in commands}
        left = {numbers.get(id, id): entry for id, entry in self.play.redis.hgetall(self.play.part.accepted).items()}
        lines = [f"{len(left)} commands have not ended: {dict(list(left.items())[:20])}", *_held(last)]
        lines += [f"{sum(not task.done() for task in self._waiting)} wait for an outcome"]
        for p in last.partitions.values():
            lines += [f"{p}: room {p.room()}, caught up {p.caught_up}, paused {p.paused}"]
            lines += [f"lane {key}: {_slots(lane)}" for key, lane in p.lanes.items() if not lane.idle]
        return "\n".join(lines)

    def faults(self) -> list[str]:
        """What was promised and does not hold, a line each."""
        ends = self._ends()
        found = [f"an entry is pending: {entry} of {owner}" for entry, owner in self.play.pending().items()]
        for key, commands in self.sent.items():
            for n, id in commands:
                if len(ends[id]) != 1 or ends[id][0] not in ("completed", "cancelled"):
                    found.append(f"{key} {n} ({id}) ended as {ends[id]}")
            completed = [(n, id) for n, id in commands if "completed" in ends[id]]
            later = {n for n, id in commands if id in self.delayed}
            found += _wrong(key, self.play.log(key), [n for n, _ in completed], later)
        found += [f"{id} was heard to be {how} and is {ends[id]}" for id, how in self.heard.items() if ends[id] != [how]]
        return found + self._unhandled + [f"a task of a tenure goes on: {w}" for task in asyncio.all_tasks() if (w := _where(task))]

    def _ends(self) -> dict[str, list[str]]:
        """Command id → its outcomes in the history."""
        ends: dict[str, list[str]] = defaultdict(list)
        for line in self.play.transitions():
            outcome, _, id = line.partition(" ")
            ends[id].append(outcome)
        return ends


def _body(dice: random.Random) -> Callable[..., Awaitable[None]]:
    """What ``work`` does: something else at each attempt."""

    async def work(self: Probe, ctx: Any, n: int) -> None:
        thrown = dice.random()
        if thrown < 0.15:
            await ctx.sleep(dice.uniform(0, 0.1))
        elif thrown < 0.3:
            await ctx.step("s", lambda: n)
        elif thrown < 0.4 and ctx.attempt < 3:
            raise RuntimeError("thrown")
        elif thrown < 0.45:
            await asyncio.gather(ctx.sleep(0.02), ctx.sleep(0.02), ctx.step("g", lambda: n))
        elif thrown < 0.5:
            await asyncio.sleep(0.05)

    return work


def _where(task: asyncio.Task[Any]) -> str:
    """What a partition's task is waiting in; empty for any other one."""
    at: Any = task.get_coro()
    if getattr(at, "__qualname__", "") != "Partition._guarded":
        return ""
    names = []
    while (frame := getattr(at, "cr_frame", None)) is not None:
        names.append(f"{at.__qualname__}:{frame.f_lineno}")
        at = at.cr_await
    return " > ".join(names)


def _wrong(key: str, log: list[int], completed: list[int], later: set[int]) -> list[str]:
    """How a key's log differs from what completed, in the order it was sent; ``later`` may stand anywhere in it."""
    twice = [n for n, times in Counter(log).items() if times > 1]
    lost = sorted(set(completed) - set(log))
    uncounted = sorted(set(log) - set(completed))
    order = [(a, b) for a, b in itertools.pairwise(n for n in log if n not in later) if b < a]
    if not (twice or lost or uncounted or order):
        return []
    return [f"{key}: twice {twice}, lost {lost}, though not completed {uncounted}, out of order {order}"]


def _held(worker: Worker) -> list[str]:
    """What a worker that has nothing to do still counts as in hand."""
    found = []
    for p in worker.partitions.values():
        if p.held or p.held_bytes:
            found.append(f"{p} counts {p.held} commands of {p.held_bytes} bytes")
        found += [f"lane {key}: {_slots(lane)}" for key, lane in p.lanes.items() if lane.inflight or lane.parking]
    slots = worker._shop.slots
    if slots.free != worker.settings.concurrency:
        found.append(f"{slots.free} slots are free")
    return found


def _slots(lane: Any) -> dict[str, Any]:
    return {name: getattr(lane, name) for name in lane.__slots__ if name not in ("partition", "snap") and hasattr(lane, name)}
