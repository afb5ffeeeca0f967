"""The machine of the worker's tests: a box with a count, and every way a body can behave."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec

from statemq import Context, Fail, Machine, Retry, transition

ran: Counter[str] = Counter()
"""What ran, by key."""

gate = asyncio.Event()
"""``gated`` waits for it; a test makes its own."""


class Data(msgspec.Struct):
    count: int = 0
    text: str = ""


async def note(key: str) -> int:
    ran[key] += 1
    return ran[key]


class Box(Machine[Data], initial="shut", retry=Retry(attempts=2, first=0.005, jitter=0), partitions=2):
    @transition(source=["shut", "open"], target="open")
    def put(self, n: int = 1) -> int:
        self.data.count += n
        return self.data.count

    @transition(source=["shut", "open"])
    async def step(self, ctx: Context, sleep: float = 0) -> int:
        noted = await ctx.step("note", note, ctx.key)
        if sleep:
            await ctx.sleep(sleep)
        self.data.count += 1
        return noted

    @transition(source=["shut", "open"])
    async def hold(self, ctx: Context) -> None:
        await ctx.step("note", note, ctx.key)
        await asyncio.sleep(3600)

    @transition(source=["shut", "open"], target="open")
    async def gated(self, ctx: Context, then: str = "") -> None:
        ran[ctx.key] += 1
        await gate.wait()
        if then == "sleep":
            await ctx.sleep(0.05)
        if then.startswith("fail"):
            raise Fail("as asked")

    @transition(source=["shut", "open"])
    async def result_of(self, ctx: Context, size: int) -> str:
        return "x" * size

    @transition(source=["shut", "open"])
    async def step_of(self, ctx: Context, size: int) -> int:
        return len(await ctx.step("big", lambda: "x" * size))

    @transition(source=["shut", "open"])
    def data_of(self, size: int) -> int:
        self.data.text = "x" * size
        return size

    @transition(source=["shut", "open"])
    def any_of(self, values: list[int], flag: bool = False) -> Any:
        return [values, flag]
