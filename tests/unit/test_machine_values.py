"""Arguments, results and data: what passes, what is refused and in which words."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
import pytest

from statemq import Command, Context, InvalidArguments, Machine, UsageError, query, transition
from statemq.declaration.operation import InvalidResult


class Colour(StrEnum):
    RED = "RED"


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Data(msgspec.Struct):
    seen: list[int] = []
    point: Point | None = None


class Box(Machine[Data], initial="new"):
    @transition(source="new")
    async def put(
        self,
        ctx: Context,
        size: int,
        colour: Colour = Colour.RED,
        tags: list[str] = [],  # noqa: B006 - each call has a copy
        *,
        at: Point | None = None,
        when: datetime | None = None,
    ) -> Point:
        """Put something in."""
        return Point(size)

    @transition(source="new")
    def text(self) -> str:
        return ""

    @transition(source="new")
    def anything(self):  # type: ignore[no-untyped-def]
        return 1

    @transition(source="new")
    def number(self) -> float:
        return 1

    @transition(source="new")
    def nothing(self) -> None: ...

    @query
    def count(self, above: int = 0) -> int:
        return sum(n > above for n in self.data.seen)


spec = Box.spec
loose: Any = Box
"""For calls that a type checker refuses."""
put, text = spec.transition("put"), spec.transition("text")


def test_a_command_is_a_value() -> None:
    command = Box.put("a", 2, tags=["x"])
    assert command == Command(Box, "a", "put", b'{"size":2,"tags":["x"]}')
    assert command == Box.put("a", tags=["x"], size=2), "written in the order of the signature"
    assert hash(command) == hash(Box.put("a", 2, tags=["x"]))
    assert str(command) == 'box/a put {"size":2,"tags":["x"]}'
    assert Box.text("a").args == b"{}"
    with pytest.raises(AttributeError):
        command.key = "b"  # type: ignore[misc]


def test_structs_enums_and_times_travel() -> None:
    command = Box.put("a", 1, Colour.RED, at=Point(1, 2), when=datetime(2026, 1, 2))  # noqa: DTZ001
    decoded = put.decode_arguments(command.args)
    assert (decoded["at"], decoded["colour"], decoded["when"]) == (Point(1, 2), Colour.RED, datetime(2026, 1, 2))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: loose.put("a"), 'argument "size" is missing'),
        (lambda: loose.put("a", "2"), "size: expected int, got str"),
        (lambda: loose.put("a", True), "size: expected int, got bool"),
        (lambda: loose.put("a", 1, sise=2), 'argument "sise" is unknown; it takes size, colour, tags, at, when'),
        (lambda: loose.put("a", 1, size=2), 'argument "size" was given twice'),
        (
            lambda: loose.put("a", 1, Colour.RED, [], Point(1)),
            "4 arguments were given by position, 3 can be; it takes size, colour, tags, at, when",
        ),
        (lambda: loose.put("a", 1, at={"x": "1"}), "at.x: expected int, got str"),
        (lambda: loose.put("a", 1, at={}), "at: object missing required field x"),
        (lambda: loose.put("a", 1, tags=[1]), "tags[0]: expected str, got int"),
        (lambda: loose.put("a", 1, colour="BLUE"), "colour: invalid enum value 'BLUE'"),
        (lambda: loose.put("a", object()), "JSON cannot hold the arguments: Encoding objects of type object is unsupported"),
        (lambda: loose.text("a", 1), "1 arguments were given by position, 0 can be; it takes no arguments"),
        (lambda: loose.text("a", x=1), 'argument "x" is unknown; it takes no arguments'),
    ],
)
def test_wrong_arguments_are_told_at_once(call: Callable[[], object], why: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        call()
    assert caught.value.why == why
    assert str(caught.value) == f"box.{caught.value.transition}: {why}"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", 'argument "size" is missing'),
        (b"[]", "arguments are a JSON object, not array"),
        (b'{"size":1', "Input data was truncated"),
        (b'{"size":1,"zoom":2}', 'argument "zoom" is unknown; it takes size, colour, tags, at, when'),
        (b'{"size":null}', "size: expected int, got null"),
        (b'{"size":1,"tags":["\xff"]}', None),
        (b'{"size":' + b"[" * 5000, None),
    ],
)
def test_raw_arguments_are_checked_again(raw: bytes, why: str | None) -> None:
    with pytest.raises(InvalidArguments) as caught:
        put.decode_arguments(raw)
    assert why is None or caught.value.why == why


def test_defaults_are_filled_in_and_never_shared() -> None:
    one = put.decode_arguments(b'{"size":1}')
    one["tags"].append("mine")
    assert put.decode_arguments(b'{"size":1}') == {"size": 1, "colour": Colour.RED, "tags": [], "at": None, "when": None}
    assert text.decode_arguments(b"{}") == text.decode_arguments(b"") == text.decode_arguments(b" {} ") == {}


def test_results_go_there_and_back() -> None:
    assert put.decode_result(put.encode_result(Point(1, 2))) == Point(1, 2)
    assert (text.encode_result("é"), spec.transition("nothing").encode_result(None)) == ('"é"'.encode(), b"null")
    assert spec.transition("anything").encode_result({"a": [1]}) == b'{"a":[1]}'
    assert spec.transition("number").decode_result(spec.transition("number").encode_result(2)) == 2.0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("put", object(), "box.put returned what JSON cannot hold: Encoding objects of type object is unsupported"),
        ("put", {"x": "1"}, "box.put returned another type than declared: x: expected int, got str"),
        ("text", 5, "box.text returned another type than declared: Expected str, got int"),
        ("text", None, "box.text returned another type than declared: Expected str, got null"),
        ("nothing", 1, "box.nothing returned another type than declared: Expected null, got int"),
        ("number", math.nan, "box.number returned what JSON cannot hold: NaN and infinities are no JSON"),
        ("text", "\ud800", None),
    ],
)
def test_a_result_of_another_type_fails_for_good(name: str, value: Any, message: str | None) -> None:
    with pytest.raises(InvalidResult) as caught:
        spec.transition(name).encode_result(value)
    assert caught.value.code == "result"
    assert message is None or caught.value.reason == message


def test_an_instance_has_data_of_its_own() -> None:
    one, two = (spec.build("a", "new", 3, b'{"seen":[1],"from a later version":true}') for _ in range(2))
    one.data.seen.append(2)
    assert (one.key, one.state, one.version, two.data.seen) == ("a", "new", 3, [1])
    assert spec.build("a", "new", 0, None).data == spec.build("a", "new", 0, b"").data == Data()
    assert spec.decode_data(spec.encode_data(one)).seen == [1, 2]
    assert spec.new_data() == b'{"seen":[],"point":null}'


def test_data_that_could_not_be_read_back_is_never_kept() -> None:
    instance = spec.build("a", "new", 1, None)
    instance.data.seen.append("two")
    with pytest.raises(InvalidResult, match=r"^box/a: self\.data does not fit Data: seen\[0\]: expected int, got str$"):
        spec.encode_data(instance)
    instance.data = {"seen": []}
    with pytest.raises(InvalidResult, match=r"^box/a: self\.data is dict, not Data$"):
        spec.encode_data(instance)


def test_what_another_version_stored() -> None:
    with pytest.raises(ValueError, match=r"^box/a: the stored data does not fit Data: seen: expected array, got int$"):
        spec.build("a", "new", 1, b'{"seen":1}')
    with pytest.raises(ValueError, match=r"^box/a is in state old, which this version of box does not declare$"):
        spec.build("a", "old", 1, None)


def test_a_machine_without_data() -> None:
    class Bare(Machine, initial="x"):
        pass

    instance = Bare.spec.build("a", "x", 0, None)
    assert (instance.data, Bare.spec.new_data(), Bare.spec.encode_data(instance)) == (None, None, b"")


def test_queries_read_a_snapshot() -> None:
    instance = spec.build("a", "new", 1, b'{"seen":[1,5]}')
    count = spec.query("count")
    assert count.fn(instance, **count.decode_arguments(b'{"above":2}')) == 1
    assert instance.count() == 2, "a body may ask too"


def test_instances_are_made_by_workers() -> None:
    with pytest.raises(TypeError, match=r"the worker makes each Box; to ask something of one, send Box\.<transition>"):
        Box()
    loose: Any = transition(source="a")(Box.count.fn)
    with pytest.raises(UsageError, match="belongs to no machine class yet"):
        loose("a")
