"""Added faults of reading: the same worker owns a partition again while its blocking read still stands from before."""

from __future__ import annotations

import pytest

from tests.integration.races.stage import stage
from tests.waiting import wait_until


@pytest.mark.parametrize("times", [3])
async def test_the_same_worker_acquires_again_during_a_blocked_read(url: str, namespace: str, times: int) -> None:
    """The store was set back under it, so its tenure ends and it begins a new one, while its connection still blocks from the old
    position. What comes then is read by both; it is taken once (P3)."""
    async with stage(url, namespace) as play, play.worker() as worker:
        sent: list[str] = []
        for n in range(times):
            (partition,) = worker.partitions.values()
            await wait_until(lambda: next(iter(worker.partitions.values())).in_read)
            token = play.token
            play.redis.hincrby(play.part.lease, "call", -5)  # as after a failover: fewer calls than the worker has made
            sent += await play.send("a", 2 * n, transition="note")  # its commit comes out of the blue
            await wait_until(lambda before=token: play.token != before)  # type: ignore[misc]
            sent += await play.send("a", 2 * n + 1, transition="note")
            assert [await play.outcome(id) for id in sent] == ["completed"] * len(sent)
            assert partition.closed and list(worker.partitions.values()) != [partition]
            assert play.token.split(".")[1] == worker.id
        assert play.log("a") == list(range(2 * times))
        assert sorted(play.transitions()) == sorted(f"completed {id}" for id in sent)
