"""A worker process whose body has branches; run as ``python -m tests.faults.branchy URL NAMESPACE``."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from statemq import Context, Machine, transition
from statemq.worker.daemon import Worker

FOLDER = "BRANCHY_FOLDER"
"""Environment: what began is written to its ``log``; the long step ends when its ``end`` is there."""


def note(name: str, drawn: str = "") -> None:
    with (Path(os.environ[FOLDER]) / "log").open("a") as file:
        file.write(f"{os.getpid()} {name} {drawn}\n")


async def work(name: str, drawn: str = "") -> str:
    note(name, drawn)
    return name


async def long(name: str, drawn: str) -> str:
    note(name, drawn)
    while not (Path(os.environ[FOLDER]) / "end").exists():
        await asyncio.sleep(0.01)
    return name


class Branchy(Machine[None], initial="on", partitions=1):
    @transition(source="on")
    async def branch(self, ctx: Context) -> list[str]:
        async def drawn(name: str, s: float) -> str:
            await asyncio.sleep(0.05 * (os.getpid() % 3))  # the branches come to their steps in another order
            await ctx.sleep(s)
            return await ctx.step(name, work, name, f"{ctx.uuid()} {ctx.random.random()} {ctx.now()}")

        async def races() -> str:
            step, limit = asyncio.ensure_future(ctx.step("quick", work, "quick")), asyncio.ensure_future(ctx.sleep(1.0))
            done, _ = await asyncio.wait({step, limit}, return_when=asyncio.FIRST_COMPLETED)
            limit.cancel()
            await ctx.sleep(1.5)  # when it is played again, the sleep that lost is over
            won = "step" if limit not in done else "sleep"
            return await ctx.step(f"{won} won", work, f"{won} won")

        async def bounded() -> str:
            try:
                async with ctx.timeout(1.0):
                    await ctx.sleep(600)
            except TimeoutError:
                return await ctx.step("late", work, "late")
            return "in time"

        async def longest() -> str:
            return await ctx.step("long", long, "long", f"{ctx.uuid()} {ctx.now()}")

        return list(await asyncio.gather(drawn("first", 0.3), drawn("second", 2.5), races(), bounded(), longest()))


if __name__ == "__main__":
    asyncio.run(Worker([Branchy], sys.argv[1], namespace=sys.argv[2]).run())
