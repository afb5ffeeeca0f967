"""The server's clock is set back by an hour: nothing runs twice, what has ended is found, what waits does not wait an hour.

In these tests it was an hour ahead before: what was written then is moved there, which is how it looks after the step.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import msgspec
import pytest

from statemq import Client
from statemq.codec import command_id
from statemq.config import LIMITS, OUTCOME_PERIOD_MS, RESEND_WITHIN_MS, WorkerSettings
from statemq.store import lease
from statemq.store.lease import Acquired, Held, NotAcquired, redis_now_ms
from statemq.store.periods import times
from statemq.worker import partition as partition_module
from statemq.worker.daemon import FAR_MS, Worker
from tests.integration.races.probe import Probe
from tests.integration.races.stage import Stage
from tests.waiting import wait_until

HOUR_MS = 3_600_000


def set_back(play: Stage, by_ms: int = HOUR_MS) -> None:
    """All that was written until now was written by a clock so far ahead."""
    redis, part = play.redis, play.part
    mark = redis.hget(part.lease, "clock")
    if mark is not None:
        redis.hset(part.lease, "clock", f"{int(mark.split()[0]) + by_ms} {mark.split()[1]}")
    redis.hset(part.lease, "deadline", int(redis.hget(part.lease, "deadline") or 0) + by_ms)
    for name in redis.keys(f"{part.outcomes_}*"):
        redis.rename(name, part.outcomes(int(name.rpartition(":")[2]) + by_ms // OUTCOME_PERIOD_MS))
    for id, due in redis.zrange(part.timers, 0, -1, withscores=True):
        redis.zadd(part.timers, {id: due + by_ms})


async def append(play: Stage, id: str) -> str:
    """The script's answer to a resend."""
    k = play.part
    names = [k.commands, k.accepted, k.lease, k.outcomes_, k.timers, k.timers_data]
    args = [play.config.incarnation, LIMITS.backlog, RESEND_WITHIN_MS, LIMITS.key, LIMITS.arguments, "", 1, id, "a", "note", "{}"]
    answer = await play.router.run("append", names, *args)
    return (answer if isinstance(answer, bytes) else answer[0]).decode()


@pytest.mark.parametrize("by_ms", [130_000, HOUR_MS])
async def test_a_resend_over_the_step_is_recognised(play: Stage, by_ms: int) -> None:
    """P26, P31: its command has ended; its outcome lies in a period that Redis time has not reached again."""
    owner = await play.own()
    id = command_id("probe", 0, await redis_now_ms(play.router) + by_ms)
    play.redis.hset(play.part.lease, "clock", f"{await redis_now_ms(play.router) + by_ms} 0")
    assert await append(play, id) == "accepted"
    [c] = play.queued()
    assert await play.committed(owner, play.ended(c, 0, log=[1])) == ["applied"]
    assert (await append(play, id)).startswith("ended ")
    other = await play.take_over("w2")  # also a next owner's
    assert (await append(play, id)).startswith("ended ")
    assert await play.outcome(id) == "completed"
    assert (await play.client.show(id)).status == "completed"
    assert await play.committed(other, play.ended(c, 1, log=[1, 1])) == ["gone"]
    assert play.log("a") == [1]


async def test_what_ended_before_the_step_is_found_after_it(play: Stage) -> None:
    owner = await play.own()
    [id] = await play.send("a", 1)
    [c] = play.queued()
    assert await play.committed(owner, play.ended(c, 0, log=[1])) == ["applied"]
    set_back(play)
    async with Client(play.url, namespace=play.namespace, machines=[Probe]) as other:
        assert (await other.handle(id).outcome(timeout=10)).outcome == "completed"
    assert (await append(play, id)).split()[0] in ("ended", "late")
    assert play.queued() == []


async def test_new_commands_are_accepted_after_the_step(play: Stage) -> None:
    """Ids of Redis time are an hour old by the partition's: their client is told its time, once."""
    await play.own()
    set_back(play)
    ids = [*await play.send("a", 1), *await play.send("a", 2, 3)]
    assert [c.id for c in play.queued()] == ids
    assert await append(play, command_id("probe", 0, await redis_now_ms(play.router))) != "accepted"
    assert await append(play, command_id("probe", 0, await redis_now_ms(play.router) + 2 * HOUR_MS)) != "accepted"
    play.redis.delete(play.part.commands, play.part.accepted)


async def test_the_partition_s_time_goes_on_at_its_speed(play: Stage) -> None:
    fence = await play.own()
    play.redis.hset(play.part.lease, "clock", f"{await redis_now_ms(play.router) + HOUR_MS} 0")
    marks: list[tuple[int, int]] = []
    for _ in range(3):
        await fence.answer(fence.wake([]))
        last, ahead = play.redis.hget(play.part.lease, "clock").split()
        marks.append((int(last), int(ahead)))
        await asyncio.sleep(0.02)
    times, aheads = zip(*marks, strict=True)
    assert list(times) == sorted(times) and times[2] >= times[0] + 20
    assert aheads[0] == aheads[1] == aheads[2] and abs(aheads[0] - HOUR_MS) < 10_000
    # small corrections do not add up
    play.redis.hset(play.part.lease, "clock", f"{await redis_now_ms(play.router) - 10} 100")
    await fence.answer(fence.wake([]))
    assert play.redis.hget(play.part.lease, "clock").split()[1] == "0"


async def test_a_delayed_command_and_a_sleep_do_not_wait_an_hour(play: Stage) -> None:
    """By a worker that begins after the step, and by one that saw it."""
    await play.own()
    id = (await play.client.send(Probe.note("a", n=1), delay=0.5)).id
    set_back(play)
    play.redis.hset(play.part.lease, mapping={"deadline": 0})
    async with play.worker() as worker:
        assert await play.outcome(id) == "completed"
        [p] = worker.partitions.values()
        assert abs(p.now_ms() - worker.now_ms() - HOUR_MS) < 60_000
        # the clock goes back once more
        later = (await play.client.send(Probe.note("a", n=2), delay=1)).id
        worker._clock_offset_ms -= HOUR_MS
        assert await play.outcome(later) == "completed"
    assert play.log("a") == [1, 2]


@pytest.mark.parametrize("hours", [-2, 2], ids=["back", "forth"])
async def test_a_set_clock_counts_once_whoever_notices_first(play: Stage, hours: int) -> None:
    """The scripts know of it at once, a worker's idea of Redis time some seconds later: a partition that was asked in between was hours
    ahead, and what it let sleep then slept for hours."""
    await play.own()
    set_back(play)
    play.redis.hset(play.part.lease, mapping={"deadline": 0})
    async with play.worker() as worker:
        await wait_until(lambda: worker.partitions)
        [p] = worker.partitions.values()

        async def is_right() -> bool:
            wall_ms, ahead_ms = await times(p.router, p.keys)
            return abs(p.now_ms() - wall_ms - ahead_ms) < 60_000

        assert await is_right()
        worker._clock_offset_ms -= hours * HOUR_MS  # as before the clock was set
        await p.look_at_clock()
        assert await is_right()
        await worker._set_clock()
        await wait_until(is_right)
        await p.look_at_clock()
        assert await is_right()


async def test_a_dead_owner_s_lease_does_not_last_an_hour(play: Stage) -> None:
    """P5: its deadline is far ahead, and the same as when it was seen to pass; one that is renewed lives."""
    owner = await play.own("w1")
    set_back(play)
    deadline = int(play.redis.hget(play.part.lease, "deadline"))
    for passed in (0, deadline - 1):
        got = await play.acquire("w2", 1, owner.token, passed_ms=passed)
        assert isinstance(got, NotAcquired) and got.word == "alive"
    assert isinstance(await play.acquire("w2", 1, owner.token, passed_ms=deadline), Acquired)


def test_a_lease_ends_by_its_watcher_s_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker([Probe], settings=WorkerSettings(lease_ms=10_000))
    worker._clock_offset_ms = 0
    monkeypatch.setattr(time, "monotonic", lambda: 7_200.0)
    now = worker.now_ms()

    def read(deadline_ms: int, before: Held | None = None, token: str = "t") -> Held:
        return worker._dated(Held(token, "w9", deadline_ms, said_ms=deadline_ms), before or Held())

    seen = read(now + 8_000)
    assert seen.deadline_ms == now + 8_000
    worker._served["probe"] = cast(Any, msgspec.defstruct("S", [("view", list)])([seen, Held()]))
    for by_ms in (-HOUR_MS, 2 * HOUR_MS):  # back, and forth
        worker._clock_was_set(by_ms)
        worker._clock_offset_ms += by_ms
        again = read(now + 8_000, worker._served["probe"].view[0])
        assert again.deadline_ms - worker.now_ms() == 8_000
    now = worker.now_ms()
    doubtful = read(now + HOUR_MS)
    assert doubtful.deadline_ms == now + 10_000 + FAR_MS
    assert read(now + 9_000, doubtful).deadline_ms <= now + 10_000, "its owner has renewed since: silence is noticed after a lease"
    assert read(now - HOUR_MS, msgspec.structs.replace(seen, deadline_ms=now + 3_000)).deadline_ms == now + 3_000
    assert read(now - 1, seen, token="other").deadline_ms == now - 1


@pytest.mark.parametrize("slow", ["the question", "the answer"])
async def test_a_slow_answer_does_not_move_the_clock(play: Stage, monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    """A server, a network or this host hangs while Redis' time is asked for: a sleep ended early by half of that."""
    ask = lease.redis_now_ms

    async def slowly(router: Any) -> int:
        if slow == "the question":
            await asyncio.sleep(0.6)
        redis_ms = await ask(router)
        if slow == "the answer":
            await asyncio.sleep(0.6)
        return redis_ms

    async with play.worker() as worker:
        await worker._set_clock()
        before = worker._clock_offset_ms
        monkeypatch.setattr(lease, "redis_now_ms", slowly)
        await worker._set_clock()
        assert abs(worker._clock_offset_ms - before) < 100


async def test_each_owner_reckons_a_partition_s_time_alike(play: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ahead of Redis' clock, and who asked for it had a late answer, or a wrong idea of that clock: a sleep that one owner recorded
    by such a time ended early under the next."""
    await play.own()
    set_back(play)
    play.redis.hset(play.part.lease, mapping={"deadline": 0})
    ask = lease.acquire

    async def late(*args: Any) -> Any:
        got = await times(*args)
        await asyncio.sleep(0.6)
        return got

    async def acquired_late(*args: Any, **named: Any) -> Any:
        got = await ask(*args, **named)
        await asyncio.sleep(0.6)
        return got

    monkeypatch.setattr(partition_module, "times", late)
    monkeypatch.setattr(lease, "acquire", acquired_late)
    async with play.worker() as worker:
        await wait_until(lambda: worker.partitions)
        [p] = worker.partitions.values()

        async def error_ms() -> int:
            redis_ms, ahead_ms = await times(p.router, p.keys)
            return abs(p.now_ms() - redis_ms - ahead_ms)

        assert await error_ms() < 300
        await p.look_at_clock()
        assert await error_ms() < 300

        async def is_right() -> bool:
            return await error_ms() < 300

        for wrong_ms in (-700, 700):
            worker._clock_offset_ms += wrong_ms
            await p.look_at_clock()
            await worker._set_clock()
            await wait_until(is_right)


async def test_nodes_whose_clocks_differ_are_each_asked_once(play: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster each partition's time is that of its own node: one node's clock is no news of another's."""
    await play.own()
    play.redis.hset(play.part.lease, mapping={"deadline": 0})
    looks = 0

    async def of_another_node(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        wall_ms, ahead_ms = await times(*args)
        return wall_ms + 2_000, ahead_ms

    monkeypatch.setattr(partition_module, "times", of_another_node)
    async with play.worker() as worker:
        await wait_until(lambda: worker.partitions)
        [p] = worker.partitions.values()
        await p.look_at_clock()
        wall_ms, _ = await times(p.router, p.keys)
        assert abs(p.now_ms() - wall_ms - 2_000) < 300
        before = looks
        for _ in range(20):
            await worker._set_clock()
            await asyncio.sleep(0)
        assert looks == before and abs(worker.now_ms() - wall_ms) < 1_900


async def test_an_id_that_cannot_be_dated_is_made_anew(play: Stage) -> None:
    await play.own()
    client = play.client
    await play.send("a", 1)
    [line] = client._appender._lines.values()
    line.offset_ms = 10.0 * HOUR_MS
    await play.send("a", 2)
    assert len(play.queued()) == 2
    play.redis.delete(play.part.commands, play.part.accepted)
