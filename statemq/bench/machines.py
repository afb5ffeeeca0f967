"""The machines that are measured. Each counts in its data what was done to it, so that nothing can be lost unseen."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from statemq.context import Context
from statemq.declaration.handlers import transition
from statemq.machine import Machine

STEPS = ("one", "two", "three")


class Side(StrEnum):
    OFF = "OFF"
    ON = "ON"


class Count(msgspec.Struct):
    count: int = 0


class Flip(Machine[Count, Side], initial=Side.OFF):
    """Off, on, off. ``flip`` is pure; ``work`` does the same after three recorded steps. Both answer with the count."""

    @transition(source=Side.OFF, target=Side.ON)
    def flip(self, ctx: Context) -> int:
        self.data.count += 1
        return self.data.count

    @flip.when(Side.ON, target=Side.OFF)
    def flip_back(self, ctx: Context) -> int:
        self.data.count += 1
        return self.data.count

    @transition(source=Side.OFF, target=Side.ON)
    async def work(self, ctx: Context) -> int:
        for name in STEPS:
            await ctx.step(name, nothing)
        self.data.count += 1
        return self.data.count

    @work.when(Side.ON, target=Side.OFF)
    async def work_back(self, ctx: Context) -> int:
        for name in STEPS:
            await ctx.step(name, nothing)
        self.data.count += 1
        return self.data.count


class Told(Flip, initial=Side.OFF):
    """For a worker that logs each transition."""


class Wide(Flip, initial=Side.OFF, partitions=64): ...


class Ten0(Flip, initial=Side.OFF): ...


class Ten1(Flip, initial=Side.OFF): ...


class Ten2(Flip, initial=Side.OFF): ...


class Ten3(Flip, initial=Side.OFF): ...


class Ten4(Flip, initial=Side.OFF): ...


class Ten5(Flip, initial=Side.OFF): ...


class Ten6(Flip, initial=Side.OFF): ...


class Ten7(Flip, initial=Side.OFF): ...


class Ten8(Flip, initial=Side.OFF): ...


class Ten9(Flip, initial=Side.OFF): ...


class Filled(msgspec.Struct):
    count: int = 0
    note: str = ""


class Pile(Machine[Filled, Side], initial=Side.OFF):
    """Instances in masses: 50 bytes of arguments in, 100 bytes of data kept."""

    @transition(source=Side.OFF, target=Side.ON)
    def fill(self, ctx: Context, note: str = "") -> int:
        self.data.note = note * 2 + "."
        self.data.count += 1
        return self.data.count

    @transition(source=Side.OFF, target=Side.ON)
    def flip(self, ctx: Context) -> int:
        self.data.count += 1
        return self.data.count

    @flip.when(Side.ON, target=Side.OFF)
    def flip_back(self, ctx: Context) -> int:
        self.data.count += 1
        return self.data.count


class Twin(Pile, initial=Side.OFF):
    """The same with next to no instances, to compare with."""


class Few(Pile, initial=Side.OFF):
    """The same with a small backlog, to compare with."""


NOTE = "n" * 39
"""Makes the arguments of ``fill`` 50 bytes and the data 100 as JSON."""

MACHINES: dict[str, type[Any]] = {
    cls.__name__: cls for cls in (Flip, Told, Wide, Pile, Twin, Few, Ten0, Ten1, Ten2, Ten3, Ten4, Ten5, Ten6, Ten7, Ten8, Ten9)
}

TENS = tuple(name for name in MACHINES if name.startswith("Ten"))


def target(name: str) -> str:
    """As ``statemq worker`` and ``statemq serve`` are told of it."""
    return f"{__name__}:{name}"


async def nothing() -> int:
    return 1
