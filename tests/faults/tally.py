"""The machine of the fault tests: an instance's log tells which commands were applied, and in which order."""

from __future__ import annotations

import msgspec

from statemq import Context, Machine, Retry, transition


class Log(msgspec.Struct):
    log: list[int] = []


class Tally(Machine[Log], initial="open", partitions=4, retry=Retry(first=0.01, jitter=0)):
    @transition(source="open")
    def add(self, n: int) -> int:
        """Pure."""
        self.data.log.append(n)
        return n

    @transition(source="open")
    async def step(self, ctx: Context, n: int) -> int:
        """With a recorded step."""
        self.data.log.append(await ctx.step("one", lambda: n))
        return n

    @transition(source="open")
    async def nap(self, ctx: Context, n: int, ms: int) -> int:
        """With a durable sleep."""
        await ctx.sleep(ms / 1000)
        self.data.log.append(n)
        return n

    @transition(source="open")
    async def echo(self, ctx: Context, n: int) -> list[int]:
        """What it was asked, and nothing changes; the step makes it visit the store."""
        return [await ctx.step("one", lambda: n)]

    @transition(source="open")
    def ping(self) -> str:
        return self.key
