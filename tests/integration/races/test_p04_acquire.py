"""P4 Acquire is compare-and-set; P5 what counts as dead; P7 what a release leaves."""

from __future__ import annotations

import pytest

from statemq.store import lease
from statemq.store.lease import Acquired, NotAcquired
from statemq.store.router import Router
from tests.faulty import FaultyProxy
from tests.integration.races.stage import Stage
from tests.waiting import wait_until


async def test_two_who_believe_the_same_owner_dead_get_it_once(play: Stage) -> None:
    """P4: w1's deadline passes; w2 and w3 both see its token and acquire. w2 is first. w3's call names a token that is not there
    any more, so it must fail, although w2 might already be silent, too."""
    dead = await play.own("w1")
    play.redis.hset(play.part.lease, "deadline", 0)
    won = await play.acquire("w2", 1, dead.token)
    play.redis.hset(play.part.lease, "deadline", 0)
    lost = await play.acquire("w3", 1, dead.token)
    assert isinstance(won, Acquired)
    assert lost == NotAcquired("taken", won.token, "w2")
    assert play.token == won.token


async def test_a_living_owner_is_left_alone(play: Stage) -> None:
    """P4: the token is the right one, but neither released nor past its deadline."""
    owner = await play.own("w1")
    assert await play.acquire("w2", 1, owner.token) == NotAcquired("alive")
    assert await owner.answer(owner.skip("a")) == b"done"


@pytest.mark.leaves_work
async def test_an_acquire_whose_answer_was_lost_answers_again(play: Stage, proxy: FaultyProxy) -> None:
    """P4: w2's acquire is executed, its answer lost; sent again it must not fail on the token that it itself made; and it says
    the same of the one that died: P14 counts by it."""
    await play.send("a", 1)
    [c] = play.queued()
    old = await play.own("w1")
    await old.answer(old.start([c]))
    play.redis.hset(play.part.lease, "deadline", 0)
    shaky = await Router(proxy.url).open()
    proxy.lose_reply("acquire")
    try:
        got = await lease.acquire(
            shaky, play.part, worker="w2", n=1, believed=old.token, lease_ms=60_000, incarnation=play.config.incarnation,
            owner="w1", silent="", reinit=False,
        )  # fmt: skip
    finally:
        await shaky.close()
    assert proxy.seen["acquire"] == 2
    assert isinstance(got, Acquired)
    assert got.token == play.token
    assert got.crashed  # nobody is subscribed as w1
    assert list(got.pending) == [c.entry]


async def test_a_wiped_and_a_foreign_partition_are_said(play: Stage) -> None:
    """P4: somebody deleted the lease, or the namespace was made anew under us: nothing is owned silently."""
    assert await play.acquire("w1", incarnation="another") == NotAcquired("foreign")
    play.redis.delete(play.part.lease)
    assert await play.acquire("w1") == NotAcquired("wiped")
    assert isinstance(await play.acquire("w1", reinit=True), Acquired)


async def test_silence_counts_only_for_who_was_seen_to_fall_silent(play: Stage) -> None:
    """P5: nobody is subscribed to w1's channel (it may be between two connections): a watcher that never saw it subscribed waits
    for the deadline; one that did, takes it, unless w1 is back at that very moment."""
    owner = await play.own("w1")
    assert await play.acquire("w2", 1, owner.token, owner="w1") == NotAcquired("alive")
    with play.redis.pubsub() as back:
        back.ssubscribe(play.part.alive_channel("w1"))
        back.get_message(timeout=1)
        assert await play.acquire("w2", 1, owner.token, silent="w1") == NotAcquired("alive")
    await wait_until(lambda: play.redis.pubsub_shardnumsub(play.part.alive_channel("w1"))[0][1] == 0)
    got = await play.acquire("w2", 2, owner.token, silent="w1")
    assert isinstance(got, Acquired)
    assert got.crashed


async def test_a_stopped_owner_has_not_crashed(play: Stage) -> None:
    """P5, P14: past its deadline but still subscribed: SIGSTOP, or a loop that does not turn. Its commands are not to blame."""
    owner = await play.own("w1")
    play.redis.hset(play.part.lease, "deadline", 0)
    with play.redis.pubsub() as stopped:
        stopped.ssubscribe(play.part.alive_channel("w1"))
        stopped.get_message(timeout=1)
        got = await play.acquire("w2", 1, owner.token, owner="w1")
    assert isinstance(got, Acquired)
    assert not got.crashed


async def test_nobody_dies_of_a_cut_subscription(play: Stage) -> None:
    """P5: CLIENT KILL TYPE pubsub: everybody's count is 0 while all live. The watcher looks a second time within acquire, by then
    the owner is back; the partition stays where it is."""
    async with play.worker(look_s=0.01) as owner, play.worker(wait=False, look_s=0.01) as watcher:
        await wait_until(lambda: watcher.partitions or any(w == watcher.id for w in owner._served["probe"].live))
        await wait_until(lambda: owner.id in {o for _, o in watcher._life.looks.seen_alive})
        token = play.token
        looks = watcher._life.looks.seen_alive
        play.redis.client_kill_filter(_type="pubsub")
        looks.clear()
        await wait_until(lambda: owner.id in {o for _, o in looks})  # seen anew: so it has looked in between
        [id] = await play.send("a", 1)
        assert await play.outcome(id) == "completed"
        assert play.token == token


@pytest.mark.leaves_work
async def test_release_leaves_the_next_owner_what_was_in_progress(play: Stage) -> None:
    """P7: a released partition is free at once, says so on the machine's channel, and what was started stays pending with its count."""
    await play.send("a", 1)
    [c] = play.queued()
    fence = await play.own("w1")
    c.crashes = 1
    await fence.answer(fence.start([c]))
    with play.redis.pubsub() as news:
        news.subscribe(f"{play.namespace}:{{probe}}:news")
        news.get_message(timeout=1)
        assert await lease.release(play.router, play.part, fence.token)
        told = await wait_until(lambda: news.get_message(ignore_subscribe_messages=True, timeout=0.01))
        assert told["data"] == "released 0"
    assert not await lease.release(play.router, play.part, fence.token)
    got = await play.acquire("w2")
    assert isinstance(got, Acquired)
    assert not got.crashed
    assert got.pending == {c.entry: 1}


async def test_who_is_seen_to_live_has_not_crashed(play: Stage) -> None:
    """P5, P14: nobody is subscribed as w1, whose connections were cut while it had no time; its lease has passed. Its process is there."""
    owner = await play.own("w1")
    assert await play.acquire("w2", 1, owner.token, owner="w1", lives=True) == NotAcquired("alive")
    play.abandon()
    got = await play.acquire("w2", 2, owner.token, owner="w1", lives=True)
    assert isinstance(got, Acquired)
    assert not got.crashed


async def test_a_child_does_not_live_for_its_parent(play: Stage) -> None:
    """P14: w1's process has ended, but a child of it has its connections and is subscribed as w1: the lease decides, and it is a crash."""
    owner = await play.own("w1")
    with play.redis.pubsub() as child:
        child.ssubscribe(play.part.alive_channel("w1"))
        child.get_message(timeout=1)
        assert await play.acquire("w2", 1, owner.token, silent="w1", ended=True) == NotAcquired("alive")
        play.abandon()
        got = await play.acquire("w2", 2, owner.token, silent="w1", ended=True)
    assert isinstance(got, Acquired)
    assert got.crashed


async def test_a_lease_says_which_process_has_it(play: Stage) -> None:
    """P5: who starts on its host finds out by that whether it has ended. A worker of a former version says nothing, and leaves what stood
    there before."""
    await play.own("w1", process="here boot pid:[1] 7 1")
    [held] = await lease.survey(play.router, [play.part])
    assert (held.owner, held.process) == ("w1", "here boot pid:[1] 7 1")
    play.redis.hset(play.part.lease, mapping={"owner": "w0", "token": "1.w0.1"})
    [held] = await lease.survey(play.router, [play.part])
    assert (held.owner, held.process) == ("w0", "")


async def test_one_cut_connection_is_no_silence(play: Stage) -> None:
    """P5: the life sign goes over two connections. While the one is made anew, the other is heard."""
    channel = play.part.alive_channel
    async with play.worker(look_s=0.01) as owner, play.worker(wait=False, look_s=0.01) as watcher:
        await wait_until(lambda: watcher._life is not None and owner.id in {o for _, o in watcher._life.looks.seen_alive})
        assert owner._life is not None
        one, other = owner._life._signs[""]
        for wire in (one, other):
            generation = wire.generation
            wire.drop()
            assert play.redis.pubsub_shardnumsub(channel(owner.id))[0][1] >= 1
            await wait_until(lambda wire=wire, before=generation: wire.generation > before)  # type: ignore[misc]
            await wait_until(lambda: play.redis.pubsub_shardnumsub(channel(owner.id))[0][1] == 2)
        assert not watcher._peers._silent
