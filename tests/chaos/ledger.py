"""The machine under test: each applied command is a link of its key's chain, so one value tells what happened, and in which order.

Steps leave lines in the file that ``LEDGER_EFFECTS`` names: what they did to the outside world. Where ``LEDGER_CODE`` is ``former`` the
machine is that of an older version of the code, which knows neither ``apply_noted`` nor the field ``noted``.
"""

from __future__ import annotations

import asyncio
import os
import time
from enum import StrEnum

import msgspec

from statemq import Context, Fail, Machine, Reject, transition
from statemq.testing.chain import Chain, link
from statemq.testing.evidence import Asked, Ended, Woke

EFFECTS = "LEDGER_EFFECTS"
CODE, FORMER = "LEDGER_CODE", "former"
IS_FORMER = os.environ.get(CODE) == FORMER
STEPS = ("first", "second")
FAILS_EVERY = 3
CHILD_S = 4.0
"""How long the child of a step outlives it."""
NEVER_S = 3600.0


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
    if not IS_FORMER:
        noted: int = 0
        """How often ``apply_noted`` was applied."""


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
        await _nap(ctx, sleep_ms)
        await ctx.step("second", effect, ctx.command_id, "second", 0)
        self.data.last = self.data.last.next(ctx.command_id, x)
        return self.data.last

    @transition(source=Phase.OPEN)
    async def apply_branches(self, ctx: Context, x: int, sleep_ms: int) -> Link:
        """A step beside a sleep, and a step in a race that it wins against a sleep of an hour."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_nap(ctx, sleep_ms))
            group.create_task(ctx.step("first", effect, ctx.command_id, "first", sleep_ms // 2))
        step = asyncio.ensure_future(ctx.step("second", effect, ctx.command_id, "second", 0))
        never = asyncio.ensure_future(ctx.sleep(NEVER_S))
        await asyncio.wait([step, never], return_when=asyncio.FIRST_COMPLETED)
        never.cancel()
        await step
        self.data.last = self.data.last.next(ctx.command_id, x)
        return self.data.last

    @transition(source=Phase.OPEN)
    async def apply_forked(self, ctx: Context, x: int) -> Link:
        """Its first step leaves a child of the worker's behind."""
        await ctx.step("first", forked, ctx.command_id)
        await ctx.step("second", effect, ctx.command_id, "second", 0)
        self.data.last = self.data.last.next(ctx.command_id, x)
        return self.data.last

    if not IS_FORMER:

        @transition(source=Phase.OPEN)
        def apply_noted(self, ctx: Context, x: int) -> Link:
            """Known to the present code only; it counts in a field that the former code does not know."""
            self.data.noted += 1
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


async def _nap(ctx: Context, sleep_ms: int) -> None:
    _write(Asked(ctx.command_id, os.getpid(), time.monotonic(), sleep_ms / 1000))
    await ctx.sleep(sleep_ms / 1000)
    _write(Woke(ctx.command_id, os.getpid(), time.monotonic()))


async def effect(command_id: str, step: str, pause_ms: int) -> str:
    """A line when it begins and one when it ends."""
    begun = _begin(command_id, step)
    await asyncio.sleep(pause_ms / 1000)
    _write(Ended(command_id, step, begun.pid, begun.at_s, time.monotonic()))
    return step


def forked(command_id: str) -> str:
    """The first step, whose child goes on for a while when it has ended, and also when its worker is dead."""
    begun = _begin(command_id, "first")
    if os.fork() == 0:
        time.sleep(CHILD_S)
        os._exit(0)
    _write(Ended(command_id, "first", begun.pid, begun.at_s, time.monotonic()))
    return "first"


def _begin(command_id: str, step: str) -> Effect:
    begun = Effect(command_id, step, os.getpid(), time.monotonic(), time.time_ns() // 1_000_000)
    _write(begun)
    return begun


def _write(record: msgspec.Struct) -> None:
    """One line, written at once: many processes append to the file."""
    file = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, msgspec.json.encode(record) + b"\n")
    finally:
        os.close(file)
