"""A partition to play interleavings on: scripts called one by one, a store set back, replies held back, workers in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import redis as redis_py

from statemq import Client, keys
from statemq.codec import encode
from statemq.config import WorkerSettings
from statemq.keys import PartitionKeys
from statemq.store import lease, outcome
from statemq.store.commands import ByHand, Queued, read_entry
from statemq.store.commit import Ended, lay_out, words
from statemq.store.declare import Config, declare
from statemq.store.fence import Fence
from statemq.store.lease import Acquired, NotAcquired
from statemq.store.router import Router
from statemq.worker.daemon import Worker
from tests.contents import content
from tests.integration.races.probe import Probe
from tests.waiting import wait_until

NEVER = 3_000_000_000_000
"""A due time that no test lives to see."""

Saved = dict[str, tuple[int, bytes]]


class Stage:
    """One partition of a machine. ``redis`` is an operator's connection; it blocks the loop, so calls of it are short."""

    def __init__(self, url: str, namespace: str, router: Router, client: Client, config: Config, machine: type[Any]) -> None:
        self.url, self.namespace, self.router, self.client, self.config = url, namespace, router, client, config
        self.machine = machine
        self.part = PartitionKeys(namespace, config.machine, 0)
        self.redis = redis_py.Redis.from_url(url, decode_responses=True)

    # -- owning ------------------------------------------------------------------------------------

    async def acquire(self, worker: str, n: int = 1, believed: str = "", **more: Any) -> Acquired | NotAcquired:
        how: dict[str, Any] = {"lease_ms": 60_000, "incarnation": self.config.incarnation, "silent": "", "reinit": False}
        return await lease.acquire(self.router, self.part, worker=worker, n=n, believed=believed, **(how | more))

    async def own(self, worker: str = "w1", n: int = 1, believed: str = "", **more: Any) -> Fence:
        got = await self.acquire(worker, n, believed, **more)
        assert isinstance(got, Acquired), got
        return Fence(self.router, self.part, got.token, worker)

    async def take_over(self, worker: str, n: int = 1) -> Fence:
        """Another worker owns the partition after the present one's deadline; it is not said to have crashed."""
        self.abandon()
        return await self.own(worker, n, self.token)

    def abandon(self) -> None:
        """The owner's deadline has passed."""
        self.redis.hset(self.part.lease, "deadline", 0)

    @property
    def token(self) -> str:
        return self.redis.hget(self.part.lease, "token") or ""

    # -- commands ----------------------------------------------------------------------------------

    async def send(self, key: str, *numbers: int, transition: str = "note", **how: Any) -> list[str]:
        """One command for each number, in order; their ids."""
        handles = [await self.client.send(self.config.machine, key, transition, {"n": n}, **how) for n in numbers]
        return [h.id for h in handles]

    def queued(self, key: str | None = None) -> list[Queued]:
        """What lies in the stream, in order; looks, garbage and what has no id aside."""
        return [c for c in self._read() if isinstance(c, Queued) and key in (None, c.key)]

    def queued_by_hand(self) -> list[Queued]:
        """What lies in the stream without an id, as its owner will call it."""
        return [found.command for found in self._read() if isinstance(found, ByHand)]

    def _read(self) -> list[Any]:
        raw = redis_py.Redis.from_url(self.url)
        with contextlib.closing(raw):
            rows = raw.xrange(self.part.commands)
        prefix = keys.reply_channel(self.namespace, "")
        return [read_entry(e, [x for pair in f.items() for x in pair], self.part, self.config.partitions, prefix) for e, f in rows]

    def inbox(self, key: str) -> list[str]:
        """The command ids of a key's inbox."""
        return [text.split(" ")[1] for text in self.redis.lrange(self.part.inbox(key), 0, -1)]

    def pending(self) -> dict[str, tuple[str, int]]:
        """Entries in progress: who runs them, and how often an owner died of them."""
        rows = self.redis.xpending_range(self.part.commands, "workers", "-", "+", 100)
        return {row["message_id"]: (row["consumer"], row["times_delivered"]) for row in rows}

    def log(self, key: str) -> list[int]:
        """The instance's log as committed."""
        data = self.redis.hget(self.part.instance(key), "data")
        return msgspec.json.decode(data)["log"] if data else []

    def transitions(self) -> list[str]:
        """History: which outcome which command had, in order."""
        return [f"{fields['outcome']} {fields['id']}" for _, fields in self.redis.xrange(self.part.history)]

    async def outcome(self, id: str) -> str:
        return (await self.client.handle(id).outcome(timeout=10)).outcome

    def ended(self, c: Queued, version: int, *, log: list[int] | None = None) -> Ended:
        """The command has completed on this version; with ``log`` it has changed the instance."""
        writes = log is not None
        json = outcome.completed(c.id, c.key, c.transition, "IDLE", version + writes, 1, b"null")
        data = encode({"log": log}) if writes else b""
        source = "IDLE" if version else ""
        return Ended(c, "completed", json, version, writes, source, "IDLE", data, str(version + 1) if writes and not version else "")

    def commit(self, fence: Fence, *ended: Ended) -> asyncio.Future[Any]:
        states, names, args = lay_out(ended, self.part)
        return fence.commit(states, names, args, len(ended))

    async def committed(self, fence: Fence, *ended: Ended) -> list[str]:
        return words(await fence.answer(self.commit(fence, *ended)), len(ended))

    # -- a store that is set back ------------------------------------------------------------------

    def save(self) -> Saved:
        """The namespace as it is now."""
        with contextlib.closing(redis_py.Redis.from_url(self.url)) as raw:
            names = list(raw.scan_iter(f"{self.namespace}:*", count=1000))
            return {n.decode(): (max(0, raw.pttl(n)), dump) for n in names if (dump := raw.dump(n)) is not None}

    def contents(self) -> dict[str, Any]:
        """What is in the namespace's keys."""
        with contextlib.closing(redis_py.Redis.from_url(self.url)) as raw:
            return {n.decode(): content(raw, n) for n in raw.scan_iter(f"{self.namespace}:*", count=1000)}

    def restore(self, saved: Saved) -> None:
        """As a failover does that loses writes: at one moment, everything is as it was."""
        with contextlib.closing(redis_py.Redis.from_url(self.url)) as raw:
            names = [n.decode() for n in raw.scan_iter(f"{self.namespace}:*", count=1000)]
            with raw.pipeline(transaction=True) as back:
                for name in names:
                    if name not in saved:
                        back.delete(name)
                for name, (ttl_ms, dump) in saved.items():
                    back.restore(name, ttl_ms, dump, replace=True)
                back.execute()

    # -- a real worker -----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def worker(self, url: str = "", *, wait: bool = True, **settings: Any) -> AsyncIterator[Worker]:
        """A worker in this loop; with ``wait`` it owns the partition and has read what was there."""
        worker = Worker([self.machine], url or self.url, namespace=self.namespace, settings=WorkerSettings(**settings))
        task = asyncio.ensure_future(worker.run())
        try:
            if wait:
                await wait_until(lambda: task.done() or any(p.caught_up for p in worker.partitions.values()))
                assert not task.done(), await task
            yield worker
        finally:
            worker.stop()
            await task


@contextlib.asynccontextmanager
async def stage(url: str, namespace: str, machine: type[Any] = Probe) -> AsyncIterator[Stage]:
    router = await Router(url).open()
    try:
        spec = machine.spec
        config = await declare(router, namespace, spec.name, spec.partitions, spec.graph(), update=True)
        async with Client(url, namespace=namespace, machines=[machine]) as client:
            yield Stage(url, namespace, router, client, config, machine)
    finally:
        await router.close()


class Held:
    """Calls of one name are executed, but their answers wait until ``release``: a slow network, a busy loop."""

    def __init__(self, router: Router, name: str) -> None:
        self._router, self._name = router, name
        self._run, self._call = router.run, router.call
        self.held: list[tuple[asyncio.Future[Any], asyncio.Future[Any]]] = []
        router.run = self._held_run  # type: ignore[method-assign]
        router.call = self._held_call  # type: ignore[method-assign]

    def _held_run(self, name: str, names: list[str], *args: Any) -> asyncio.Future[Any]:
        return self._maybe(name, self._run(name, names, *args))

    def _held_call(self, key: str, *args: Any) -> asyncio.Future[Any]:
        return self._maybe(str(args[0]), self._call(key, *args))

    def _maybe(self, name: str, sent: asyncio.Future[Any]) -> asyncio.Future[Any]:
        if name != self._name:
            return sent
        later = asyncio.get_running_loop().create_future()
        self.held.append((sent, later))
        return later

    @property
    def answered(self) -> int:
        """Calls that were executed and whose answers are held."""
        return sum(sent.done() for sent, _ in self.held)

    async def release(self) -> None:
        """The answers arrive, in order; later calls are not held."""
        self._router.run, self._router.call = self._run, self._call  # type: ignore[method-assign]
        await asyncio.gather(*(sent for sent, _ in self.held), return_exceptions=True)
        for sent, later in self.held:
            if not later.done():
                error = sent.exception()
                later.set_exception(error) if error else later.set_result(sent.result())
        self.held.clear()


class Gate:
    """Where handlers wait in a test: who came, and who may go on."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._open: dict[int, asyncio.Event] = {}
        self._all = False

    async def __call__(self, n: int) -> None:
        self.came.append(n)
        if not self._all:
            await self._open.setdefault(n, asyncio.Event()).wait()

    def let(self, n: int) -> None:
        self._open.setdefault(n, asyncio.Event()).set()

    def let_all(self) -> None:
        self._all = True
        for event in self._open.values():
            event.set()


def wake(key: str) -> bytes:
    """A wake-up's data, as the worker writes it."""
    return encode({"kind": "wake", "key": key, "transition": "work"})
