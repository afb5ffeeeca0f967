"""Blocking steps have threads of their own: calls that hang hold up no healthy one, and a pool that is full is said."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from statemq import Client, Context, Machine, Retry, events, transition
from statemq.worker import threads as threads_module
from statemq.worker.threads import StepThreads
from tests.waiting import wait_until
from tests.working import working

release = threading.Event()
ran: list[str] = []


def hangs() -> None:
    release.wait(300)


def healthy() -> str:
    ran.append("healthy")
    return "fine"


class Blocks(Machine[None], initial="on", partitions=1, retry=Retry(attempts=3, first=0.05)):
    @transition(source="on")
    async def bad(self, ctx: Context, tries: int) -> None:
        await ctx.step("bad", hangs, timeout=0.02, retry=Retry(attempts=tries, first=0.001, cap=0.001))

    @transition(source="on")
    async def holds(self, ctx: Context) -> None:
        await ctx.step("holds", hangs)

    @transition(source="on", timeout=30)
    async def good(self, ctx: Context) -> str:
        return await ctx.step("good", healthy, timeout=5)

    @transition(source="on", timeout=0.3)
    async def quick(self, ctx: Context) -> str:
        return await ctx.step("good", healthy, timeout=0.2)


@pytest.fixture(autouse=True)
def said() -> Iterator[list[str]]:
    """What warnings say; what hangs is let go in the end."""
    release.clear()
    ran.clear()
    heard: list[str] = []

    def hear(event: events.Event) -> None:
        if isinstance(event, events.Warned):
            heard.append(event.text)

    events.listeners.append(hear)
    yield heard
    events.listeners.remove(hear)
    release.set()


@pytest.mark.parametrize(("concurrency", "tries"), [(1, 3), (4, 20), (128, 70)])
async def test_calls_that_hang_leave_the_threads_to_healthy_ones(
    url: str, namespace: str, said: list[str], concurrency: int, tries: int
) -> None:
    async with working(url, namespace, Blocks, concurrency=concurrency), Client(url, namespace=namespace, machines=[Blocks]) as client:
        bad = await client.send(Blocks.bad("a", tries=tries))
        assert (await bad.outcome(timeout=120)).outcome == "failed"
        assert await client.call(Blocks.good("b"), timeout=60) == "fine"
    assert ran == ["healthy"]
    warned = [text for text in said if "nobody waits for them any more" in text]
    assert warned
    assert "blocks/a bad: bad (" in warned[0]
    assert len(warned) < 10  # at the first, and whenever there are twice as many


async def test_the_time_of_a_step_that_waits_for_a_thread_has_not_begun(
    url: str, namespace: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its own nor its attempt's: else a healthy command would fail for good without its function having run."""
    monkeypatch.setattr(threads_module, "FULL_S", 0.1)
    async with working(url, namespace, Blocks, concurrency=3) as worker, Client(url, namespace=namespace, machines=[Blocks]) as client:
        worker._threads.free = worker._threads.n = 2
        held = [await client.send(Blocks.holds(key)) for key in ("a", "b")]
        await wait_until(lambda: worker._threads.free == 0)
        waits = await client.send(Blocks.quick("c"))
        await wait_until(lambda: said)
        await asyncio.sleep(1.0)  # long beyond its time, and beyond what would have been its last try
        assert ran == []
        release.set()
        assert await waits.result(timeout=60) == "fine"
        for handle in held:
            await handle.result(timeout=60)
        assert worker._threads.free == 2
    assert len(said) == 1
    assert "all 2 threads for blocking steps are taken, further ones wait: " in said[0]
    assert "blocks/a holds: holds (" in said[0]
    assert ran == ["healthy"]


async def test_what_was_given_up_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that others wait, and go on when any of them ends."""
    monkeypatch.setattr(threads_module, "GIVEN_UP", 1)
    threads = StepThreads(1)
    gates = [threading.Event() for _ in range(3)]

    async def call(gate: threading.Event) -> None:
        place = await threads.take("call")
        await place.run(lambda: gate.wait(60) and None)

    for gate in gates[:2]:
        task = asyncio.ensure_future(call(gate))
        await wait_until(lambda: threads.free == 0)
        task.cancel()
        await asyncio.wait([task])
    assert threads.free == 0  # one counts no more, the other does
    waits = asyncio.ensure_future(call(gates[2]))
    gone = asyncio.ensure_future(call(gates[2]))
    await asyncio.sleep(0.05)
    gone.cancel()
    await asyncio.wait([gone])
    assert not waits.done()
    gates[2].set()
    gates[0].set()
    await asyncio.wait_for(waits, 30)
    gates[1].set()
    await wait_until(lambda: threads.free == 1)
    threads.shutdown()


async def test_a_place_that_was_not_used_is_another_s() -> None:
    threads = StepThreads(1)
    place = await threads.take("first")
    waits = asyncio.ensure_future(threads.take("second"))
    await asyncio.sleep(0)
    place.give()
    second = await asyncio.wait_for(waits, 30)
    second.give()
    assert threads.free == 1
    threads.shutdown()
