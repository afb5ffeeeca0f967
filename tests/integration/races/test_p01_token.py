"""P1 Token: <epoch>.<worker id>.<n>, compared for equality."""

from __future__ import annotations

import pytest

from statemq.store.fence import Fenced
from statemq.store.lease import Acquired
from tests.integration.races.stage import Stage
from tests.waiting import wait_until

FAR = 9_000_000_000_000
"""An epoch far ahead of the clock, so that two acquisitions count on from it alike."""


async def test_a_rewound_epoch_counts_twice_and_the_tokens_still_differ(play: Stage) -> None:
    """P1: w1 acquires; a failover loses that; the same worker acquires again and gets the same epoch.
    What w1 had sent under its first token must not pass for the second tenure's."""
    play.redis.hset(play.part.lease, "epoch", FAR)
    before = play.save()
    first = await play.own("w1", n=1)
    play.restore(before)
    second = await play.own("w1", n=2)
    assert first.token.split(".")[0] == second.token.split(".")[0] == str(FAR + 1)
    assert first.token != second.token
    with pytest.raises(Fenced):
        await first.answer(first.skip("a"))
    assert await second.answer(second.skip("a")) == b"done"


async def test_two_workers_with_the_same_epoch_and_count_are_told_apart(play: Stage) -> None:
    """P1: the same, but another worker is first after the failover, with the same count."""
    play.redis.hset(play.part.lease, "epoch", FAR)
    before = play.save()
    first = await play.own("w1", n=1)
    play.restore(before)
    await play.own("w2", n=1)
    with pytest.raises(Fenced):
        await first.answer(first.skip("a"))


async def test_the_epoch_grows_though_the_clock_stands_behind_it(play: Stage) -> None:
    """P1: a former owner's host was ahead in time (or Redis' clock was set back): the next epoch is still higher."""
    play.redis.hset(play.part.lease, "epoch", FAR)
    fence = await play.own("w1", n=1)
    again = await play.acquire("w1", 2, fence.token)
    assert isinstance(again, Acquired)
    assert int(again.token.split(".")[0]) == FAR + 2


@pytest.mark.leaves_work
async def test_a_former_owner_can_do_nothing(play: Stage) -> None:
    """P1, I1: w1 is stopped, w2 takes over after the deadline, w1 goes on: none of its calls changes anything."""
    [id] = await play.send("a", 1)
    old = await play.own("w1")
    new = await play.take_over("w2")
    [c] = play.queued()
    before = play.contents()
    for call in (
        lambda: old.start([c]), lambda: old.record([(id, "step", b"{}", b"")]), lambda: old.park({"a": [c]}, {"a": True}),
        lambda: old.postpone(c, [], [], due_ms=1, wake_data=b"{}"), lambda: old.wake([("wake", id, "a", ())]),
        lambda: play.commit(old, play.ended(c, 0, log=[1])), lambda: old.bury(c, b"{}", 1, "", []), lambda: old.adopt([c]),
        lambda: old.drop([(c.entry, id)]), lambda: old.skip("a"), lambda: old.sweep([(id, c.entry, b"{}")]),
    ):  # fmt: skip
        with pytest.raises(Fenced):
            await old.answer(call())
    assert play.contents() == before
    assert await play.committed(new, play.ended(c, 0, log=[1])) == ["applied"]


async def test_a_fenced_answer_ends_the_tenure(play: Stage) -> None:
    """P1, I1: another has taken the partition, and neither its news nor a renewal has told the owner. The answer to its commit does:
    what it ran was not applied, and it drops all it holds."""
    async with play.worker(lease_ms=120_000) as worker:
        [partition] = worker.partitions.values()
        token = play.token
        play.redis.hset(play.part.lease, mapping={"token": "9999999999999.w9.1", "owner": "w9"})
        [id] = await play.send("a", 1)
        await wait_until(lambda: partition.closed)
        assert play.log("a") == []
        play.redis.hset(play.part.lease, mapping={"token": "", "owner": "", "deadline": 0})
        assert await play.outcome(id) == "completed"
        assert play.log("a") == [1]
        assert play.token != token
