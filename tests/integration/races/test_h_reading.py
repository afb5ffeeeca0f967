"""P3: two readers and never one entry twice, whatever a neighbour's damage does to a read."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from statemq import ANY, Machine, transition
from statemq.keys import PartitionKeys, partition_of
from statemq.store.wire import ReplyError
from tests.integration.races.probe import Log, Phase
from tests.integration.races.stage import Stage, stage
from tests.waiting import wait_until


class Pair(Machine[Log, Phase], initial=Phase.IDLE, partitions=2):
    @transition(source=ANY)
    def note(self, n: int = 0) -> None:
        self.data.log.append(n)


async def test_a_neighbour_s_damage_does_not_make_two_readers_take_one_entry(
    url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3: one blocking read has two partitions and fails: somebody made the other's stream a text. While the reader pauses, the second
    one takes ours up; the first must not read it as well, or each entry is taken twice, and twice in one batch is applied twice (I3)."""
    taken: Counter[bytes] = Counter()
    async with stage(url, namespace, Pair) as play:
        other = PartitionKeys(namespace, "pair", 1)
        key = next(k for k in map(str, range(100)) if partition_of(k, 2) == 0)
        async with play.worker() as worker:
            await wait_until(lambda: len(worker.partitions) == 2 and all(p.in_read for p in worker.partitions.values()))
            partition = next(p for p in worker.partitions.values() if p.keys.number == 0)
            take = partition.take

            def counted(entries: Any) -> None:
                taken.update(entry for entry, _ in entries)
                take(entries)

            monkeypatch.setattr(partition, "take", counted)
            play.redis.delete(other.commands)
            play.redis.set(other.commands, "by hand")
            await wait_until(lambda: len(worker.partitions) == 1)
            for n in range(30):
                await play.send(key, n)
                await asyncio.sleep(0.1)
            play.redis.delete(other.commands)
            await wait_until(lambda: len(play.log(key)) >= 30)
            assert max(taken.values()) == 1
        assert play.log(key) == list(range(30))


async def test_a_partition_s_reader_follows_its_slot_to_another_node(url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster a slot moves: the old node refuses the blocking read. The reader connects to where the slot is now; it does not ask the
    old node for ever, while its partition is pulled fifty times a second."""
    async with stage(url, namespace) as play, play.worker() as worker:
        reading = worker._reading
        [partition] = worker.partitions.values()
        await wait_until(lambda: partition.in_read)
        before = set(reading._wires)
        reading._spawn(reading._read_alone(partition))  # as in a cluster: a reader of its own
        await wait_until(lambda: len(reading._wires) > len(before))
        [old] = set(reading._wires) - before
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.set_exception(ReplyError("MOVED 1 127.0.0.1:1"))
        monkeypatch.setattr(old, "call", lambda *args: refused)
        partition.in_read = False
        partition.left_read()
        await wait_until(lambda: old not in reading._wires)
        [id] = await play.send("a", 1)
        assert await play.outcome(id) == "completed"


async def test_a_partition_that_a_reader_took_up_when_it_had_room_again_is_not_pulled(play: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: a partition waits to be taken into a blocking read when its window fills up. Something leaves; the reader takes it up in the very
    turn in which who pulls it hears of the room. Both would read the same entries, and one of them applied twice is applied twice (I3)."""
    async with play.worker() as worker:
        reading = worker._reading
        [partition] = worker.partitions.values()
        await wait_until(lambda: partition.in_read)
        partition.drain()
        await wait_until(lambda: not partition.in_read)
        await asyncio.sleep(0.05)
        call, pulls = worker._router.call, 0

        def counted(key: str, *args: Any) -> Any:
            nonlocal pulls
            pulls += args[0] == "XREAD"
            return call(key, *args)

        monkeypatch.setattr(worker._router, "call", counted)
        reading._offer(partition)
        partition.undrain()
        assert reading._claim(0.0) == [partition]
        await asyncio.sleep(0.1)
        assert pulls == 0
        reading._leave(partition)
        [id] = await play.send("a", 1)
        assert await play.outcome(id) == "completed"
        assert pulls


async def test_what_was_taken_is_not_taken_again(play: Stage) -> None:
    """P3, I3: whatever reads it: an entry that was taken is not taken again."""
    ids = await play.send("a", 1, 2, 3)
    async with play.worker() as worker:
        [partition] = worker.partitions.values()
        await play.client.pause("probe")
        await wait_until(lambda: partition.paused and partition.in_read)
        ids += await play.send("a", 4, 5)
        await wait_until(lambda: partition.held == 2)
        rows = await play.router.call(play.part.commands, "XRANGE", play.part.commands, "-", "+")
        partition.take(rows)
        assert partition.held == 2
        await play.client.resume("probe")
        assert await play.outcome(ids[-1]) == "completed"
    assert play.log("a") == [1, 2, 3, 4, 5]
