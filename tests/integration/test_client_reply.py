"""Outcomes: heard on the client's channel, or asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from statemq import Client, Pending, Rejected, Unknown
from statemq.errors import RedisAway, UnsupportedServer
from statemq.server import EmbeddedServer
from statemq.store import reply
from statemq.store.router import Router
from tests.fake_worker import FakeWorker
from tests.faulty import FaultyProxy
from tests.integration.door import Door
from tests.waiting import wait_until


@pytest.mark.quick
async def test_a_result_is_heard_without_asking(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    calling = asyncio.ensure_future(shaky.call(Door.open("a"), timeout=20))
    await fake.complete("a", "a is open", state="OPEN")
    assert await calling == "a is open"
    assert shaky._replies.waiting == 0


async def test_an_outcome_that_comes_before_its_waiter_is_kept(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    handle = await shaky.send(Door.open("a"))
    await fake.complete("a", "early")
    await wait_until(lambda: handle.id in shaky._replies._early)
    asked = proxy.seen["HMGET"]
    assert await handle.result(timeout=5) == "early"
    assert await handle.result(timeout=5) == "early"
    assert proxy.seen["HMGET"] == asked
    assert not shaky._replies._early


async def test_too_many_early_outcomes_are_asked_for(client: Client, fake: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "EARLY_CAP", 2)
    monkeypatch.setattr(reply, "HEARD_FIRST_S", 1000.0)
    handles = await client.send_many([Door.open("a")] * 5)
    for n in range(5):
        await fake.complete("a", f"done {n}")
    await wait_until(lambda: client._replies.dropped == 3)
    assert [await h.result(timeout=5) for h in handles] == [f"done {n}" for n in range(5)]


async def test_a_rejection_has_its_fields(client: Client, fake: FakeWorker) -> None:
    calling = asyncio.ensure_future(client.call(Door.open("a"), timeout=20))
    id = await fake.reject("a", "the door is stuck")
    with pytest.raises(Rejected, match="the door is stuck") as caught:
        await calling
    error = caught.value
    fields = (error.id, error.machine, error.key, error.transition, error.state, error.code)
    assert fields == (id, "door", "a", "open", "DOWN", "rejected")


@pytest.mark.quick
async def test_who_hears_nothing_asks(client: Client, fake: FakeWorker) -> None:
    handle = await client.send(Door.open("a"))
    waiting = [asyncio.ensure_future(handle.result(timeout=20)) for _ in range(3)]
    await fake.complete("a", "quiet", silent=True)
    assert await asyncio.gather(*waiting) == ["quiet"] * 3
    assert client._replies.waiting == 0


async def test_a_killed_channel_is_made_anew_and_asks_at_once(
    client: Client, fake: FakeWorker, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply, "HEARD_FIRST_S", 1000.0)  # only the reconnect can tell
    handle = await client.send(Door.open("a"))
    waiting = asyncio.ensure_future(handle.result(timeout=20))
    await wait_until(lambda: client._replies.waiting == 1)
    await fake.complete("a", "unheard", silent=True)
    assert await router.home.call("CLIENT", "KILL", "TYPE", "pubsub") >= 1
    assert await waiting == "unheard"
    second = asyncio.ensure_future(client.call(Door.open("a"), timeout=20))
    await fake.complete("a", "heard")
    assert await second == "heard"


async def test_redis_restarts_while_somebody_waits(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, config=["--appendfsync", "always"]) as server:
        async with Client(server.url, namespace="n", machines=[Door]) as client:
            calling = asyncio.ensure_future(client.call(Door.open("a"), timeout=60))
            router = await Router(server.url).open()
            fake = FakeWorker(router, "n", "door")
            await fake.next("a")
            await asyncio.to_thread(server.kill)
            server.start()
            await fake.complete("a", "after the restart")
            assert await calling == "after the restart"
            await router.close()


async def test_another_clients_command_is_found_by_its_id(client: Client, url: str, namespace: str, fake: FakeWorker) -> None:
    sent = await client.send(Door.open("a"))
    async with Client(url, namespace=namespace) as other:
        waiting = asyncio.ensure_future(other.handle(sent.id).result(timeout=20))
        await wait_until(lambda: other._replies.waiting == 1)
        await fake.complete("a", "done")
        assert await waiting == "done"
        assert (await other.handle(sent.id).outcome(timeout=5)).outcome == "completed"


async def test_questions_of_one_partition_are_joined(shaky: Client, client: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    sent = await client.send_many([Door.open("a")] * 20)
    waiting = [asyncio.ensure_future(shaky.handle(h.id).result(timeout=20)) for h in sent]
    await wait_until(lambda: proxy.seen["TIME"] >= 3)
    assert proxy.seen["HMGET"] <= 4 * (proxy.seen["TIME"] + 1)
    for _ in sent:
        await fake.complete("a", "done")
    assert await asyncio.gather(*waiting) == ["done"] * 20


async def test_an_id_that_nobody_knows(client: Client) -> None:
    with pytest.raises(Unknown, match="nothing is known of command"):
        await client.handle("door.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12").result(timeout=20)


@pytest.mark.leaves_work
async def test_giving_up_leaves_no_waiter_and_tells_the_last_error(client: Client, fake: FakeWorker, router: Router) -> None:
    handle = await client.send(Door.open("a"))
    steps = (await fake.part("a")).steps(handle.id)
    await router.call(steps, "HSET", steps, "@error", "OSError: no route")
    with pytest.raises(
        Pending,
        match=r"had not ended after 0\.05 s; it is not cancelled, it still waits or runs; its last attempt failed: OSError: no route",
    ) as caught:
        await handle.result(timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.id, caught.value.key, caught.value.transition) == (handle.id, "a", "open")
    assert client._replies.waiting == 0
    cancelled = asyncio.ensure_future(handle.result())
    await wait_until(lambda: client._replies.waiting == 1)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert client._replies.waiting == 0


@pytest.mark.leaves_work
async def test_closing_tells_those_who_wait(url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace, machines=[Door]) as client:
        calling = asyncio.ensure_future(client.call(Door.open("a")))
        await wait_until(lambda: client._replies.waiting == 1)
    with pytest.raises(RedisAway, match="the client was closed"):
        await calling


async def test_nonsense_on_the_channel_changes_nothing(client: Client, fake: FakeWorker, router: Router) -> None:
    calling = asyncio.ensure_future(client.call(Door.open("a"), timeout=20))
    command = await fake.next("a")
    for nonsense in ("{", '{"id": 1}', f'[{{"id": "{command.id}"}}]'):
        await router.home.call("PUBLISH", client._replies.channel, nonsense)
    await fake.complete("a", "done")
    assert await calling == "done"


async def test_with_durability_nothing_is_told_before_it_is_safe(url: str, namespace: str, fake: FakeWorker, router: Router) -> None:
    if (await router.home.call("COMMAND", "INFO", "WAITAOF"))[0] is None:
        with pytest.raises(UnsupportedServer, match=r"fsync takes WAITAOF, which came with Redis and Valkey 7\.2"):
            await Client(url, namespace=namespace, machines=[Door], durability="fsync").connect()
        return
    async with Client(url, namespace=namespace, machines=[Door], durability="fsync") as client:
        handle = await client.send(Door.open("a"))
        await fake.complete("a", "safe", silent=True)
        assert await client.handle(handle.id).result(timeout=20) == "safe"
        again = await client.send(Door.open("a"), idempotency_key="k")
        await fake.complete("a", "safe too", silent=True)
        assert await (await client.send(Door.open("a"), idempotency_key="k")).result(timeout=20) == "safe too"
        assert await again.result(timeout=20) == "safe too"


@pytest.mark.leaves_work
async def test_a_durability_that_is_not_there_is_waited_for(url: str, namespace: str, fake: FakeWorker) -> None:
    async with Client(url, namespace=namespace, machines=[Door], durability="replicas=1") as client:
        with pytest.raises(Pending, match=r"durability= asks of its disk and replicas.* did not confirm"):
            await client.call(Door.open("a"), timeout=0.2)
        assert len(await fake.queued("a")) == 1


@pytest.mark.leaves_work
async def test_an_outcome_that_is_not_safe_is_not_told(client: Client, url: str, namespace: str, fake: FakeWorker) -> None:
    """P23: the command was sent by somebody else, and has ended. Who wants a replica to have its outcome is told when one has."""
    handle = await client.send(Door.open("a"))
    await fake.complete("a", "done", silent=True)
    assert await handle.result(timeout=20) == "done"
    async with Client(url, namespace=namespace, machines=[Door], durability="replicas=1") as careful:
        with pytest.raises(Pending):
            await careful.handle(handle.id).result(timeout=1)
