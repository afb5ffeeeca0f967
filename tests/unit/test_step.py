"""What a step knows of its function, and what it makes of a result."""

from __future__ import annotations

import dataclasses
import functools
import gc
import typing
import uuid
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Generic, NewType, Optional, Self, TypeVar
from unittest.mock import AsyncMock

import msgspec
import pytest

from statemq import Fail
from statemq.errors import StepConflict
from statemq.worker.returned import Partly, Unknown, encode_result, read_result
from statemq.worker.step import asked

if TYPE_CHECKING:
    from elsewhere import Nowhere  # type: ignore[import-not-found]

T = TypeVar("T")


class Shop:
    async def pay(self, cents: int = 0) -> int:
        return cents

    def close(self) -> None: ...

    async def __call__(self) -> str:
        return ""

    @classmethod
    def opened(cls, on: Nowhere) -> Self:
        return cls()

    @staticmethod
    async def found(on: Nowhere) -> date:
        return date(2026, 11, 30)

    class Till(msgspec.Struct):
        cents: int = 0

    def till(self) -> Till:
        return Shop.Till()


class Receipt(msgspec.Struct):
    total: int = 0

    @classmethod
    def of(cls, total: int) -> Self:
        return cls(total)


class Box(msgspec.Struct, Generic[T]):
    item: T


class Colour(StrEnum):
    RED = "red"


class Number(Enum):
    ONE = 1


@dataclasses.dataclass
class Point:
    x: int = 0


class Row(typing.NamedTuple):
    a: int
    b: str


class Loose(typing.TypedDict):
    a: int


UserId = NewType("UserId", int)


class Made:
    """An object that can be called, with an attribute that its annotation names."""

    returned: int = 0

    def __call__(self, n: Nowhere) -> Receipt:
        return Receipt(n)


def plain(): ...  # type: ignore[no-untyped-def]


def unreadable() -> Nowhere: ...  # type: ignore[empty-body]


def prose(amount: "in cents, or so") -> int: ...  # type: ignore[syntax]  # noqa: F722


def divides(amount: 1 / 0) -> int: ...  # type: ignore[valid-type]


def half_read(rows: Nowhere, *more: Nowhere) -> list[Receipt]: ...  # type: ignore[empty-body]


def promises(n: int) -> Awaitable[Receipt]: ...  # type: ignore[empty-body]


def maybe(n: int) -> Optional[Receipt]: ...  # noqa: UP045


def first(items: list[T]) -> T: ...  # type: ignore[empty-body]


def many(items: list[T]) -> list[T]: ...  # type: ignore[empty-body]


def rows() -> dict[str, Any]: ...  # type: ignore[empty-body]


def streams() -> Iterator[int]: ...  # type: ignore[empty-body]


@functools.cache
def cached(n: int) -> Receipt:
    return Receipt(n)


def logged(fn: Callable[..., T]) -> Callable[..., T]:
    @functools.wraps(fn)
    def inner(*args: Any) -> T:
        return fn(*args)

    return inner


def within() -> Callable[[], Any]:
    class Local(msgspec.Struct):
        n: int = 0

    def make() -> Local:
        return Local(3)

    return make


@dataclasses.dataclass
class Unhashable:
    async def __call__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("fn", "is_async", "returns"),
    [
        (Shop().pay, True, int),
        (functools.partial(functools.partial(Shop().pay), cents=3), True, int),
        (Shop().close, False, type(None)),
        (Shop(), True, str),
        (Shop, False, Unknown),
        (Shop.opened, False, Unknown),
        (Shop.found, True, date),
        (Shop().till, False, Shop.Till),
        (Receipt.of, False, Receipt),
        (functools.partial(Receipt, 3), False, Receipt),
        (Made(), False, Receipt),
        (plain, False, Unknown),
        (unreadable, False, Unknown),
        (len, False, Unknown),
        (prose, False, int),
        (divides, False, int),
        (half_read, False, list[Receipt]),
        (promises, False, Receipt),
        (maybe, False, Receipt | None),
        (first, False, Unknown),
        (streams, False, Unknown),
        (cached, False, Receipt),
        (logged(half_read), False, list[Receipt]),
        (within(), False, None),
        (Unhashable(), True, int),
        (functools.partial(Unhashable()), True, int),
        (AsyncMock(), True, Unknown),
        (lambda: Receipt(), False, Unknown),
        (Receipt, False, Receipt),
        (Point, False, Point),
        (Row, False, Row),
        (Loose, False, Loose),
        (Box[int], False, Box[int]),
        (UserId, False, UserId),
        (Number, False, Number),
        (Decimal, False, Decimal),
        (set, False, Partly(set)),
        (rows, False, Partly(dict[str, Any])),
        (many, False, Partly(list[T])),
        (Box, False, Partly(Box)),
        (uuid.UUID, False, uuid.UUID),
        (uuid.uuid4, False, uuid.UUID),
        (uuid.uuid5, False, uuid.UUID),
        (datetime.now, False, datetime),
        (date.fromisoformat, False, date),
        (bytes.fromhex, False, bytes),
        ("x".upper, False, Unknown),
    ],
)
def test_how_it_is_called_and_what_it_returns(fn: Callable[..., Any], is_async: bool, returns: Any) -> None:
    step = asked("a", fn, (), None, None, None)
    if returns is None:
        returns = type(fn())
    assert (step.is_async, step.returns) == (is_async, returns)
    assert asked("a", fn, (), None, None, str).returns is str


@pytest.mark.parametrize("returns", [Shop, Iterator[int], "int", 3])
def test_a_type_that_json_cannot_carry_is_told_at_once(returns: Any) -> None:
    with pytest.raises(Fail, match="JSON cannot carry returns="):
        asked("a", plain, (), None, None, returns)


def test_a_call_is_no_function() -> None:
    with pytest.raises(Fail, match=r"step a was given coroutine, not a function: write ctx.step\('a', function, \*arguments\)"):
        asked("a", Shop().pay(), (), None, None, None)
    with pytest.raises(Fail, match="step a was given Receipt"):
        asked("a", Receipt(), (), None, None, None)


@pytest.mark.parametrize(
    ("fn", "value"),
    [
        (Receipt, Receipt(3)),
        (functools.partial(Receipt, 3), Receipt(3)),
        (Receipt.of, Receipt(4)),
        (Made(), Receipt(5)),
        (half_read, [Receipt(1), Receipt(2)]),
        (maybe, None),
        (maybe, Receipt(1)),
        (Point, Point(2)),
        (Row, Row(1, "b")),
        (Loose, Loose(a=1)),
        (Box[int], Box(1)),
        (UserId, 7),
        (Number, Number.ONE),
        (Colour, Colour.RED),
        (Decimal, Decimal("1.50")),
        (set, {1, 2}),
        (tuple, (1, "a")),
        (uuid.uuid4, uuid.uuid4()),
        (datetime.now, datetime(2026, 11, 30, 1, 2, 3, 4, tzinfo=UTC)),
        (bytes.fromhex, b"\x00\xff"),
        (plain, {"a": [1, 2.5, None, True, {"b": "c"}]}),
        (plain, 2**80),
        (lambda: 1, [[], {}]),
        (len, 3),
    ],
)
def test_what_comes_back_is_what_was_returned(fn: Callable[..., Any], value: Any) -> None:
    returns = asked("a", fn, (), None, None, None).returns
    back = read_result("a", returns, encode_result("a", returns, value))
    assert back == value
    assert type(back) is type(value)


class Later:
    def __await__(self) -> Any:
        yield


def numbers() -> Iterator[int]:
    yield 1


async def stream() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (uuid.uuid4(), "returned a UUID, and nothing says so"),
        (Receipt(1), "returned a Receipt, and"),
        ((1, b"2"), "returned a tuple with a bytes in it, and"),
        (Row(1, "b"), "returned a Row, and"),
        ({"rows": [{"at": datetime(2026, 11, 30, tzinfo=UTC)}]}, "returned a dict with a datetime in it, and"),
        ({1: "a"}, "returned a dict with an int in it, and"),
        ([Colour.RED], "returned a list with a Colour in it, and"),
        (defaultdict(int), "returned a defaultdict, and"),
        ({1, 2}, "returned a set, and"),
        (b"a", "returned a bytes, and"),
        (Decimal(1), "returned a Decimal, and"),
        (numbers(), "returned a generator: collect its values"),
        (stream(), "returned an async generator: collect its values"),
        (Shop().pay(), "returned a coroutine that nobody has awaited"),
        (Later(), "returned Later, an awaitable, that nobody has awaited"),
        (object(), "returned what JSON cannot hold"),
    ],
)
def test_what_would_not_come_back_as_it_was_is_refused(value: Any, shown: str) -> None:
    """Where nothing says its type."""
    with pytest.raises(Fail, match=shown):
        encode_result("a", Unknown, value)


@pytest.mark.parametrize(
    ("said", "value", "shown"),
    [
        (dict[str, Any], {"id": uuid.UUID(int=1)}, "returned a dict with a UUID in it, and dict"),
        (list[T], [date(2026, 11, 30)], "returned a list with a date in it, and list"),
        (T | None, Receipt(1), "returned a Receipt, and"),
        (Box[T], Box(Decimal(1)), "returned a Box with a Decimal in it, and"),
        (dict, {1: "a"}, "returned a dict with an int in it, and dict"),
        (set, {uuid.UUID(int=1)}, "returned a set, and set"),
        (tuple[int, Any], (1, Receipt(1)), "returned a tuple with a Receipt in it, and tuple"),
    ],
)
def test_what_its_type_leaves_open_has_to_come_back_as_it_was(said: Any, value: Any, shown: str) -> None:
    with pytest.raises(Fail, match=shown):
        encode_result("a", Partly(said), value)
    assert encode_result("a", said, value), "whoever gives it as returns= asks for plain JSON there"


@pytest.mark.parametrize(
    ("said", "value"),
    [
        (dict[str, Any], {"a": [1, 2.5, None, {"b": "c"}]}),
        (dict[int, Any], {1: {"a": "b"}}),
        (tuple[Receipt, Any], (Receipt(1), {"a": [1]})),
        (Box[T], Box([1])),
        (dict[str, T], {"a": 1}),
    ],
)
def test_it_comes_back_as_its_type_says_where_it_says_something(said: Any, value: Any) -> None:
    back = read_result("a", Partly(said), encode_result("a", Partly(said), value))
    assert back == value
    assert type(back) is type(value)


def test_a_tuple_is_a_list_of_json() -> None:
    assert read_result("a", Unknown, encode_result("a", Unknown, ((1, "a"), []))) == [[1, "a"], []]


def test_whoever_asks_for_plain_json_gets_it() -> None:
    assert read_result("a", Any, encode_result("a", Any, Receipt(1))) == {"total": 1}


def test_a_result_of_another_type_than_declared() -> None:
    with pytest.raises(Fail, match="step a returned a str, which does not fit int: Expected int, got str; mend one of them"):
        encode_result("a", int, "x")
    with pytest.raises(Fail, match="step a returned a dict, which does not fit Receipt: total: expected int, got str"):
        encode_result("a", Receipt, {"total": "x"})


@pytest.mark.parametrize(
    ("raw", "returns", "why"),
    [
        (b'"x"', int, "step a was recorded with a text, which does not fit int: Expected int, got str"),
        (b'{"total":"x"}', Receipt, "step a was recorded with an object, which does not fit Receipt: total: expected int, got str"),
        (b"[1]", uuid.UUID, "step a was recorded with a list, which does not fit UUID"),
        (b"7", Annotated[int, msgspec.Meta(le=5)], "step a was recorded with a number, which does not fit"),
        (b"null", Receipt | int, "step a was recorded with null, which does not fit"),
    ],
)
def test_a_record_of_another_type(raw: bytes, returns: Any, why: str) -> None:
    with pytest.raises(StepConflict, match=why):
        read_result("a", returns, msgspec.Raw(raw))


def paying(shop: Shop) -> Callable[[], Any]:
    return lambda: shop.pay()


def test_what_was_a_step_is_not_kept() -> None:
    shop, other = Shop(), Shop()
    closure = paying(shop)
    kept = [weakref.ref(shop), weakref.ref(other), weakref.ref(closure)]
    for fn in (shop.pay, functools.partial(shop.pay, cents=1), other, closure):
        asked("a", fn, (), None, None, None)
    del shop, other, closure, fn
    gc.collect()
    assert [ref() for ref in kept] == [None, None, None]
