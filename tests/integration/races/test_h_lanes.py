"""P8, P11, P14: what a lane is told at an odd moment."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from statemq import ANY, Machine, Reject, transition
from statemq.worker.lane import Job, Lane
from tests.integration.races.probe import Log, Phase
from tests.integration.races.stage import Gate, Stage, stage
from tests.waiting import wait_until


async def test_an_older_command_on_its_way_to_the_inbox_is_seen_by_the_load_of_that_turn(play: Stage) -> None:
    """P8: in one turn e2 is to be parked behind a busy key, the key's task ends, what it stood on was not applied, and it is to be read
    anew; then e3 arrives. The load must come after the park, or it finds an empty inbox and e3 overtakes e2."""
    async with play.worker() as worker:
        [partition] = worker.partitions.values()
        await play.send("a", 1)
        await wait_until(lambda: play.log("a") == [1])
        await play.client.pause("probe")
        await wait_until(lambda: partition.paused)
        await play.send("a", 2, 3)
        lane = partition.lane("a")
        await wait_until(lambda: len(lane.queue) == 2)
        e2, e3 = lane.queue
        lane.queue.clear()
        partition.batches.park(lane, [e2])
        lane.loaded = False
        partition.batches.load(lane)
        lane.arrived(e3)
        await play.client.resume("probe")
        await wait_until(lambda: len(play.log("a")) == 3)
        assert play.log("a") == [1, 2, 3]


@pytest.mark.parametrize("moment", ["waits for a slot", "in hand"])
async def test_a_cancel_is_heard_by_a_command_whose_journal_was_read_before(
    play: Stage, hooks: dict[str, Any], moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P16, P28: a command's journal has been read, and it waits for a free slot or is about to run. A cancel is asked: it is in the
    journal now. The command must not run as if nothing had been asked."""
    gate = Gate()

    async def work(self: Any, ctx: Any, n: int) -> None:
        await gate(n)

    hooks["work"] = work
    await play.send("b", 1, transition="work")
    [id] = await play.send("a", 2, transition="work")
    fence = await play.own()
    await fence.answer(fence.record([(id, "step", b"{}", b"")]))
    play.abandon()
    async with play.worker(concurrency=1, max_crashes=9) as worker:
        [partition] = worker.partitions.values()
        lane = partition.lane("a")
        await wait_until(lambda: gate.came == [1] and lane.queue and lane.queue[0].peeked)
        if moment == "in hand":
            run = Lane.run

            def later(lane: Lane, job: Job) -> None:
                if lane.key == "a":
                    play.redis.hset(play.part.steps(id), "@cancel", 1)
                    lane.look()
                run(lane, job)

            monkeypatch.setattr(Lane, "run", later)
        else:
            assert await play.client.handle(id).cancel() == "asked"
            await asyncio.sleep(0.1)
        gate.let(1)
        assert await play.outcome(id) == "cancelled"
        gate.let_all()


async def test_a_refusal_that_is_no_text_costs_its_own_command_only(play: Stage, hooks: dict[str, Any]) -> None:
    """What the user's code says may be no UTF-8: it must not break the turn in which others run."""

    def pure(self: Any, ctx: Any, n: int) -> None:
        raise Reject("\ud800")

    hooks["pure"] = pure
    async with play.worker():
        bad, good = await asyncio.gather(play.send("a", 1, transition="pure"), play.send("b", 2))
        assert await play.outcome(good[0]) == "completed"
        assert await play.outcome(bad[0]) == "rejected"


class Thorn(msgspec.Struct):
    n: int = 0

    def __post_init__(self) -> None:
        if self.n == 13:
            raise KeyError("thirteen")


class Rose(Machine[Log, Phase], initial=Phase.IDLE, partitions=1):
    @transition(source=ANY)
    def prick(self, thorn: Thorn) -> None:
        self.data.log.append(thorn.n)


async def test_a_type_that_raises_costs_its_own_command_only(url: str, namespace: str) -> None:
    """A type of the user's may raise anything when it is made from what was sent: the turn in which others run goes on."""
    async with stage(url, namespace, Rose) as play, play.worker():
        for key, n in (("a", 13), ("b", 1), ("a", 2)):
            play.redis.xadd(play.part.commands, {"key": key, "transition": "prick", "args": f'{{"thorn": {{"n": {n}}}}}'})
        await wait_until(lambda: (play.log("a"), play.log("b")) == ([2], [1]))
        assert play.redis.xlen(play.part.failed) == 1


@pytest.mark.leaves_work
async def test_a_suspect_that_was_buried_is_suspected_no_more(play: Stage) -> None:
    """P20: as long as there are suspects each commit looks for them; one that has ended is forgotten, or they grow with each burial."""
    [id] = await play.send("a", 1)
    fence = await play.own()
    play.redis.set(play.part.steps(id), "by hand")
    assert fence
    play.abandon()
    async with play.worker() as worker:
        assert await play.outcome(id) == "failed"
        [suspects] = worker._suspects.values()
        await wait_until(lambda: not suspects)
