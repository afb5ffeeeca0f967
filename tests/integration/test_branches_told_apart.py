"""Branches are the same ones at each attempt, however their tasks are made and whatever else makes tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from statemq import Client, Context, Machine, Retry, transition
from tests.working import working

drawn: list[dict[str, str]] = []
connected: list[int] = []


async def connect() -> None:
    """As libraries do: a task for a new connection, and none when there is one."""

    async def open_it() -> None:
        await asyncio.sleep(0)

    if not connected:
        connected.append(1)
        await asyncio.create_task(open_it())


def others(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **how: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **how)


class Apart(Machine[None], initial="on", partitions=1, retry=Retry(attempts=3, first=0.001)):
    @transition(source="on")
    async def draws(self, ctx: Context, how: str) -> None:
        mine: dict[str, str] = {}

        async def branch(n: int) -> None:
            await asyncio.sleep(0.02 * ((n + ctx.attempt) % 3))
            mine[f"{n}"] = f"{ctx.uuid()} {ctx.random.random()}"

        branches = [branch(n) for n in range(6)]
        if how == "a list as completed":
            for one in asyncio.as_completed(branches):
                await one
        elif how == "a set as completed":
            for one in asyncio.as_completed({*branches}):
                await one
        elif how == "tasks and others as completed":
            mixed = [asyncio.create_task(one) if n % 2 else one for n, one in enumerate(branches)]
            for one in asyncio.as_completed(mixed, timeout=60):
                await one
        elif how == "beside a library's":
            await connect()
            await asyncio.gather(*branches)
        elif how == "in wait_for without a limit":

            async def within() -> None:
                await asyncio.gather(*branches)

            await asyncio.wait_for(within(), None)
        else:
            loop = asyncio.get_running_loop()
            before = loop.get_task_factory()
            loop.set_task_factory(others if how == "another factory" else lambda *a, **how: before(*a, **how))  # type: ignore[misc]
            tasks = [asyncio.create_task(one) for one in branches]
            loop.set_task_factory(before)
            await asyncio.gather(*tasks)
        drawn.append(mine)
        if ctx.attempt < 3:
            raise ConnectionError("again")


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    drawn.clear()
    connected.clear()
    async with Client(url, namespace=namespace, machines=[Apart]) as opened:
        yield opened


@pytest.mark.parametrize(
    "how",
    [
        "a list as completed",
        "a set as completed",
        "tasks and others as completed",
        "beside a library's",
        "in wait_for without a limit",
        "another factory",
        "a factory around ours",
    ],
)
async def test_each_branch_draws_what_it_has_drawn(client: Client, url: str, namespace: str, how: str) -> None:
    async with working(url, namespace, Apart):
        await client.call(Apart.draws("a", how=how), timeout=30)
    first, second, third = drawn
    assert first == second == third
    assert len(set(first.values())) == 6
