"""Branches that a body leaves behind: ``asyncio.gather`` does not end the others when one raises. They end with their attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from statemq import Client, Context, Failed, Machine, Retry, transition
from statemq.client.client import Handle
from tests.waiting import wait_until
from tests.working import working

log: list[str] = []


class Empty(msgspec.Struct):
    pass


class Left(Machine[Empty], initial="idle", retry=Retry(attempts=2, first=0.001), partitions=1):
    @transition(source="idle", retry=Retry(attempts=1))
    async def regains(self, ctx: Context) -> None:
        async def bad() -> None:
            await asyncio.sleep(0.5)
            raise ValueError("bad")

        await asyncio.gather(ctx.sleep(0.2), bad())

    @transition(source="idle")
    async def takes(self, s: float) -> None:
        await asyncio.sleep(s)

    @transition(source="idle")
    async def pays(self, ctx: Context, late: float) -> int:
        async def bad() -> None:
            await asyncio.sleep(0.1)
            if ctx.attempt == 1:
                raise ValueError("bad")

        async def good() -> None:
            await asyncio.sleep(late)
            await ctx.step("charge", charge)

        await asyncio.gather(bad(), good())
        return ctx.attempt

    @transition(source="idle", retry=Retry(attempts=1))
    async def pays_after_its_end(self, ctx: Context) -> None:
        async def bad() -> None:
            raise ValueError("bad")

        async def good() -> None:
            await asyncio.sleep(0.3)
            await ctx.step("charge", charge)

        await asyncio.gather(bad(), good())

    @transition(source="idle")
    async def holds_on(self, ctx: Context, branch: bool) -> None:
        async def hold() -> None:
            while True:
                try:
                    await ctx.sleep(60)
                except asyncio.CancelledError:
                    log.append("held on")

        await (asyncio.gather(hold(), ctx.sleep(60)) if branch else hold())

    @transition(source="idle", retry=Retry(attempts=1))
    async def exits(self, ctx: Context, how: str) -> None:
        async def leaves() -> None:
            if "later" in how:
                await ctx.sleep(0.05)
            raise SystemExit(3) if "exit" in how else KeyboardInterrupt

        if "group" in how:
            async with asyncio.TaskGroup() as group:
                group.create_task(leaves())
                await ctx.sleep(60)
        await asyncio.gather(leaves(), ctx.sleep(60))

    @transition(source="idle")
    async def forgets_one(self, ctx: Context) -> str:
        self.left = asyncio.ensure_future(ctx.step("charge", charge))
        await asyncio.sleep(0.05)
        return "done"


async def charge() -> None:
    log.append("charge")
    await asyncio.sleep(0.4)
    log.append("charged")


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    log.clear()
    async with Client(url, namespace=namespace, machines=[Left]) as opened:
        yield opened


async def test_none_keeps_a_slot(client: Client, url: str, namespace: str) -> None:
    """It slept, and comes for its slot when its attempt has ended."""
    async with working(url, namespace, Left, concurrency=1) as worker:
        regains = await client.send(Left.regains("a"))
        await asyncio.sleep(0.1)
        takes = await client.send(Left.takes("b", s=1.5))
        with pytest.raises(Failed):
            await regains.result(timeout=20)
        await takes.result(timeout=20)
        await asyncio.sleep(0.3)
        free, worker._shop.slots.free = worker._shop.slots.free, 1
        assert free == 1


@pytest.mark.parametrize("late", [0.3, 0.0])
async def test_none_goes_on_beside_the_next_attempt(client: Client, url: str, namespace: str, late: float) -> None:
    """Neither to a new step nor in the one that it is in."""
    async with working(url, namespace, Left):
        assert await client.call(Left.pays("a", late=late), timeout=20) == 2
        await asyncio.sleep(0.5)
    assert log == (["charge", "charged"] if late else ["charge", "charge", "charged"])


@pytest.mark.quick
async def test_none_goes_on_when_its_command_has_failed(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Left):
        with pytest.raises(Failed):
            await client.call(Left.pays_after_its_end("a"), timeout=20)
        await asyncio.sleep(0.6)
    assert log == []


async def test_none_goes_on_when_its_body_has_returned(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Left):
        with pytest.raises(Failed, match="step charge was still running when the transition returned; await or cancel it"):
            await client.call(Left.forgets_one("a"), timeout=20)
        await asyncio.sleep(0.6)
    assert log == ["charge"]


@pytest.mark.parametrize("how", ["exit", "exit later", "interrupt later", "exit in a group", "interrupt in a group later"])
async def test_none_ends_its_worker(client: Client, url: str, namespace: str, how: str) -> None:
    """A task that raises SystemExit ends the event loop, and with it what all other keys do; as the body's own it fails its command."""
    async with working(url, namespace, Left):
        with pytest.raises(Failed, match=r"SystemExit|KeyboardInterrupt|unhandled errors in a TaskGroup"):
            await client.call(Left.exits("a", how=how), timeout=20)
        await client.call(Left.takes("b", s=0.0), timeout=20)


@pytest.mark.parametrize("branch", [False, True], ids=["body", "branch"])
async def test_who_swallows_its_end_again_and_again_does_not_keep_the_worker_busy(
    client: Client, url: str, namespace: str, branch: bool
) -> None:
    log.clear()
    async with working(url, namespace, Left, suspend_after_s=30):
        held = await client.send(Left.holds_on("a", branch=branch))
        await wait_until(lambda: _sleeps(held))
        await held.cancel()
        await client.call(Left.takes("b", s=0.0), timeout=60)
        assert (await held.outcome(timeout=60)).outcome == "cancelled"
    assert 0 < len(log) < 1000


async def _sleeps(handle: Handle[None]) -> bool:
    return any(step.name.startswith("sleep@") for step in (await handle.status()).steps)
