"""What the HTTP tests serve: quick, slow, refusing and failing transitions."""

from __future__ import annotations

from typing import Any

import msgspec

from statemq import Context, Fail, Machine, Reject, query, transition


class Data(msgspec.Struct):
    size: int = 0


class Gate(Machine[Data], initial="DOWN", partitions=4):
    @transition(source="DOWN", target="UP")
    async def setUp(self, ctx: Context, size: int = 1) -> str:
        self.data.size = await ctx.step("measure", measure, size)
        return f"{ctx.key} is now UP"

    @setUp.when("UP")
    def already_up(self, ctx: Context, size: int = 1) -> str:
        return f"{ctx.key} is already UP"

    @transition(source="UP", target="DOWN")
    def tearDown(self, ctx: Context) -> str:
        return f"{ctx.key} is now DOWN"

    @transition(source=("DOWN", "UP"))
    async def hold(self, ctx: Context) -> None:
        """Ends only by being cancelled."""
        await ctx.step("measure", measure, 7)
        await ctx.sleep(3600)

    @transition(source=("DOWN", "UP"))
    def refuse(self, ctx: Context) -> None:
        raise Reject("balance 3 < 5", code="funds")

    @transition(source=("DOWN", "UP"))
    def fail(self, ctx: Context) -> None:
        raise Fail("the card is stolen", code="stolen")

    @transition(source=("DOWN", "UP"))
    def keep(self, ctx: Context, what: Any = None) -> Any:
        return what

    @query
    def room(self, least: int = 0) -> dict[str, int]:
        return {"room": max(self.data.size, least)}


def measure(size: int) -> int:
    return size
