"""The smallest machine: a switch that counts how often it was flipped. Benchmarks and tests use it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from statemq import ANY, Context, Machine, query, transition


class Position(StrEnum):
    OFF = "OFF"
    ON = "ON"


class Count(msgspec.Struct):
    flips: int = 0


class Switch(Machine[Count, Position], initial=Position.OFF):
    @transition(source=Position.OFF, target=Position.ON)
    def flip(self, ctx: Context) -> int:
        """To the other side; the answer is how often it was flipped."""
        self.data.flips += 1
        return self.data.flips

    @flip.when(Position.ON, target=Position.OFF)
    def flip_back(self, ctx: Context) -> int:
        self.data.flips += 1
        return self.data.flips

    @transition(source=ANY)
    async def steps(self, ctx: Context) -> int:
        """Three recorded steps; the answer is their sum."""
        first = await ctx.step("one", add, 0, 1)
        second = await ctx.step("two", add, first, 2)
        return await ctx.step("three", add, second, 3)

    @query
    def flips(self) -> int:
        return self.data.flips


async def add(a: int, b: int) -> int:
    return a + b
