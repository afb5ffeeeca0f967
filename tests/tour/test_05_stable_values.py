"""``ctx.now``, ``uuid``, ``random`` and ``step_key`` are the same at each attempt; ``attempt`` is not."""

from __future__ import annotations

from typing import Any

from statemq import Client, Context, Machine, Retry, transition
from tests.working import working

seen: list[list[Any]] = []


class Dice(Machine[None], initial="still", retry=Retry(first=0.005, jitter=0), partitions=2):
    @transition(source="still")
    async def roll(self, ctx: Context) -> int:
        began = ctx.now()
        await ctx.step("throw", lambda: None)
        seen.append([began, ctx.now(), ctx.uuid(), ctx.uuid(), ctx.random.random(), ctx.random.random(), ctx.step_key("throw")])
        if ctx.attempt < 3:
            raise ConnectionError("off the table")
        return ctx.attempt


async def test_a_replay_decides_as_the_first_attempt_did(client: Client, url: str, namespace: str) -> None:
    seen.clear()
    async with working(url, namespace, Dice):
        handle = await client.send(Dice.roll("d6"))
        assert await handle.result(timeout=20) == 3
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]
    began, after, first, second, one, other, key = seen[0]
    assert began <= after
    assert first != second and one != other
    assert key == f"{handle.id}/throw"


async def test_another_command_has_its_own(client: Client, url: str, namespace: str) -> None:
    seen.clear()
    async with working(url, namespace, Dice):
        await client.call(Dice.roll("d6"), timeout=20)
        await client.call(Dice.roll("d6"), timeout=20)
    assert seen[0][2:] != seen[-1][2:]
