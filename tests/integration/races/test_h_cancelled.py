"""What is left of commands that end while they wait: nothing in an inbox (I8), and an answer for who repeats the request (I6, P29)."""

from __future__ import annotations

import asyncio

import pytest

from statemq import Cancelled, Failed
from statemq.store import reply
from statemq.store.commands import from_element
from tests.integration.races.probe import HOOKS, Probe, Strict
from tests.integration.races.stage import NEVER, Stage, wake
from tests.waiting import wait_until

PAD = "x" * 1000


async def _behind_a_sleeper(play: Stage, n: int) -> list[str]:
    """So many commands of the key lie in its inbox behind one that sleeps for long; their ids."""
    owner = await play.own()
    [sleeps] = await play.send("a", 0, transition="work")
    [c] = play.queued()
    await owner.answer(owner.start([c]))
    await owner.answer(owner.record([(sleeps, "sleep@1", b"9", b"")]))
    await owner.answer(owner.postpone(c, [], [], due_ms=NEVER, wake_data=wake("a")))
    ids = [id for at in range(0, n, 100) for id in await play.send("a", *range(at, min(n, at + 100)), trace=PAD)]
    while commands := play.queued():
        await owner.answer(owner.park({"a": commands[:100]}, {"a": False}))
    return ids


@pytest.mark.leaves_work
async def test_cancelled_commands_leave_an_inbox_with_their_arguments(play: Stage) -> None:
    ids = await _behind_a_sleeper(play, 300)
    for id in (*ids[::2], *ids[::-2]):
        assert await play.client.cancel(id) == "cancelled"
    assert len(play.inbox("a")) == 1
    assert play.redis.hlen(play.part.accepted) == 2  # the sleeper, and a look
    assert play.redis.memory_usage(play.part.inbox("a"), samples=0) < 1000


@pytest.mark.leaves_work
async def test_one_that_lies_deep_leaves_its_place_only(play: Stage) -> None:
    """In an inbox of a million LREM is not a bounded work: there the arguments go at once, the place with its turn."""
    ids = await _behind_a_sleeper(play, 3)
    inbox, accepted = play.part.inbox("a"), play.part.accepted
    rows = [(f"{NEVER}-{n}", f"probe.0.x{n}") for n in range(20_100)]
    with play.redis.pipeline() as pipe:
        for entry, id in rows:
            pipe.rpush(inbox, f'{entry} {id} {{"key":"a","transition":"note","args":"{PAD}"}}')
            pipe.hset(accepted, id, f"@{entry} a")
        pipe.execute()
    for place in (10_050, 10_051, 20_099, 5):
        assert await play.client.cancel(rows[place][1]) == "cancelled"
    assert play.redis.llen(inbox) == 4 + 20_100 - 2
    left = [text for text in play.redis.lrange(inbox, 0, -1) if len(text) < 100]
    assert left == [f"{NEVER}-{n} - " for n in (10_050, 10_051)]
    assert from_element(left[0].encode()) is None
    # a place is no command: it goes with what is before it
    play.redis.ltrim(inbox, 10_049, 10_060)
    play.redis.hdel(accepted, *(id for _, id in rows[:10_050]), *ids)
    assert [row.id for row in await play.client.queue(Probe, "a")] == [id for _, id in rows[10_052:10_058]]
    fence = await play.take_over("w2")
    await fence.answer(fence.skip("a"))
    assert play.inbox("a")[0] == rows[10_052][1]


@pytest.mark.leaves_work
async def test_a_cancelled_request_is_answered_however_deep_it_lay(play: Stage) -> None:
    ids = await _behind_a_sleeper(play, 250)
    owner = await play.take_over("w2")
    [last] = await play.send("a", 7, idempotency_key="job")
    await owner.answer(owner.park({"a": play.queued()}, {"a": False}))
    assert await play.client.cancel(last) == "cancelled"
    once = play.part.once("a", "job")
    assert play.redis.ttl(once) > 0
    for name in play.redis.keys(f"{play.part.outcomes_}*"):
        play.redis.delete(name)  # two minutes later
    with pytest.raises(Cancelled):
        await play.client.call(Probe.note("a", n=7), idempotency_key="job", timeout=10)
    assert len(ids) == 250


async def test_the_head_of_a_paused_instance_is_cancelled_and_the_next_runs(strict: Stage) -> None:
    done: list[int] = []

    async def work(instance: Strict, ctx: object, n: int) -> None:
        done.append(n)

    HOOKS["work"] = work
    async with strict.worker():
        await strict.client.pause(Strict, "a")
        first, second = await strict.send("a", 1, 2, transition="work")
        await wait_until(lambda: strict.inbox("a") == [first, second])
        assert await strict.client.cancel(first) == "cancelled"
        assert strict.inbox("a") == [second]
        await asyncio.sleep(0.05)
        assert not done
        await strict.client.resume(Strict, "a")
        assert await strict.outcome(second) == "completed"
        assert done == [2]


async def test_a_swept_command_ends_as_others_do(play: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its timer was removed by hand: who waits hears of it, who repeats the request gets the same answer."""
    monkeypatch.setattr(reply, "HEARD_FIRST_S", 1000.0)
    owner = await play.own()
    handle = await play.client.send(Probe.note("a", n=1), delay=1000, idempotency_key="job")
    waiting = asyncio.ensure_future(handle.outcome(timeout=30))
    await wait_until(lambda: play.client._replies.waiting == 1)
    play.redis.zrem(play.part.timers, handle.id)
    lost = b'{"id":"%b","outcome":"failed","reason":"gone","code":"removed","attempts":0}' % handle.id.encode()
    assert await owner.answer(owner.sweep([(handle.id, "timer", lost)])) == [b"done", handle.id.encode()]
    assert (await waiting).code == "removed"
    assert play.redis.ttl(play.part.once("a", "job")) > 0
    assert not play.redis.exists(play.part.timers_data)
    assert play.transitions() == [f"failed {handle.id}"]
    with pytest.raises(Failed, match="gone"):
        await play.client.call(Probe.note("a", n=1), delay=1000, idempotency_key="job", timeout=10)
    play.redis.xtrim(play.part.commands, 0)  # the look
    play.redis.delete(play.part.accepted)


@pytest.mark.leaves_work
@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_removed_command_s_request_is_answered_when_it_is_repeated(play: Stage, forgotten: bool) -> None:
    """Its entry was removed from the stream by hand, and with it what named its record: the repeated request finds out."""
    owner = await play.own()
    [id] = await play.send("a", 1, idempotency_key="job")
    where = play.redis.hget(play.part.accepted, id)
    play.redis.xdel(play.part.commands, where)
    lost = b'{"id":"%b","outcome":"failed","reason":"gone","code":"removed","attempts":0}' % id.encode()
    assert await owner.answer(owner.sweep([(id, where, lost)])) == [b"done", id.encode()]
    if forgotten:
        for name in play.redis.keys(f"{play.part.outcomes_}*"):
            play.redis.delete(name)
    for _ in range(2):
        with pytest.raises(Failed, match="removed by hand" if forgotten else "gone"):
            await play.client.call(Probe.note("a", n=1), idempotency_key="job", timeout=10)
    assert play.queued() == []
