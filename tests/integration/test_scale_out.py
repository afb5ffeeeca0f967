"""P7: a partition that should move while something long runs in it: its other keys lose little, and it moves when that has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from statemq import Client, Context, Machine, transition
from statemq.config import WorkerSettings
from statemq.keys import partition_of
from statemq.worker.daemon import Worker
from tests.waiting import wait_until
from tests.working import working

HOLDS: dict[str, asyncio.Event] = {}


async def held(key: str) -> None:
    await HOLDS.setdefault(key, asyncio.Event()).wait()


class Shift(Machine[None], initial="on", partitions=2):
    @transition(source="on")
    async def long(self, ctx: Context) -> None:
        await ctx.step("held", held, ctx.key)

    @transition(source="on")
    def quick(self) -> None: ...


def key_in(partition: int, stem: str) -> str:
    return next(key for n in range(100) if partition_of(key := f"{stem}{n}", 2) == partition)


@pytest.fixture(autouse=True)
def holds() -> Iterator[None]:
    HOLDS.clear()
    yield
    HOLDS.clear()


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Shift]) as opened:
        yield opened


async def test_a_long_step_does_not_stop_its_neighbours_and_the_partition_goes_when_it_has_ended(
    client: Client, url: str, namespace: str
) -> None:
    """The grace period is ten minutes: for so long the partition would stop. Neither is anything lost when the share changes meanwhile."""
    async with working(url, namespace, Shift, grace_s=600) as first:
        handles = [await client.send(Shift.long(key_in(p, "long"))) for p in (0, 1)]
        await wait_until(lambda: len(HOLDS) == 2)
        second = Worker([Shift], url, namespace=namespace, settings=WorkerSettings())
        running = asyncio.ensure_future(second.run())
        try:
            await wait_until(lambda: any(p.leaving for p in first.partitions.values()))
            [leaving] = [p for p in first.partitions.values() if p.leaving]
            await wait_until(lambda: leaving.patience._stopped_s is not None)
            for _ in range(20):
                for p in (0, 1):
                    await client.call(Shift.quick(key_in(p, "quick")), timeout=10)
            assert len(first.partitions) == 2
            for event in HOLDS.values():
                event.set()
            await wait_until(lambda: len(first.partitions) == len(second.partitions) == 1)
            for handle in handles:
                await handle.result(timeout=10)
        finally:
            for event in HOLDS.values():
                event.set()
            second.stop()
            await running


async def test_a_partition_whose_share_changes_back_stays_and_runs_on(client: Client, url: str, namespace: str) -> None:
    """It stops for another worker, which leaves again before what runs has ended."""
    async with working(url, namespace, Shift, grace_s=600) as first:
        handles = [await client.send(Shift.long(key_in(p, "long"))) for p in (0, 1)]
        await wait_until(lambda: len(HOLDS) == 2)
        second = Worker([Shift], url, namespace=namespace)
        running = asyncio.ensure_future(second.run())
        await wait_until(lambda: any(p.leaving for p in first.partitions.values()))
        second.stop()
        await running
        await wait_until(lambda: not any(p.leaving or p.handing_over or p.draining for p in first.partitions.values()))
        for p in (0, 1):
            await client.call(Shift.quick(key_in(p, "quick")), timeout=10)
        for event in HOLDS.values():
            event.set()
        for handle in handles:
            await handle.result(timeout=10)
