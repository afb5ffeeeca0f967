"""``on_failure="pause"``, then ``resume``: what failed is tried again; what the body has gone on from stands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from statemq import ANY, Client, Context, Fail, Machine, Retry, StepFailed, transition
from tests.waiting import wait_until
from tests.working import working

ran: list[str] = []
broken: set[str] = set()
once = Retry(attempts=1)


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()
    broken.clear()


def doing(name: str) -> Callable[[], Awaitable[str]]:
    async def do() -> str:
        ran.append(name)
        if name in broken:
            raise OSError(f"{name} is broken")
        return name

    return do


class Saga(Machine[None], initial="idle", partitions=1, on_failure="pause", retry=once):
    @transition(source=ANY)
    async def nested(self, ctx: Context) -> str:
        """It handles one failure, and another one is the end of it."""
        try:
            return await ctx.step("charge", doing("charge"), retry=once)
        except StepFailed:
            await ctx.step("tell", doing("tell"), retry=once)
            return await ctx.step("release", doing("release"), retry=once)

    @transition(source=ANY)
    async def undone(self, ctx: Context) -> str:
        """What it has undone may not be relied on by another try."""
        await ctx.step("reserve", doing("reserve"), retry=once)
        try:
            return await ctx.step("charge", doing("charge"), retry=once)
        except StepFailed:
            await ctx.step("unreserve", doing("unreserve"), retry=once)
            raise Fail("declined") from None

    @transition(source=ANY)
    async def gathered(self, ctx: Context) -> str:
        await asyncio.gather(ctx.step("x", doing("x"), retry=once), ctx.step("y", doing("y"), retry=once))
        return "done"

    @transition(source=ANY)
    async def grouped(self, ctx: Context) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step("x", doing("x"), retry=once))
        return "done"

    @transition(source=ANY)
    async def wrapped(self, ctx: Context) -> str:
        try:
            return await ctx.step("x", doing("x"), retry=once)
        except StepFailed:
            raise RuntimeError("mine") from ValueError("another")


@pytest.mark.parametrize(
    ("which", "first", "then", "outcome"),
    [
        ("nested", "charge tell release", "release", "release"),
        ("gathered", "x y", "x y", "done"),
        ("grouped", "x", "x", "done"),
        ("wrapped", "x", "x", "x"),
    ],
)
async def test_what_failed_is_tried_again_and_nothing_else(
    client: Client, url: str, namespace: str, which: str, first: str, then: str, outcome: str
) -> None:
    broken.update({"charge", "release", "x", "y"})
    async with working(url, namespace, Saga):
        handle = await client.send("saga", "a", which, {})
        await wait_until(lambda: paused(client))
        assert sorted(ran) == sorted(first.split())
        broken.clear()
        ran.clear()
        await client.resume(Saga, "a")
        assert await handle.result(timeout=20) == outcome
        assert sorted(ran) == sorted(then.split())


async def test_a_failure_that_was_answered_by_undoing_stands(client: Client, url: str, namespace: str) -> None:
    """The reservation is in the journal, and is gone: nothing may be charged for it."""
    broken.add("charge")
    async with working(url, namespace, Saga):
        handle = await client.send(Saga.undone("a"))
        await wait_until(lambda: paused(client))
        broken.clear()
        await client.resume(Saga, "a")
        await wait_until(lambda: paused(client))
        assert ran == ["reserve", "charge", "unreserve"]
        await handle.cancel()
        await client.resume(Saga, "a")
        assert (await handle.outcome(timeout=20)).outcome == "cancelled"


async def paused(client: Client) -> bool:
    return (await client.get(Saga, "a")).paused
