"""Sentinels that are behind, hang, or talk nonsense: who is asked for the primary, and whose word counts. They are told what to say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hiredis
import msgspec
import pytest
from redis import Redis

from statemq import Client, Context, Machine, events, transition
from statemq.config import WorkerSettings, shown
from statemq.keys import PartitionKeys
from statemq.server import EmbeddedServer
from statemq.store.address import parse
from statemq.store.router import Router
from statemq.store.sentinel import Watch
from statemq.worker.daemon import Worker
from tests.waiting import block_until, wait_until


def packed(*words: object) -> bytes:
    """A flat list, as sentinels answer."""
    texts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in texts)


class Sentinel:
    """``master`` and ``where``: the answers to SENTINEL MASTER and GET-MASTER-ADDR-BY-NAME, None for none at all."""

    def __init__(self) -> None:
        self.master: bytes | None = None
        self.where: bytes | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def say(self, port: int, epoch: int, before: int = 0) -> Sentinel:
        """``before``: what MASTER still says while a failover goes on."""
        self.master = packed("name", "shop", "ip", "127.0.0.1", "port", before or port, "config-epoch", epoch)
        self.where = packed("127.0.0.1", port)
        return self

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        calls = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                calls.feed(data)
                while (call := calls.gets()) is not False:
                    answer = (self.master if call[1] == b"MASTER" else self.where) if call[0] == b"SENTINEL" else b"+PONG\r\n"
                    if answer is not None:
                        writer.write(answer)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def sentinels(n: int) -> AsyncIterator[list[Sentinel]]:
    made = [Sentinel() for _ in range(n)]
    for one in made:
        await one.start()
    try:
        yield made
    finally:
        for one in made:
            one.stop()


def url(*of: Sentinel) -> str:
    return "redis+sentinel://" + ",".join(f"127.0.0.1:{one.port}" for one in of) + "/shop"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[EmbeddedServer, EmbeddedServer]]:
    """Two primaries: one was replaced by the other and does not know it yet."""
    with EmbeddedServer(tmp_path / "old") as old, EmbeddedServer(tmp_path / "new", config=["--repl-diskless-sync-delay", "0"]) as new:
        yield old, new


@contextlib.asynccontextmanager
async def routed(*of: Sentinel) -> AsyncIterator[Router]:
    router = await Router(url(*of)).open()
    try:
        yield router
    finally:
        await router.close()


async def port(router: Router) -> int:
    """Of the server that answers."""
    return int((await router.home.call("CONFIG", "GET", "port"))[1])


async def test_the_address_that_a_failover_has_chosen_counts_while_it_goes_on(pair: tuple[EmbeddedServer, EmbeddedServer]) -> None:
    """Its leader says the new epoch and, in MASTER, the former address until the last replica follows."""
    old, new = pair
    async with sentinels(2) as (leader, other):
        leader.say(old.port, 0), other.say(old.port, 0)
        async with routed(leader, other) as router:
            leader.say(new.port, 1, before=old.port)
            await wait_until(lambda: router.home.up and router.home.address.port == new.port)
            assert await port(router) == new.port


@pytest.mark.parametrize("first", [0, 1])
async def test_a_sentinel_that_is_behind_is_outvoted(pair: tuple[EmbeddedServer, EmbeddedServer], first: int) -> None:
    """Also by one that knew more and answers no more; not by itself, at a start either."""
    old, new = pair
    async with sentinels(2) as both:
        knows, _ = both[0].say(new.port, 7), both[1].say(old.port, 6)
        async with routed(both[first], both[1 - first]) as router:
            assert await port(router) == new.port
            knows.master = None
            await asyncio.sleep(2.5)  # several of its answers are missed
            assert await port(router) == new.port
            knows.say(old.port, 6)  # an operator has made all of them anew: what all say counts, be its epoch lower
            await wait_until(lambda: router.home.address.port == old.port)
            assert await port(router) == old.port


@pytest.mark.parametrize("nonsense", [None, b"*-1\r\n", b"+OK\r\n", packed("name", "shop"), b"-ERR No such master\r\n"])
async def test_one_that_hangs_or_talks_nonsense_is_left_out(pair: tuple[EmbeddedServer, EmbeddedServer], nonsense: bytes | None) -> None:
    old, new = pair
    async with sentinels(2) as (sound, broken):
        sound.say(old.port, 0)
        broken.master = broken.where = nonsense
        async with routed(broken, sound) as router:
            assert await port(router) == old.port
            await asyncio.sleep(1.5)
            sound.say(new.port, 1)
            await wait_until(lambda: router.home.address.port == new.port, 1.5)  # nobody waits for the other
            broken.say(old.port, 2)  # and it is asked again
            await wait_until(lambda: router.home.address.port == old.port, 10)


@pytest.mark.quick
async def test_a_replica_is_not_taken_for_the_primary(pair: tuple[EmbeddedServer, EmbeddedServer]) -> None:
    """It was named too early, or is none any more: nothing is sent there."""
    old, new = pair
    with Redis.from_url(new.url) as redis:
        redis.replicaof("127.0.0.1", old.port)
    async with sentinels(1) as (only,):
        only.say(new.port, 0)
        opening = asyncio.ensure_future(Router(url(only)).open(20))
        await asyncio.sleep(1)
        assert not opening.done()
        only.say(old.port, 1)
        router = await opening
        assert await port(router) == old.port
        await router.close()


async def test_without_sentinels_the_primary_is_used_on(
    pair: tuple[EmbeddedServer, EmbeddedServer], caplog: pytest.LogCaptureFixture
) -> None:
    old, _ = pair
    async with sentinels(1) as (only,):
        only.say(old.port, 0)
        async with routed(only) as router:
            only.stop()
            with caplog.at_level(logging.WARNING, "statemq.store"):
                await wait_until(lambda: "no sentinel of shop answers" in caplog.text)
            router.home.drop()
            assert await port(router) == old.port


async def test_who_is_silent_while_no_sentinel_answers_is_left_to_its_lease(pair: tuple[EmbeddedServer, EmbeddedServer]) -> None:
    """What was heard before is no word of now: the one that is missing here may have followed a failover (P5)."""
    old, _ = pair
    async with sentinels(2) as both:
        for sentinel in both:
            sentinel.say(old.port, 0)
        async with routed(*both) as router:
            server = router.home.address
            assert await router.is_current(server)
            both[0].master = None
            assert await router.is_current(server)
            both[1].master = None
            assert not await router.is_current(server)
            assert await port(router) == old.port
            both[1].say(old.port, 0)
            assert await router.is_current(server)


async def test_an_opening_that_is_given_up_leaves_nothing_behind(pair: tuple[EmbeddedServer, EmbeddedServer]) -> None:
    old, _ = pair
    async with sentinels(1) as (only,):
        only.say(old.port, 0)
        old.pause()
        before = asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await Router(url(only)).open()
        old.cont()
        await wait_until(lambda: not {t for t in asyncio.all_tasks() - before if "Sentinel.serve" not in repr(t)})


class Log(msgspec.Struct):
    log: list[int] = []


class Slow(Machine[Log], initial="open", partitions=4):
    begun: list[int] = []  # noqa: RUF012 - of the test
    go: asyncio.Event

    @transition(source="open")
    async def work(self, ctx: Context, n: int) -> int:
        async def charge() -> int:
            Slow.begun.append(n)
            await Slow.go.wait()
            return n

        self.data.log.append(await ctx.step("charge", charge))
        return n


def seen_of_the_other(worker: Worker) -> set[tuple[PartitionKeys, str]]:
    """What the other one owns now and was seen alive with; a look also remembers what it owned before the two had shared alike."""
    life = worker._life
    return {(p, owner) for p, owner in life.looks.owners.items() if owner != worker.id} & life.looks.seen_alive.keys()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("away_s", [0, 1.7])
async def test_a_worker_that_followed_a_failover_first_is_not_dead(
    pair: tuple[EmbeddedServer, EmbeddedServer], monkeypatch: pytest.MonkeyPatch, away_s: float
) -> None:
    """The former primary answers still, and the other worker, which has not heard of it yet, sees there that the first one's life sign is
    gone. It asks the sentinels before it takes what the first one runs, also if none of them answers in time."""
    old, new = pair
    with Redis.from_url(new.url) as redis:
        redis.replicaof("127.0.0.1", old.port)
        block_until(lambda: redis.info("replication")["master_link_status"] == "up", 20)
    told: list[events.Event] = []
    namespace, settings = f"t-{uuid.uuid4().hex[:8]}", WorkerSettings(lease_ms=30_000)
    Slow.go = asyncio.Event()  # what ended on the former primary would be lost, and run again rightly
    async with sentinels(2) as both:
        one, two = (sentinel.say(old.port, 0) for sentinel in both)

        lates: list[Watch] = []

        async def follow(watch: Watch, n: int) -> None:
            if late := watch._wires[0].address.port == two.port:
                lates.append(watch)
            while True:
                await watch._ask(n)
                await asyncio.sleep(0.02)
                while late and {old.port} == {w.primary.port for w in lates if w.primary}:
                    await asyncio.sleep(0.02)  # it hears of a failover only when it asks because of a silence

        monkeypatch.setattr(Watch, "_follow", follow)
        workers = [Worker([Slow], where, namespace=namespace, settings=settings) for where in (url(one, two), url(two, one))]
        tasks = [asyncio.ensure_future(worker.run()) for worker in workers]
        events.listeners.append(told.append)
        try:
            await wait_until(lambda: all(len(worker.partitions) == 2 for worker in workers), 20)
            async with Client(url(one, two), namespace=namespace) as client:
                handles = [await client.send(Slow.work(f"key {n}", n)) for n in range(8)]
                await wait_until(lambda: len(Slow.begun) == 8, 20)
                await wait_until(lambda: all(len(seen_of_the_other(worker)) == 2 for worker in workers))
                with Redis.from_url(old.url) as first, Redis.from_url(new.url) as second:
                    assert first.wait(1, 10_000) == 1
                    second.replicaof("NO", "ONE")
                told.clear()
                one.say(new.port, 1), two.say(new.port, 1)
                asyncio.get_running_loop().call_later(0.04, time.sleep, away_s)  # both sentinels are in this loop
                await wait_until(lambda: all(w._router.home.up and w._router.home.address.port == new.port for w in workers), 30)
                Slow.go.set()
                assert [(await handle.outcome(timeout=30)).outcome for handle in handles] == ["completed"] * 8
        finally:
            Slow.begun, begun = [], sorted(Slow.begun)
            events.listeners.remove(told.append)
            for worker in workers:
                worker.stop()
            await asyncio.gather(*tasks)
    assert begun == list(range(8)), "some ran twice"
    assert not [event for event in told if isinstance(event, events.TookOver)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("redis+sentinel://h1:1,h2/shop?sentinel_username=u&sentinel_password=a@secret", "redis+sentinel://…"),
        ("redis+sentinel://user:secret@h1:1/shop?sentinel_password=secret", "h1:1/shop"),
        ("redis+sentinel://user:secret?secret@h1:1/shop", "redis+sentinel://…"),
        ("redis://user:s@c?ret@h:1/0", "redis://…"),
        ("redis://h:1/0?ssl_ca_certs=/ca.pem", "redis://h:1/0"),
    ],
)
def test_neither_login_is_shown(given: str, said: str) -> None:
    assert shown(given) == said
    if "?sentinel" in given:
        assert "secret" not in repr(parse(given)) + repr(parse(given).sentinels)
