"""A sender without the class is told what one with the class is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import pytest

from statemq import InvalidArguments, Machine, transition
from statemq.declaration.schema import validator


class Colour(StrEnum):
    RED = "RED"
    BLUE = "BLUE"


class Node(msgspec.Struct):
    value: int
    next: Node | None = None


class Left(msgspec.Struct, tag=True):
    a: int


class Right(msgspec.Struct, tag=True):
    b: int


Short = Annotated[str, msgspec.Meta(min_length=2, pattern="^a")]


class All(Machine, initial="x"):
    @transition(source="x")
    def go(
        self,
        n: int,
        few: Annotated[int, msgspec.Meta(ge=1, lt=5)] = 1,
        short: Short = "ab",
        colour: Colour = Colour.RED,
        node: Node | None = None,
        side: Left | Right | None = None,
        when: datetime | None = None,
        items: Annotated[list[int], msgspec.Meta(max_length=2)] = [],  # noqa: B006 - each call has a copy
        pair: tuple[int, str] | None = None,
        counts: dict[str, int] = {},  # noqa: B006
        ratio: float = 1.0,
        flag: bool = False,
        raw: Any = None,
    ) -> None: ...

    @transition(source="x")
    def plain(self) -> None: ...


spec = All.spec
schemas: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(spec.graph()["arguments"]))


def by_class(name: str, raw: bytes) -> str | None:
    try:
        spec.transition(name).decode_arguments(raw)
    except InvalidArguments as error:
        return error.why
    return None


def by_schema(name: str, raw: bytes) -> str | None:
    try:
        validator(schemas[name])(raw)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "raw",
    [
        b'{"n":1}',
        b'{"n":1,"few":4,"short":"abc","colour":"BLUE","node":{"value":1,"next":{"value":2}},"items":[1,2]}',
        b'{"n":1,"side":{"type":"Left","a":1},"when":"2026-01-02T00:00:00Z","pair":[1,"x"],"counts":{"a":1},"ratio":2,"flag":true,"raw":[{}]}',
        b"{}",
        b"",
        b"[]",
        b"{",
        b'"x"',
        b'{"n":"1"}',
        b'{"n":1.5}',
        b'{"n":true}',
        b'{"n":null}',
        b'{"n":1,"zoom":1}',
        b'{"n":1,"few":0}',
        b'{"n":1,"few":5}',
        b'{"n":1,"short":"a"}',
        b'{"n":1,"short":"bb"}',
        b'{"n":1,"colour":"GREEN"}',
        b'{"n":1,"node":{"value":"x"}}',
        b'{"n":1,"node":{}}',
        b'{"n":1,"items":["a"]}',
        b'{"n":1,"items":[1,2,3]}',
        b'{"n":1,"pair":[1,2]}',
        b'{"n":1,"counts":{"a":"b"}}',
        b'{"n":1,"ratio":"x"}',
        b'{"n":1,"flag":1}',
    ],
)
def test_both_say_the_same(raw: bytes) -> None:
    assert by_schema("go", raw) == by_class("go", raw)


def test_no_arguments() -> None:
    assert by_schema("plain", b"{}") is by_schema("plain", b"") is None
    assert by_schema("plain", b'{"x":1}') == 'argument "x" is unknown; it takes no arguments'


@pytest.mark.parametrize(
    "raw",
    [
        b'{"n":1,"side":{"type":"Left","a":"x"}}',
        b'{"n":1,"when":"yesterday"}',
        b'{"n":1,"node":{"value":1,"next":{"value":"x"}}}',
    ],
)
def test_what_the_schema_cannot_tell_is_left_to_the_class(raw: bytes) -> None:
    assert by_class("go", raw) is not None
    assert by_schema("go", raw) is None


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"$ref": "#/$defs/gone"},
        {"type": "object", "properties": {"a-b": {"type": "frobnicated"}, "x": {"pattern": "(", "type": "string"}, "y": {"enum": [1.5]}}},
        {"anyOf": []},
        {"type": ["object", "null"]},
    ],
)
def test_an_unknown_schema_lets_objects_pass(schema: dict[str, Any]) -> None:
    validate: Callable[[bytes], None] = validator(schema)
    validate(b'{"x":"y"}')
    with pytest.raises(ValueError, match="truncated"):
        validate(b'{"x":')


def test_a_property_may_be_named_like_no_identifier() -> None:
    validate = validator({"type": "object", "properties": {"a-b": {"type": "integer"}}, "required": ["a-b"], "additionalProperties": False})
    validate(b'{"a-b":1}')
    with pytest.raises(ValueError, match=r"^a-b: expected int, got str$"):
        validate(b'{"a-b":"1"}')
