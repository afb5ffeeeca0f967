"""Processes that die again and again: what makes progress is not buried for it, what kills is, and nobody waits long for either (P14)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from statemq import Client, Failed
from tests.integration.poison import ALONE_S, Poison
from tests.integration.test_worker_process import Processes, client, processes
from tests.waiting import wait_until

__all__ = ["client", "processes"]


@contextlib.asynccontextmanager
async def kept(processes: Processes, settings: str) -> AsyncIterator[None]:
    """Two workers; one that dies is replaced. The one that watches takes over at once."""

    async def keep() -> None:
        while True:
            for _ in range(2 - sum(process.poll() is None for process in processes.started)):
                processes.own(settings)
            await asyncio.sleep(0.02)

    keeping = asyncio.ensure_future(keep())
    try:
        yield
    finally:
        keeping.cancel()


async def test_a_transition_that_records_steps_outlives_any_number_of_kills(client: Client, processes: Processes) -> None:
    """Each worker that runs it is killed, seven in a row; each has recorded a step before. With --max-crashes 1."""
    handle = await client.send(Poison.goes_on("a", steps=60))
    for _ in range(7):
        before = len(processes.lines)
        process = processes.own('{"lease_ms": 1000, "max_crashes": 1}')
        await wait_until(lambda before=before: len(processes.lines) >= before + 3, timeout_s=60)  # type: ignore[misc]
        process.kill()
        process.wait()
        assert (await client.show(handle.id)).outcome is None
    processes.own('{"lease_ms": 1000, "max_crashes": 1}')
    assert await handle.result(timeout=60) == 60
    assert await client.failed(Poison) == []


async def test_a_transition_that_goes_on_by_one_step_a_life_reaches_its_end(client: Client, processes: Processes) -> None:
    """However soon after a step its process dies."""
    handle = await client.send(Poison.falls_after_each("a", steps=6))
    async with kept(processes, '{"lease_ms": 1000, "max_crashes": 1}'):
        assert await handle.result(timeout=60) == 6
    assert [line for line in processes.lines if line.startswith("a ")] == [f"a {n}" for n in range(6)]


async def test_others_do_not_wait_for_the_end_of_an_innocent_suspect(client: Client, processes: Processes) -> None:
    """It was in progress when two workers were killed. It runs alone for a while; then others run beside it."""
    handle = await client.send(Poison.lasts("a", seconds=20))
    for n in range(3):
        process = processes.own('{"lease_ms": 1000}')

        async def runs(pid: int = process.pid) -> bool:
            return any(p.running for p in await client.partitions(Poison) if p.owner) and pid in {
                w.pid for w in await client.workers(Poison) if w.live
            }

        await wait_until(runs, timeout_s=60)
        if n < 2:
            process.kill()
            process.wait()
    assert await asyncio.wait_for(client.call(Poison.good("b", n=1)), 12) == 1
    assert (await client.show(handle.id)).outcome is None
    assert await handle.result(timeout=60) is None


async def test_poison_that_kills_late_is_buried_and_its_neighbours_are_not(client: Client, processes: Processes) -> None:
    """It kills after it has been alone for long. Beside it run short commands, and one that takes longer than it takes to kill."""
    poison = await client.send(Poison.kills_late("poison", seconds=4 * ALONE_S))
    long = [await client.send(Poison.lasts(f"long {n}", seconds=6 * ALONE_S)) for n in range(2)]
    async with kept(processes, '{"lease_ms": 1000, "max_crashes": 1}'):
        short = 0
        while (await client.show(poison.id)).outcome is None:
            assert await client.call(Poison.good(f"key {short}", n=short), timeout=60) == short
            short += 1
        with pytest.raises(Failed, match="of them after it had run alone for a while") as failed:
            await poison.result(timeout=60)
        assert failed.value.code == "crashes"
        for handle in long:
            await handle.result(timeout=60)
    assert [letter.id for letter in await client.failed(Poison)] == [poison.id]
    assert processes.lines.count("poison kills") <= 8
