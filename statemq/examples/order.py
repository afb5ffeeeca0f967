"""An order: paid, then shipped. `statemq init` writes this file as one to start from.

statemq dev order.py                          # runs it here, Redis included; leave it running
statemq call order o-1 pay cents=1200         # a transition; waits for the result
statemq call order o-1 ship address=Paris
statemq get order o-1                         # state, version, data
statemq query order o-1 summary
statemq call order o-1 pay cents=1            # refused: it is shipped, and says what is allowed
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from statemq import Context, Machine, Reject, query, transition


class Status(StrEnum):
    NEW = "NEW"
    PAID = "PAID"
    SHIPPED = "SHIPPED"


class Data(msgspec.Struct):
    """What an order remembers; each field needs a default."""

    cents: int = 0
    receipt: str = ""
    address: str = ""


class Order(Machine[Data, Status], initial=Status.NEW, final=Status.SHIPPED):
    @transition(source=Status.NEW, target=Status.PAID)
    async def pay(self, ctx: Context, cents: int) -> str:
        """Take the money once, whatever crashes."""
        if cents <= 0:
            raise Reject("there is nothing to pay")  # nothing changes, and the caller is told why
        # A step's result is recorded: after a crash the transition goes on behind it. The step key is the same
        # each time this step is tried, so that a payment service can recognise a repeat.
        self.data.receipt = await ctx.step("charge", charge, cents, ctx.step_key("charge"))
        self.data.cents = cents
        return f"{ctx.key} is paid"

    @transition(source=Status.PAID, target=Status.SHIPPED)
    async def ship(self, ctx: Context, address: str) -> str:
        """Pack, wait for the carrier, hand over."""
        await ctx.step("pack", pack, ctx.key)
        await ctx.sleep(2)  # durable: a crash does not begin it anew
        self.data.address = address
        return f"{ctx.key} is on its way to {address}"

    @query
    def summary(self) -> str:
        """Answered from the last committed state, also while a transition runs."""
        paid = f", {self.data.cents / 100:.2f} paid" if self.data.cents else ""
        return f"{self.key} is {self.state}{paid}"


async def charge(cents: int, request: str) -> str:
    return f"receipt-{request.partition('/')[0][-8:]}"


def pack(order: str) -> None:
    """Not `async def`: it runs in a thread, and may block."""
