"""Where a client may be used, and what it says where it may not."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from statemq import Client, Machine, UsageError, sync, transition
from statemq.errors import PartitionMismatch, RedisAway, SchemaTooNew
from statemq.server import EmbeddedServer
from statemq.server.host import free_port
from statemq.store.router import Router
from tests.fake_worker import FakeWorker
from tests.faulty import FaultyProxy
from tests.integration.door import Door
from tests.waiting import wait_until


async def test_no_redis_is_said_within_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(RedisAway, match="no Redis answers at"):
        await Client(f"redis://127.0.0.1:{free_port()}").connect()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("hangs", ["INFO", "declare"])
async def test_a_connect_ends_within_the_clients_time_out(
    proxy: FaultyProxy, namespace: str, monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    monkeypatch.setattr("statemq.client.session.CONNECT_WITHIN_S", 3600.0)
    proxy.hold_reply(hangs)
    with pytest.raises(RedisAway, match="no Redis answers at"):
        async with asyncio.timeout(60):
            await Client(proxy.url, namespace=namespace, machines=[Door], timeout=1).connect()


async def test_other_partitions_or_a_newer_schema_are_refused(client: Client, url: str, namespace: str, router: Router) -> None:
    class Other(Machine, initial="A", name="door", partitions=8):
        @transition(source="A")
        def stay(self) -> None: ...

    with pytest.raises(PartitionMismatch, match="declare partitions=4"):
        await Client(url, namespace=namespace, machines=[Other]).connect()
    name = f"{namespace}:{{door}}:config"
    await router.call(name, "HSET", name, "schema", "99")
    with pytest.raises(SchemaTooNew, match="update this process"):
        await Client(url, namespace=namespace, machines=[Door]).connect()


@pytest.mark.quick
async def test_before_and_after(url: str, namespace: str) -> None:
    client = Client(url, namespace=namespace, machines=[Door])
    with pytest.raises(UsageError, match="is not connected"):
        await client.get(Door, "a")
    async with client:
        await client.get(Door, "a")
        with pytest.raises(UsageError, match="was connected before"):
            await client.connect()
    await client.close()
    for use in (client.get(Door, "a"), client.send(Door.open("a")), client.call(Door.open("a"), timeout=1)):
        with pytest.raises(UsageError, match="was closed"):
            await use


async def test_another_loop_is_refused(client: Client) -> None:
    with pytest.raises(UsageError, match="belongs to another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(client.get(Door, "a")))


async def test_a_cluster(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, cluster=True) as server:
        async with Client(server.url, namespace="n", machines=[Door]) as client:
            router = await Router(server.url).open()
            assert router.cluster
            fake = FakeWorker(router, "n", "door")
            handles = await client.send_many(Door.open(key) for key in "abcdefgh")
            for key in "abcdefgh":
                await fake.complete(key, f"{key} open", state="OPEN")
            assert [await h.result(timeout=20) for h in handles] == [f"{key} open" for key in "abcdefgh"]
            assert {row.key for row in await client.list(Door)} == set("abcdefgh")
            assert [m.name for m in await client.machines()] == ["door"]
            await client.pause(Door)
            assert all(p.paused for p in await client.partitions(Door))
            await router.close()


async def test_calls_go_on_when_redis_is_back(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    proxy.refuse = True
    proxy.cut()
    calling = asyncio.ensure_future(shaky.call(Door.open("a"), timeout=60))
    seeing = asyncio.ensure_future(shaky.get(Door, "a"))
    await wait_until(lambda: proxy.connections == 0 and not shaky._router.home.up)
    proxy.refuse = False
    assert (await seeing).state == "SHUT"
    await fake.complete("a", "done")
    assert await calling == "done"


# -- the blocking client -----------------------------------------------------------------------------


def work(url: str, namespace: str, stop: threading.Event) -> None:
    """Completes whatever is queued for the keys a to h, until told to stop."""

    async def run() -> None:
        router = await Router(url).open()
        fake = FakeWorker(router, namespace, "door")
        while not stop.is_set():
            for key in "abcdefgh":
                for command in await fake.queued(key):
                    await fake.complete(key, f"{key} {command.transition}")
            await asyncio.sleep(0.005)
        await router.close()

    asyncio.run(run())


@pytest.fixture
def blocking(url: str, namespace: str) -> Iterator[sync.Client]:
    client = sync.Client(url, namespace=namespace, machines=[Door])
    client.connect()
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(url, namespace, stop))
    worker.start()
    yield client
    stop.set()
    worker.join()
    client.close()


@pytest.mark.quick
def test_the_same_blocking(blocking: sync.Client) -> None:
    result: str = blocking.call(Door.open("a"), timeout=20)
    assert result == "a open"
    handle = blocking.send("door", "b", "open", {"width": 2}, idempotency_key="k")
    assert handle.result(timeout=20) == "b open"
    assert handle.outcome().outcome == "completed"
    assert handle.status().status == "completed"
    assert handle.cancel() == "ended"
    assert blocking.handle(handle.id).result(timeout=20) == "b open"
    assert [h.result(timeout=20) for h in blocking.send_many([Door.open("c"), Door.open("d")])] == ["c open", "d open"]
    assert (blocking.get(Door, "a").state, blocking.get(Door, "a").data.width) == ("SHUT", 0)
    assert blocking.query(Door.passes("a", width=0)) is False
    assert [m.name for m in blocking.machines()] == ["door"]
    assert len(blocking.history("door")) == 4
    assert blocking.list(Door) == []
    assert blocking.can(Door, "a", "open").allowed
    assert blocking.queue(Door) == []
    assert blocking.failed(Door) == []
    assert len(blocking.partitions(Door)) == 4
    assert blocking.workers() == []
    blocking.pause(Door)
    blocking.resume(Door)


def test_many_threads_share_one(blocking: sync.Client) -> None:
    results: dict[str, str] = {}

    def call(key: str) -> None:
        results[key] = blocking.call(Door.open(key), timeout=30)

    threads = [threading.Thread(target=call, args=(key,)) for key in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {key: f"{key} open" for key in "abcdefgh"}
    assert len([t for t in threading.enumerate() if t.name == "statemq"]) == 1


def in_child(client: sync.Client, handle: sync.SyncHandle[str], pipe: Connection) -> None:
    answers = [client.call(Door.open("b"), timeout=20), handle.result(timeout=20), os.getpid()]
    pipe.send(answers)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_a_fork_both_go_on(blocking: sync.Client) -> None:
    assert blocking.call(Door.open("a"), timeout=20) == "a open"
    handle = blocking.send(Door.shut("a"))
    handle.result(timeout=20)
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=in_child, args=(blocking, handle, there))
    child.start()
    assert here.poll(30), "the child did not answer"
    assert here.recv() == ["b open", "a shut", child.pid]
    child.join(30)
    assert child.exitcode == 0
    assert blocking.call(Door.open("c"), timeout=20) == "c open"


async def test_it_refuses_to_block_a_loop(url: str) -> None:
    with pytest.raises(UsageError, match="inside a running event loop"):
        sync.Client(url).machines()


def test_closed_is_closed(url: str, namespace: str) -> None:
    with sync.Client(url, namespace=namespace) as client:
        assert client.machines() == []
    client.close()
    with pytest.raises(UsageError, match="was closed"):
        client.machines()


def test_wrong_settings_are_said_when_it_is_made() -> None:
    with pytest.raises(UsageError, match="is no namespace"):
        sync.Client(namespace="a b")
    with pytest.raises(UsageError, match="is no durability"):
        sync.Client(durability="maybe")


def test_no_redis_is_said_at_each_call_until_there_is_one(url: str, namespace: str) -> None:
    client = sync.Client(f"redis://127.0.0.1:{free_port()}", namespace=namespace)
    for _ in range(2):
        with pytest.raises(RedisAway):
            client.machines()
    client.close()
