"""The machine of the client's tests; nothing runs it but a fake worker."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from statemq import Context, Machine, query, transition


class Status(StrEnum):
    SHUT = "SHUT"
    OPEN = "OPEN"


class Data(msgspec.Struct):
    width: int = 0


class Door(Machine[Data, Status], initial=Status.SHUT, partitions=4):
    def _not_stuck(self, width: int = 1) -> bool:
        """the door is stuck"""
        return width < 100

    @transition(source=Status.SHUT, target=Status.OPEN, guard=_not_stuck)
    async def open(self, ctx: Context, width: int = 1) -> str:
        self.data.width = width
        return f"{ctx.key} is open"

    @transition(source=Status.OPEN, target=Status.SHUT)
    def shut(self, ctx: Context) -> str:
        return f"{ctx.key} is shut"

    @query
    def lies(self) -> int:
        return "five"  # type: ignore[return-value]

    @query
    def infinite(self) -> float:
        return float("inf")

    @query
    def passes(self, width: int) -> bool:
        return self.state == Status.OPEN and self.data.width >= width
