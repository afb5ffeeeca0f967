"""The machine under test: each applied command is a link of its key's chain, so one value tells what happened, and in which order.

Steps leave a line in the file that ``LEDGER_EFFECTS`` names: what they did to the outside world.
"""

from __future__ import annotations

import asyncio
import os
import time
from enum import StrEnum

import msgspec

from statemq import Context, Fail, Machine, Reject, transition
from statemq.testing.chain import Chain, link

EFFECTS = "LEDGER_EFFECTS"
STEPS = ("first", "second")
FAILS_EVERY = 3


class Phase(StrEnum):
    OPEN = "OPEN"


class Link(msgspec.Struct, frozen=True):
    """How many commands were applied, and a digest of all of them in order."""

    n: int = 0
    chain: str = ""

    def next(self, command_id: str, x: int) -> Link:
        return Link(self.n + 1, link(self.chain, command_id, x))


class Book(msgspec.Struct):
    last: Link = Link()


class Effect(msgspec.Struct, frozen=True, tag="effect"):
    """A step's body began; a line that ``statemq.testing`` reads, too. ``wall_ms`` is the server's clock: they share a host."""

    id: str
    step: str
    pid: int
    at_s: float
    wall_ms: int


class Ledger(Machine[Book, Phase], initial=Phase.OPEN, partitions=8):
    @transition(source=Phase.OPEN)
    def apply(self, ctx: Context, x: int) -> Link:
        """Pure."""
        self.data.last = self.data.last.next(ctx.command_id, x)
        return self.data.last

    @transition(source=Phase.OPEN)
    async def apply_steps(self, ctx: Context, x: int, pause_ms: int = 0) -> Link:
        """Two recorded steps; the second one takes its time."""
        await ctx.step("first", effect, ctx.command_id, "first", 0)
        await ctx.step("second", effect, ctx.command_id, "second", pause_ms)
        self.data.last = self.data.last.next(ctx.command_id, x)
        return self.data.last

    @transition(source=Phase.OPEN)
    async def apply_slowly(self, ctx: Context, x: int, sleep_ms: int) -> Link:
        """A durable sleep between two steps."""
        await ctx.step("first", effect, ctx.command_id, "first", 0)
        await ctx.sleep(sleep_ms / 1000)
        await ctx.step("second", effect, ctx.command_id, "second", 0)
        self.data.last = self.data.last.next(ctx.command_id, x)
        return self.data.last

    @transition(source=Phase.OPEN)
    def refuse(self, ctx: Context, x: int) -> Link:
        raise Reject(f"{x} is refused")

    @transition(source=Phase.OPEN)
    def fail(self, ctx: Context, x: int) -> Link:
        """Fails for good now and then."""
        if x % FAILS_EVERY == 0:
            raise Fail(f"{x} fails")
        self.data.last = self.data.last.next(ctx.command_id, x)
        return self.data.last


def ends(transition: str, x: int) -> str:
    """The outcome that the model demands."""
    if transition == "refuse":
        return "rejected"
    return "failed" if transition == "fail" and x % FAILS_EVERY == 0 else "completed"


MODEL = Chain(lambda transition, x: ends(transition, x) == "completed")


async def effect(command_id: str, step: str, pause_ms: int) -> str:
    """One line, written at once: many processes append to the file."""
    line = msgspec.json.encode(Effect(command_id, step, os.getpid(), time.monotonic(), time.time_ns() // 1_000_000))
    file = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line + b"\n")
    finally:
        os.close(file)
    await asyncio.sleep(pause_ms / 1000)
    return step
