"""Workers, a load and its judgement, and the promise that after a fault everything goes on by itself.

``crew`` runs workers in this process, ``Load`` sends one number after another to each of its keys for as long as the fault lasts,
``Load.judge`` says whether each was applied once and in order, and ``goes_on`` that every partition runs commands again within
the lease + 2 s of Redis answering again (nobody restarts anything: ``crew`` fails when a worker has ended).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry as RedisRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from statemq import Client, events
from statemq.client.handle import Handle
from statemq.config import WorkerSettings
from statemq.errors import NamespaceLost, Refused
from statemq.keys import partition_of
from statemq.worker.daemon import Worker
from tests.faults.tally import Tally
from tests.leaks import leaks
from tests.waiting import wait_until

LEASE_MS = 5_000
GRACE_S = 2.0
"""What a recovery may take beside the lease."""

ENDS_WITHIN_S = 60.0


class Crew:
    """Workers in this process, and what they said."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.told: list[events.Event] = []

    def start(self, url: str, namespace: str, machine: type[Any], **settings: Any) -> Worker:
        worker = Worker([machine], url, namespace=namespace, settings=WorkerSettings(**({"lease_ms": LEASE_MS} | settings)))
        self.workers.append(worker)
        self.tasks.append(asyncio.ensure_future(worker.run()))
        return worker

    def fine(self) -> bool:
        """No worker has ended by itself."""
        for task in self.tasks:
            if task.done():
                task.result()
                raise AssertionError("a worker has ended")
        return True

    @property
    def held(self) -> int:
        return sum(len(w.partitions) for w in self.workers)

    def counted(self, kind: type[events.Event]) -> int:
        return sum(isinstance(event, kind) for event in self.told)

    async def end(self) -> None:
        for worker in self.workers:
            worker.stop()
        await asyncio.gather(*self.tasks)


@contextlib.asynccontextmanager
async def crew(
    url: str, namespace: str = "statemq", *, workers: int = 2, machine: type[Any] = Tally, **settings: Any
) -> AsyncIterator[Crew]:
    """So many workers that share all partitions; when the block ends they still run, then they end in good order."""
    crew = Crew()
    events.listeners.append(crew.told.append)
    try:
        for _ in range(workers):
            crew.start(url, namespace, machine, **settings)
        await wait_until(lambda: crew.fine() and crew.held == machine.spec.partitions and all(w.partitions for w in crew.workers), 30)
        yield crew
        crew.fine()
    finally:
        events.listeners.remove(crew.told.append)
        await crew.end()


class Load:
    """``async with Load(client) as load:`` each key gets 0, 1, 2 … one after another, by several kinds of commands, until the block ends.

    A number that was refused (no memory) is sent again, so an instance's log is 0, 1, 2 … whatever happens.
    """

    def __init__(self, *clients: Client, keys: int = 8, every_s: float = 0.005) -> None:
        self._clients, self._every_s = clients, every_s
        self.sent: dict[str, list[Handle[Any]]] = {f"key {n}": [] for n in range(keys)}
        self.counts: Counter[str] = Counter()
        self._on = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._on = True
        self._tasks = [asyncio.ensure_future(self._produce(key, i)) for i, key in enumerate(self.sent)]
        return self

    async def __aexit__(self, kind: Any, *more: Any) -> None:
        self._on = False
        if kind is not None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            return
        await asyncio.wait_for(asyncio.gather(*self._tasks), ENDS_WITHIN_S)

    @property
    def total(self) -> int:
        return sum(map(len, self.sent.values()))

    async def more(self, n: int = 1) -> None:
        """Returns when each key got so many more."""
        wanted = {key: len(handles) + n for key, handles in self.sent.items()}
        await wait_until(lambda: all(len(self.sent[key]) >= count for key, count in wanted.items()), ENDS_WITHIN_S)

    async def _produce(self, key: str, i: int) -> None:
        client = self._clients[i % len(self._clients)]
        n = 0
        while self._on:
            command = [Tally.add(key, n=n), Tally.add(key, n=n), Tally.step(key, n=n), Tally.nap(key, n=n, ms=1)][(n + i) % 4]
            try:
                handle = await client.send(command)
            except (Refused, NamespaceLost) as error:
                self.counts[error.code] += 1
                await asyncio.sleep(0.05)
                continue
            self.sent[key].append(handle)
            n += 1
            await asyncio.sleep(self._every_s)

    async def judge(self, client: Client) -> None:
        """Each command completed, its client hears so, and each log is what was sent, once and in order."""
        for key, handles in self.sent.items():
            outcomes = await asyncio.gather(*(handle.outcome(timeout=ENDS_WITHIN_S) for handle in handles))
            assert {o.outcome for o in outcomes} <= {"completed"}, [o for o in outcomes if o.outcome != "completed"][:3]
            log = await log_of(client, key)
            missing, many = sorted(set(range(len(handles))) - set(log)), sorted(n for n, times in Counter(log).items() if times > 1)
            assert log == list(range(len(handles))), (
                f"{key} of {len(handles)}: missing {missing}, more than once {many}, or not in order: {log}"
            )
        ended = Counter(entry.id for entry in await client.history(Tally, limit=100_000))
        twice = [id for id, times in ended.items() if times > 1]
        assert not twice, f"ended twice: {twice[:5]}"


async def log_of(client: Client, key: str) -> list[int]:
    instance = await client.get(Tally, key)
    return list(instance.data.log)


def one_key_each(machine: type[Any] = Tally) -> list[str]:
    """A key for each partition."""
    n = machine.spec.partitions
    found: dict[int, str] = {}
    for i in range(100 * n):
        found.setdefault(partition_of(f"one {i}", n), f"one {i}")
    return [found[p] for p in sorted(found)]


async def answers(url: str, timeout_s: float = 30.0) -> float:
    """When (monotonic) this server answered first from now on, with its data."""
    async with Redis.from_url(url, socket_timeout=1, retry=RedisRetry(NoBackoff(), 0)) as redis:

        async def pong() -> bool:
            try:
                await redis.ping()
                await redis.exists("statemq:machines")
                return True
            except (RedisError, OSError):
                return False

        await wait_until(pong, timeout_s)
    return time.monotonic()


async def goes_on(client: Client, since_s: float, *, lease_ms: int = LEASE_MS, machine: type[Any] = Tally) -> float:
    """Every partition runs a command, within the lease + 2 s of ``since_s``, when Redis answered again; how long it took, in s."""
    by_s = lease_ms / 1000 + GRACE_S
    left_s = max(0.1, since_s + by_s - time.monotonic())
    keys = one_key_each(machine)
    said = await asyncio.gather(*(client.call(machine.ping(key), timeout=left_s) for key in keys), return_exceptions=True)
    assert said == keys, f"not all partitions run {by_s} s after Redis answered again: {said}"
    return time.monotonic() - since_s


async def nothing_left(url: str, namespace: str = "statemq") -> None:
    """When all is done, what is left in Redis is bounded (I8), and nothing is in progress."""
    async with Redis.from_url(url, decode_responses=True) as redis:

        async def done() -> bool:
            return all([await redis.xlen(name) == 0 async for name in redis.scan_iter(f"{namespace}:*:commands", count=1000)])

        await wait_until(done)
    import redis as redis_py

    with redis_py.Redis.from_url(url, decode_responses=True) as blocking:
        assert not leaks(blocking, namespace)
