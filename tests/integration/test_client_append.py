"""append from the client's side: in batches, in order, once."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import msgspec
import pytest
import redis as redis_py

from statemq import Client, InvalidArguments, Pending, sync
from statemq.config import LIMITS
from statemq.errors import (
    BacklogFull,
    IdempotencyConflict,
    InvalidKey,
    NamespaceLost,
    RedisAway,
    Refused,
    TooLarge,
    UnknownMachine,
    UnknownTransition,
    UsageError,
)
from statemq.keys import machines
from statemq.store import append, draft
from statemq.store.declare import declare
from statemq.store.draft import Draft
from statemq.store.router import Router
from tests.fake_worker import FakeWorker
from tests.faulty import FaultyProxy
from tests.integration.door import Door
from tests.leaks import wipe
from tests.waiting import wait_until


async def widths(fake: FakeWorker, key: str = "a") -> list[int]:
    return [msgspec.json.decode(c.args).get("width", 0) for c in await fake.queued(key)]


@pytest.mark.leaves_work
async def test_commands_of_one_turn_share_a_call(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    await asyncio.gather(*(shaky.send(Door.open("a", width=n)) for n in range(100)))
    assert proxy.seen["append"] == 1
    assert await widths(fake) == list(range(100))


@pytest.mark.leaves_work
async def test_a_call_is_bounded_and_the_next_one_waits_for_it(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    handles = await shaky.send_many(Door.open("a", width=n) for n in range(300))
    assert proxy.seen["append"] == 3
    assert await widths(fake) == list(range(300))
    assert [h.id for h in handles] == [c.id for c in await fake.queued("a")]


@pytest.mark.leaves_work
async def test_large_commands_make_small_calls(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    args = {"width": 1, "note": "x" * 100_000}
    await asyncio.gather(*(append_raw(shaky, "a", args) for _ in range(5)))
    assert proxy.seen["append"] == 3
    assert len(await fake.queued("a")) == 5


async def append_raw(client: Client, key: str, args: object) -> None:
    known = await client._catalog.find(Door)
    await client._appender.append(Draft(known.partition(key), key, "open", msgspec.json.encode(args), [], known.config.partitions))


@pytest.mark.leaves_work
@pytest.mark.parametrize("fault", ["lose_request", "lose_reply", "cut_after"])
async def test_a_cut_connection_queues_once(shaky: Client, proxy: FaultyProxy, fake: FakeWorker, fault: str) -> None:
    getattr(proxy, fault)("append")
    handle = await shaky.send(Door.open("a"))
    assert [c.id for c in await fake.queued("a")] == [handle.id]


@pytest.mark.leaves_work
async def test_a_connection_that_has_gone_silent_is_given_up(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    shaky._router.home.timeout_s = 0.2
    proxy.hold_reply("append")
    handle = await shaky.send(Door.open("a"))
    assert proxy.seen["append"] == 2
    assert [c.id for c in await fake.queued("a")] == [handle.id]


@pytest.mark.leaves_work
async def test_a_cancelled_send_that_had_to_wait_was_never_sent(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    await shaky.get(Door, "a")
    proxy.refuse = True
    proxy.cut()
    await wait_until(lambda: not shaky._router.home.up)
    given_up, kept = (asyncio.ensure_future(shaky.send(Door.open("a", width=n))) for n in (1, 2))
    await wait_until(lambda: any(len(line.waiting) == 2 for line in shaky._appender._lines.values()))
    given_up.cancel()
    proxy.refuse = False
    await kept
    assert await widths(fake) == [2]


@pytest.mark.leaves_work
@pytest.mark.quick
async def test_order_is_kept_over_lost_replies(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    for nth in (1, 3, 4, 6):
        proxy.lose_reply("append", nth)

    order: list[int] = []

    async def later(n: int) -> None:
        await wait_until(lambda: proxy.seen["append"] >= n // 40)  # some go while a call is unanswered
        order.append(n)
        await shaky.send(Door.open("a", width=n))

    await asyncio.gather(*(later(n) for n in range(200)))
    assert await widths(fake) == order
    assert proxy.seen["append"] > 4


@pytest.mark.leaves_work
async def test_commands_sent_while_redis_is_away_follow_in_order(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    await shaky.send(Door.open("a", width=0))
    proxy.refuse = True
    proxy.cut()
    sending = [asyncio.ensure_future(shaky.send(Door.open("a", width=n))) for n in range(1, 50)]
    await wait_until(lambda: proxy.connections == 0)
    proxy.refuse = False
    await asyncio.gather(*sending)
    assert await widths(fake) == list(range(50))


async def test_closing_while_a_command_is_on_its_way_is_said(proxy: FaultyProxy, namespace: str) -> None:
    async with Client(proxy.url, namespace=namespace, machines=[Door]) as closing:
        await closing.get(Door, "a")
        proxy.refuse = True
        proxy.cut()
        await wait_until(lambda: not closing._router.home.up)
        sending = [asyncio.ensure_future(closing.send(Door.open("a")))]
        await wait_until(lambda: any(line.waiting for line in closing._appender._lines.values()))
    with pytest.raises(RedisAway, match="the client was closed"):
        await sending[0]
    with pytest.raises(RedisAway, match="the client was closed"):
        known = closing._catalog.kept("door")
        closing._appender.append(Draft(known.partition("a"), "a", "open", b"{}", [], known.config.partitions))


async def test_nothing_is_sent_when_time_is_up_before_redis_is_back(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    await shaky.get(Door, "a")
    proxy.refuse = True
    proxy.cut()
    await wait_until(lambda: not shaky._router.home.up)
    with pytest.raises(RedisAway, match="the command was not sent"):
        await shaky.call(Door.open("a"), timeout=0.1)
    proxy.refuse = False
    await shaky.get(Door, "a")
    assert await fake.queued("a") == []


@pytest.mark.leaves_work
async def test_an_unconfirmed_command_is_pending_with_its_id(shaky: Client, proxy: FaultyProxy, fake: FakeWorker) -> None:
    proxy.hold_reply("append")
    with pytest.raises(Pending) as caught:
        await shaky.call(Door.open("a"), timeout=0.2)
    assert caught.value.machine == "door"
    assert caught.value.key == "a"
    assert caught.value.transition == "open"
    assert [c.id for c in await fake.queued("a")] == [caught.value.id]


@pytest.mark.leaves_work
async def test_an_unconfirmed_send_is_pending_with_its_id(shaky: Client, proxy: FaultyProxy, fake: FakeWorker, namespace: str) -> None:
    proxy.hold_reply("append")
    with pytest.raises(Pending, match="may have been queued") as caught:
        await shaky.send(Door.open("a"), timeout=1)
    blocking = sync.Client(proxy.url, namespace=namespace, machines=[Door], timeout=1)
    await asyncio.to_thread(blocking.connect)
    proxy.hold_reply("append")
    with pytest.raises(Pending, match="may have been queued") as also:
        await asyncio.to_thread(blocking.send, Door.open("a"))
    await asyncio.to_thread(blocking.close)
    assert [c.id for c in await fake.queued("a")] == [caught.value.id, also.value.id]


@pytest.mark.leaves_work
async def test_an_unconfirmed_send_many_is_pending_with_all_ids(
    shaky: Client, proxy: FaultyProxy, fake: FakeWorker, namespace: str
) -> None:
    two = [Door.open("a"), Door.open("a", width=2)]
    await shaky.get(Door, "a")
    proxy.hold_reply("append")
    with pytest.raises(Pending, match="2 of 2 commands are queued or may have been queued") as caught:
        await shaky.send_many(two, timeout=1)
    assert caught.value.id == caught.value.ids[0]
    blocking = sync.Client(proxy.url, namespace=namespace, machines=[Door])
    await asyncio.to_thread(blocking.connect)
    proxy.hold_reply("append")
    with pytest.raises(Pending) as also:
        await asyncio.to_thread(lambda: blocking.send_many(two, timeout=1))
    await asyncio.to_thread(blocking.close)
    ids = [c.id for c in await fake.queued("a")]
    assert ids == [*caught.value.ids, *also.value.ids]
    assert len(ids) == 4


@pytest.mark.leaves_work
@pytest.mark.parametrize("many", [False, True])
async def test_who_is_cancelled_is_told_the_ids(shaky: Client, proxy: FaultyProxy, fake: FakeWorker, many: bool) -> None:
    await shaky.get(Door, "a")
    proxy.hold_reply("append")
    sending: asyncio.Future[Any] = asyncio.ensure_future(shaky.send_many([Door.open("a")] * 2) if many else shaky.send(Door.open("a")))
    while not (queued := await fake.queued("a")):
        await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await sending
    assert caught.value.__notes__ == [f"may have been queued: {', '.join(c.id for c in queued)}"]
    assert len(queued) == 1 + many


@pytest.mark.leaves_work
async def test_a_client_that_is_closed_while_it_sends_many_gives_all_ids(proxy: FaultyProxy, fake: FakeWorker, namespace: str) -> None:
    async with Client(proxy.url, namespace=namespace, machines=[Door]) as closing:
        await closing.get(Door, "a")
        proxy.hold_reply("append")
        sending = asyncio.ensure_future(closing.send_many([Door.open("a"), Door.open("a")]))
        while len(await fake.queued("a")) < 2:
            await asyncio.sleep(0.01)
    with pytest.raises(Pending) as caught:
        await sending
    assert [c.id for c in await fake.queued("a")] == list(caught.value.ids)


@pytest.mark.leaves_work
async def test_without_a_timeout_of_its_own_a_call_has_the_clients(proxy: FaultyProxy, fake: FakeWorker, namespace: str) -> None:
    assert all(inspect.signature(kind).parameters["timeout"].default == 10 for kind in (Client, sync.Client))
    async with Client(proxy.url, namespace=namespace, machines=[Door], timeout=1) as client:
        await client.send(Door.open("b"))
        proxy.hold_reply("append")
        with pytest.raises(Pending, match="may have been queued") as caught:
            await client.send(Door.open("a"))
        assert caught.value.id in [c.id for c in await fake.queued("a")]
        proxy.cut()
        await client.send(Door.open("a"))
        proxy.hold_reply("append")
        with pytest.raises(Pending, match="may have been queued") as many:
            await client.send_many([Door.open("a"), Door.open("a")])
        assert many.value.id in [c.id for c in await fake.queued("a")]
        proxy.refuse = True
        proxy.cut()
        await wait_until(lambda: not client._router.home.up)
        for ask in (client.get(Door, "a"), client.list(Door), client.queue(Door), client.machines(), client.pause(Door)):
            with pytest.raises(RedisAway, match="did not answer within 1 s"):
                await ask
        for send in (client.send(Door.open("a")), client.send_many([Door.open("a")])):
            with pytest.raises(RedisAway, match="the command was not sent"):
                await send
        with pytest.raises(RedisAway, match="the command was not sent"):
            await client.send("unknown", "a", "open")


async def test_nothing_is_sent_when_the_time_of_a_send_is_up_before_redis_is_back(
    shaky: Client, proxy: FaultyProxy, fake: FakeWorker
) -> None:
    await shaky.get(Door, "a")
    proxy.refuse = True
    proxy.cut()
    await wait_until(lambda: not shaky._router.home.up)
    with pytest.raises(RedisAway, match="the command was not sent"):
        await shaky.send(Door.open("a"), timeout=0.1)
    proxy.refuse = False
    await shaky.get(Door, "a")
    assert await fake.queued("a") == []


@pytest.mark.leaves_work
async def test_closing_while_a_command_may_be_queued_gives_its_id(proxy: FaultyProxy, fake: FakeWorker, namespace: str) -> None:
    async with Client(proxy.url, namespace=namespace, machines=[Door]) as closing:
        await closing.get(Door, "a")
        proxy.hold_reply("append")
        sending = [asyncio.ensure_future(closing.send(Door.open("a"))), asyncio.ensure_future(closing.call(Door.open("a")))]
        await wait_until(lambda: fake.queued("a"))
    queued = [c.id for c in await fake.queued("a")]
    for sent, id in zip(sending, queued, strict=True):
        with pytest.raises(Pending, match="may have been queued, but the client was closed") as caught:
            await sent
        assert caught.value.id == id


@pytest.mark.leaves_work
async def test_a_resend_that_is_refused_leaves_open_whether_the_first_was_taken(
    shaky: Client, proxy: FaultyProxy, router: Router, fake: FakeWorker
) -> None:
    await shaky.get(Door, "a")
    proxy.refuse = True
    proxy.lose_reply("append")
    sending = asyncio.ensure_future(shaky.send(Door.open("a")))
    await wait_until(lambda: fake.queued("a"))
    await router.home.call("CONFIG", "SET", "maxmemory", "1")
    try:
        proxy.refuse = False
        with pytest.raises(Pending, match="may have been queued, but Redis has used up its memory") as caught:
            await sending
    finally:
        await router.home.call("CONFIG", "SET", "maxmemory", "0")
    assert [c.id for c in await fake.queued("a")] == [caught.value.id]


@pytest.mark.leaves_work
async def test_an_idempotency_key_gives_the_same_command(client: Client, fake: FakeWorker) -> None:
    first, second = await asyncio.gather(*(client.send(Door.open("a", width=2), idempotency_key="k") for _ in range(2)))
    other = await client.send(Door.open("b", width=2), idempotency_key="k")
    assert first.id == second.id != other.id
    with pytest.raises(IdempotencyConflict) as caught:
        await client.send(Door.open("a", width=3), idempotency_key="k")
    assert caught.value.id == first.id
    await fake.complete("a", "done")
    again = await client.send(Door.open("a", width=2), idempotency_key="k")
    assert again.id == first.id
    assert await again.result(timeout=5) == "done"
    assert await second.result(timeout=5) == "done"


async def test_idempotency_between_clients(client: Client, url: str, namespace: str, fake: FakeWorker) -> None:
    async with Client(url, namespace=namespace) as other:
        first = await client.send(Door.open("a"), idempotency_key="k")
        second = await other.send("door", "a", "open", {}, idempotency_key="k")
        assert first.id == second.id
        waiting = [asyncio.ensure_future(handle.result(timeout=20)) for handle in (first, second)]
        await fake.complete("a", "done")
        assert [await result for result in waiting] == ["done", "done"]


async def test_what_cannot_be_is_said_before_it_is_sent(client: Client, url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace) as by_name:
        for asking in (client, by_name):
            with pytest.raises(UnknownTransition, match='door has no transition "close"; it has: open, shut'):
                await asking.send("door", "a", "close")
            with pytest.raises(InvalidArguments, match="width"):
                await asking.send("door", "a", "open", {"width": "wide"})
            with pytest.raises(InvalidArguments, match="unknown"):
                await asking.send("door", "a", "open", {"height": 1})
            with pytest.raises(UnknownTransition, match='door has no state "AJAR"'):
                await asking.send("door", "a", "open", if_state="AJAR")
            with pytest.raises(InvalidKey):
                await asking.send("door", "x" * 513, "open")
            with pytest.raises(TooLarge, match="idempotency key has 257 bytes"):
                await asking.send("door", "a", "open", idempotency_key="k" * 257)
            with pytest.raises(UnknownMachine, match=f'no process has declared "gate" in namespace {namespace} yet; known: door'):
                await asking.send("gate", "a", "open")
            with pytest.raises(UsageError, match="give a command"):
                await asking.send("door")  # type: ignore[call-overload]


@pytest.mark.leaves_work
async def test_conditions_and_trace_go_with_the_entry(client: Client, fake: FakeWorker) -> None:
    await client.send(Door.open("a"), if_state="SHUT", if_version=3, trace="00-abc-def-01")
    (command,) = await fake.queued("a")
    assert (command.if_state, command.if_version, command.trace) == ("SHUT", "3", "00-abc-def-01")
    assert command.reply == client._replies.channel


@pytest.mark.leaves_work
async def test_a_full_backlog_is_refused(client: Client, fake: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (append, draft):
        monkeypatch.setattr(module, "LIMITS", msgspec.structs.replace(LIMITS, backlog=2))
    await client.send_many([Door.open("a"), Door.open("a")])
    with pytest.raises(BacklogFull, match="door has 2 commands waiting in partition"):
        await client.send(Door.open("a"))
    assert len(await fake.queued("a")) == 2


async def test_a_server_without_memory_refuses_and_says_so(client: Client, router: Router) -> None:
    await client.get(Door, "a")
    await router.home.call("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(Refused, match="used up its memory"):
            await client.send(Door.open("a"))
    finally:
        await router.home.call("CONFIG", "SET", "maxmemory", "0")


async def test_an_id_too_old_to_tell_is_pending(client: Client, fake: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "RESEND_WITHIN_MS", -60_000)
    with pytest.raises(Pending, match="sent again too late to tell"):
        await client.send(Door.open("a"))
    assert await fake.queued("a") == []


@pytest.mark.leaves_work
async def test_a_changed_clock_costs_one_more_try(client: Client, fake: FakeWorker) -> None:
    await client.send(Door.open("a"))
    for wire, (generation, offset_ms) in list(client._appender._clocks.items()):
        client._appender._clocks[wire] = (generation, offset_ms - 100_000)
    handle = await client.send(Door.open("a"))
    assert [c.id for c in await fake.queued("a")][1:] == [handle.id]


@pytest.mark.leaves_work
async def test_a_wiped_namespace_is_said_and_a_new_one_is_used(
    client: Client, namespace: str, url: str, router: Router, fake: FakeWorker
) -> None:
    await client.send(Door.open("b"))
    with redis_py.Redis.from_url(url, decode_responses=True) as redis:
        wipe(redis, namespace)
    with pytest.raises(NamespaceLost, match=f"namespace {namespace} was wiped"):
        await client.send(Door.open("a"))
    await declare(router, namespace, "door", 4, Door.spec.graph(), update=True)
    handle = await client.send(Door.open("a"))
    assert [c.id for c in await fake.queued("a")] == [handle.id]
    lease = (await fake.part("a")).lease
    await router.call(lease, "DEL", lease)
    with pytest.raises(NamespaceLost, match="of door was wiped or replaced"):
        await client.send(Door.open("a"))


async def test_two_declare_at_once_and_a_crash_half_way_is_mended(router: Router, url: str, namespace: str) -> None:
    graph = Door.spec.graph()
    one, two = await asyncio.gather(*(declare(router, namespace, "door", 4, graph, update=False) for _ in range(2)))
    assert one == two
    name = f"{namespace}:{{door}}:config"
    await router.call(name, "HDEL", name, "complete")
    await router.call("", "DEL", machines(namespace), f"{namespace}:{{door:2}}:lease")
    async with Client(url, namespace=namespace) as by_name:
        with pytest.raises(UnknownMachine):
            await by_name.get("door", "a")
    assert await declare(router, namespace, "door", 4, graph, update=True) == one
    lease = f"{namespace}:{{door:2}}:lease"
    assert await router.call(lease, "HGET", lease, "incarnation") == one.incarnation.encode()
    assert await router.call("", "SMEMBERS", machines(namespace)) == [b"door"]
