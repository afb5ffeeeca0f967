"""P10 Appends in line; P26 ids; P29 idempotency records; P31 outcome periods."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from statemq import Client, Pending
from statemq.codec import command_id, uuid7
from statemq.config import LIMITS, OUTCOME_PERIOD_MS, RESEND_WITHIN_MS
from statemq.store.lease import redis_now_ms
from tests.faulty import FaultyProxy
from tests.integration.races.probe import Probe
from tests.integration.races.stage import Held, Stage
from tests.waiting import wait_until


async def append(play: Stage, id: str, *, key: str = "a", n: int = 1, delay: str = "", once: str = "", digest: str = "") -> str:
    """One command by the script itself; its word."""
    p = play.part
    names = [p.commands, p.accepted, p.lease, p.outcomes_, p.timers, p.timers_data]
    names += [p.once(key, once)] if once else []
    limits = (LIMITS.backlog, RESEND_WITHIN_MS, LIMITS.key, LIMITS.arguments)
    special = (1, delay, digest, 0) if delay or digest else ()
    args: list[Any] = [play.config.incarnation, *limits, "", 1, id, key, "note", b'{"n":%d}' % n, *special]
    word = await play.router.run("append", names, *args)
    return str((word[0] if isinstance(word, list) else word).decode())


@pytest.mark.leaves_work
@pytest.mark.parametrize("fault", ["lose_request", "lose_reply"])
async def test_a_later_batch_does_not_overtake_one_that_is_sent_again(play: Stage, proxy: FaultyProxy, fault: str) -> None:
    """P10: e1 is on its way when the connection is cut; e2 e3 are sent meanwhile. They wait for e1's answer: at most one
    unanswered append a partition. After the reconnect e1 comes again, then e2 e3 together."""
    async with Client(proxy.url, namespace=play.namespace, machines=[Probe]) as shaky:
        getattr(proxy, fault)("append")
        proxy.refuse = True
        first = asyncio.ensure_future(shaky.send(Probe.note("a", n=1)))
        await wait_until(lambda: proxy.seen["append"] == 1)
        others = [asyncio.ensure_future(shaky.send(Probe.note("a", n=n))) for n in (2, 3)]
        await asyncio.sleep(0)
        proxy.refuse = False
        handles = await asyncio.gather(first, *others)
        assert [c.id for c in play.queued("a")] == [h.id for h in handles]
    assert proxy.seen["append"] == 3


@pytest.mark.leaves_work
async def test_one_append_of_a_partition_is_unanswered_at_most(play: Stage) -> None:
    """P10: e1's answer is on its way while e2 e3 are sent in two turns: they wait, and go together. (In a cluster, after MOVED, a second
    call in flight would overtake the first.)"""
    held = Held(play.client._router, "append")
    first = asyncio.ensure_future(play.send("a", 1))
    await wait_until(lambda: held.answered)
    others = [asyncio.ensure_future(play.send("a", n)) for n in (2, 3)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(held.held) == 1
    assert len(play.queued("a")) == 1
    await held.release()
    ids = [id for ids in await asyncio.gather(first, *others) for id in ids]
    assert [c.id for c in play.queued("a")] == ids


@pytest.mark.leaves_work
async def test_an_accepted_id_is_known_wherever_the_command_lies(play: Stage) -> None:
    """P26: a resend finds its command in the stream, in the inbox, asleep, or waiting for its time: it is queued once."""
    id = command_id("probe", 0, await redis_now_ms(play.router))
    assert (await append(play, id)).startswith("accepted")
    assert await append(play, id) == "known"
    [c] = play.queued()
    fence = await play.own()
    await fence.answer(fence.park({"a": [c]}, {"a": True}))
    assert await append(play, id) == "known"
    c.parked = True
    await fence.answer(fence.postpone(c, [("@attempts", b"1")], [], due_ms=1, wake_data=b"{}"))
    assert await append(play, id) == "known"
    later = command_id("probe", 0, await redis_now_ms(play.router))
    assert (await append(play, later, delay="100000")).startswith("delayed")
    assert await append(play, later, delay="100000") == "known"
    assert play.queued() == []
    assert len(play.inbox("a")) == 1


async def test_a_resend_of_what_has_ended_gets_the_outcome_over_the_turn_of_a_period(play: Stage) -> None:
    """P26, P31: the command ended in the period before this one (by Redis time): a resend still finds its outcome and runs nothing."""
    id = command_id("probe", 0, await redis_now_ms(play.router))
    await append(play, id)
    [c] = play.queued()
    assert await play.committed(await play.own(), play.ended(c, 0, log=[1])) == ["applied"]
    period = await redis_now_ms(play.router) // OUTCOME_PERIOD_MS
    [name] = play.redis.scan_iter(f"{play.part.outcomes_}*")
    assert name in (play.part.outcomes(period), play.part.outcomes(period - 1))
    assert play.redis.pttl(name) > 2 * OUTCOME_PERIOD_MS
    last = int(name.removeprefix(play.part.outcomes_))
    if last == period:  # the same outcome, a period ago
        play.redis.rename(name, play.part.outcomes(period - 1))
    assert (await append(play, id)).startswith("ended ")
    assert play.queued() == []


async def test_an_unknown_id_older_than_the_retention_is_too_late(play: Stage) -> None:
    """P26: a laptop's lid was closed for three minutes; its client resends a command that ran, ended and was forgotten meanwhile.
    It must not run twice. One that is a little younger than the limit is accepted."""
    now = await redis_now_ms(play.router)
    assert await append(play, f"probe.0.{uuid7(now - RESEND_WITHIN_MS - 1)}") == "late"
    assert play.queued() == []
    young = await append(play, f"probe.0.{uuid7(now - RESEND_WITHIN_MS + 5_000)}")
    assert young.startswith("accepted")
    [c] = play.queued()
    assert await play.committed(await play.own(), play.ended(c, 0, log=[1])) == ["applied"]


async def test_a_resend_that_comes_too_late_is_pending_for_its_client(
    play: Stage, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P26: the connection is cut with an append on its way, and comes back when that is too old to look up. The client cannot know
    whether it was executed: it says Pending, with the id; it neither sends it under a new id nor calls it failed."""
    async with Client(proxy.url, namespace=play.namespace, machines=[Probe]) as shaky:
        await shaky.send(Probe.note("b", n=0))
        monkeypatch.setattr("statemq.store.append.RESEND_WITHIN_MS", -60_000)  # as if the time had passed
        proxy.lose_request("append")
        with pytest.raises(Pending) as caught:
            await shaky.send(Probe.note("a", n=1))
    assert caught.value.id
    assert play.queued("a") == []
    fence = await play.own()
    for c in play.queued():
        assert await play.committed(fence, play.ended(c, 0, log=[1])) == ["applied"]


@pytest.mark.leaves_work
async def test_an_idempotency_record_has_no_ttl_while_its_command_lives(play: Stage) -> None:
    """P29: a command sleeps for days; its record must not be gone when the same request comes again. The end sets 24 hours."""
    now = await redis_now_ms(play.router)
    id, other = command_id("probe", 0, now), command_id("probe", 0, now)
    record = play.part.once("a", "order-7")
    assert (await append(play, id, once="order-7", digest="d1")).startswith("accepted")
    [c] = play.queued()
    assert c.once == record
    fence = await play.own()
    await fence.answer(fence.postpone(c, [("@attempts", b"1")], [], due_ms=1, wake_data=b"{}"))
    assert play.redis.pttl(record) == -1
    assert await append(play, other, once="order-7", digest="d1") == f"attached {id}"
    assert await append(play, other, once="order-7", digest="d2") == f"conflict {id}"
    c.parked = c.journalled = c.timed = True
    assert await play.committed(fence, play.ended(c, 0, log=[1])) == ["applied"]
    assert 0 < play.redis.ttl(record) <= 24 * 3600
    assert (await append(play, other, once="order-7", digest="d1")).startswith("ended ")


@pytest.mark.parametrize("where", ["stream", "timer", "inbox"])
async def test_a_cancelled_command_leaves_its_idempotency_record_a_ttl(play: Stage, where: str) -> None:
    """P29: cancel ends a queued command without its owner: its record gets the 24 hours, at once or when its element is reached."""
    id = command_id("probe", 0, await redis_now_ms(play.router))
    record = play.part.once("a", "order-7")
    await append(play, id, once="order-7", digest="d1", delay="100000" if where == "timer" else "")
    fence = await play.own()
    if where == "inbox":
        await fence.answer(fence.park({"a": play.queued()}, {"a": True}))
    assert await play.client.cancel(id) == "cancelled"
    await fence.answer(fence.skip("a"))
    assert 0 < play.redis.ttl(record) <= 24 * 3600
    again = command_id("probe", 0, await redis_now_ms(play.router))
    assert (await append(play, again, once="order-7", digest="d1")).startswith("ended ")
    assert play.inbox("a") == []
    play.abandon()
    async with play.worker():
        await wait_until(lambda: play.redis.xlen(play.part.commands) == 0)  # the look


async def test_a_record_gets_its_ttl_with_the_element_that_names_it(play: Stage) -> None:
    """P29: a parked command that was ended without anybody seeing its element (too deep in the list, or by hand): the record gets the
    24 hours when the element is reached."""
    id = command_id("probe", 0, await redis_now_ms(play.router))
    await append(play, id, once="order-7", digest="d1")
    fence = await play.own()
    await fence.answer(fence.park({"a": play.queued()}, {"a": True}))
    play.redis.hdel(play.part.accepted, id)
    await fence.answer(fence.skip("a"))
    assert 0 < play.redis.ttl(play.part.once("a", "order-7")) <= 24 * 3600


async def test_two_texts_in_a_record_s_name_are_kept_apart(play: Stage) -> None:
    """P29: key "a:b" with "c" and key "a" with "b:c" are two requests."""
    now = await redis_now_ms(play.router)
    first, second = command_id("probe", 0, now), command_id("probe", 0, now)
    assert (await append(play, first, key="a:b", once="c", digest="d")).startswith("accepted")
    assert (await append(play, second, key="a", once="b:c", digest="d")).startswith("accepted")
    fence = await play.own()
    for c in play.queued():
        assert await play.committed(fence, play.ended(c, 0, log=[1])) == ["applied"]
