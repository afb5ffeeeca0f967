"""Type checkers accept all of this (checked by test_typing, and run by it too)."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any, ClassVar, TypeVar, assert_type

import msgspec

from statemq import ANY, Client, Command, Context, Instance, Machine, Question, Reject, Retry, query, sync, transition
from statemq.examples.resource import Resource
from statemq.examples.switch import Switch


class Status(StrEnum):
    NEW = "NEW"
    PAID = "PAID"
    LOST = "LOST"


class Line(msgspec.Struct):
    sku: str
    count: int = 1


class Order(msgspec.Struct):
    lines: list[Line] = []
    paid: int = 0


def enough(order: Orders, amount: int) -> bool:
    """the amount must be positive"""
    return amount > 0


async def charge(amount: int, key: str) -> str:
    return f"{key}:{amount}"


def note(text: str) -> int:
    return len(text)


class Orders(Machine[Order, Status], initial=Status.NEW, final={Status.LOST}, retry=Retry(attempts=3), on_failure="pause"):
    @transition(source=Status.NEW, target=[Status.PAID, Status.LOST], guard=enough, name="payNow", retry=Retry(attempts=2))
    async def pay(self, ctx: Context, amount: int, note_text: str = "", *, lines: list[Line] | None = None) -> Line:
        receipt = await ctx.step("charge", charge, amount, ctx.step_key("charge"))
        assert_type(receipt, str)
        length = await ctx.step("note", note, note_text, retry=Retry(attempts=2), timeout=3)
        assert_type(length, int)
        assert_type(self.state, Status)
        assert_type(self.data, Order)
        self.state = Status.PAID if length else Status.LOST
        if self.total() > 100:
            raise Reject("too much")
        return Line(receipt)

    @pay.when([Status.PAID])
    def paid_before(self, ctx: Context, amount: int, note_text: str = "", *, lines: list[Line] | None = None) -> Line:
        return Line("paid")

    @transition(source=ANY)
    def touch(self) -> None:
        self.data.paid += 1

    @query
    def total(self) -> int:
        return self.data.paid

    @query
    def over(self, limit: int) -> bool:
        return self.total() > limit


class DataOnly(Machine[Order], initial="a"):
    @transition(source="a", target="b")
    def go(self, ctx: Context) -> str:
        self.state = "b"
        return self.data.lines[0].sku


class Bare(Machine, initial="a"):
    @transition(source="a", target="b")
    async def go(self, ctx: Context, wait: float = 1) -> None:
        await ctx.sleep(wait)


class Side(Enum):
    """A state need not be a text for Python."""

    OFF = "off"
    ON = "on"


class Lamp(Machine[None, Side], initial=Side.OFF, final=[Side.ON]):
    @transition(source=Side.OFF, target=Side.ON)
    def light(self) -> Side:
        assert_type(self.state, Side)
        self.state = Side.ON
        return self.state


async def seen(client: Client, blocking: sync.Client, machine: str) -> None:
    """The class's data and answers, of either client; by name whatever is there."""
    assert_type(await client.get(Orders, "a"), Instance[Order])
    assert_type((await client.get(DataOnly, "a")).data.lines[0].count, int)
    assert_type((await client.get(Bare, "a")).data, None)
    assert_type((await client.get(machine, "a")).data, Any)
    assert_type(await client.query(Orders.over("a", limit=3)), bool)
    assert_type(await client.query(Orders.total("a")), int)
    assert_type(await client.query(machine, "a", "total"), Any)
    assert_type(blocking.get(Orders, "a").data, Order)
    assert_type(blocking.get(machine, "a").data, Any)
    assert_type(blocking.query(Orders.over("a", 3)), bool)
    assert_type(blocking.query(Orders, "a", "over", {"limit": 3}), Any)
    former: Instance = await client.get(Orders, "a")
    assert_type(former.data, Any)


async def lit(client: Client) -> list[str]:
    assert_type(await client.call(Lamp.light("a"), if_state=Side.OFF), Side)
    return [row.key for row in await client.list(Lamp, state=Side.ON)]


D = TypeVar("D", bound=msgspec.Struct)
S = TypeVar("S", bound=Enum)


class Audited(Machine[D, S], retry=Retry(attempts=2), on_failure="pause", partitions=4):
    """A base of machines."""

    seen: ClassVar[int] = 0

    @transition(source=ANY)
    def note(self, text: str) -> int:
        return len(text)


class Bench(Audited[Order, Side], initial=Side.OFF, partitions=8):
    @transition(source=Side.OFF, target=Side.ON)
    def put(self) -> int:
        assert_type(self.state, Side)
        assert_type(self.data, Order)
        return self.data.paid


class LongBench(Bench, final=Side.ON):
    pass


assert_type(Bench.note("a", "x"), Command[int])
assert_type(LongBench.put("a"), Command[int])
assert_type(Orders.pay("a", 3), Command[Line])
assert_type(Orders.pay("a", amount=3, lines=[Line("x")]), Command[Line])
assert_type(Orders.touch("a"), Command[None])
assert_type(Orders.total("a"), Question[int])
assert_type(Orders.over("a", 3), Question[bool])
assert_type(Bare.go("a", wait=2.5), Command[None])
assert_type(DataOnly.go("a"), Command[str])
assert_type(Resource.setUp("a"), Command[str])
assert_type(Switch.flip("a"), Command[int])
