"""Which requests are the same, for who has the class and for who has only its schema."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

import msgspec
import pytest

from statemq import Machine, transition
from statemq.codec import decode, encode
from statemq.declaration.meaning import canonical
from statemq.declaration.spec import MachineSpec


class Card(msgspec.Struct, tag="card"):
    number: str
    name: str = ""


class Cash(msgspec.Struct, tag="cash"):
    coins: set[int] = msgspec.field(default_factory=set)


class Line(msgspec.Struct):
    sku: str
    n: int = 1
    tags: list[str] = []
    parent: Line | None = None


class Aware(msgspec.Struct):
    at: Annotated[datetime, msgspec.Meta(tz=True)]


class All(Machine, initial="x"):
    @transition(source="x")
    def go(
        self,
        n: int = 1,
        price: float = 1.0,
        either: int | float | None = None,
        tags: set[str] = {"b", "a"},  # noqa: B006
        names: list[str] = ["x", "y"],  # noqa: B006
        pay: Card | Cash | None = None,
        lines: list[Line] = [],  # noqa: B006
        first: Line = Line("a"),  # noqa: B008
        id: uuid.UUID | None = None,
        cents: Decimal | None = None,
        at: Aware | None = None,
        pair: tuple[set[int], str] | None = None,
        options: dict[str, frozenset[int]] = {},  # noqa: B006
        anything: Any = None,
        flag: bool = False,
        due: datetime | None = None,
    ) -> None: ...


@dataclasses.dataclass
class Plain:
    n: int = 0
    names: list[str] = dataclasses.field(default_factory=list)


class Place(msgspec.Struct, array_like=True):
    x: int
    y: int = 0
    z: list[int] = msgspec.field(default_factory=lambda: [3])


class Span(NamedTuple):
    first: int
    last: int = 7


class Deep(msgspec.Struct):
    plain: Plain = msgspec.field(default_factory=Plain)
    place: Place = msgspec.field(default_factory=lambda: Place(1))
    at: datetime = msgspec.field(default_factory=lambda: datetime(2026, 11, 30, tzinfo=UTC))


class Made(Machine, initial="x"):
    @transition(source="x")
    def go(
        self,
        deep: Deep | None = None,
        deeps: dict[int, list[Deep]] = {},  # noqa: B006
        span: Span | None = None,
        wait: timedelta = timedelta(minutes=1),
        opens: Annotated[time, msgspec.Meta(tz=True)] | None = None,
    ) -> None: ...


PLAIN, PLACE = {"n": 0, "names": []}, [1, 0, [3]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"deep": {}}, {"deep": {"plain": PLAIN}}),
        ({"deep": {"plain": {}}}, {"deep": {"place": PLACE}}),
        ({"deep": {"place": [2]}}, {"deep": {"place": [2, 0]}}),
        ({"deeps": {"1": [{}]}}, {"deeps": {"1": [{"place": [1], "plain": {"names": []}}]}}),
        ({"span": [1]}, {"span": [1, 7]}),
        ({}, {"wait": "PT60S"}),
        ({"wait": "P1D"}, {"wait": "PT24H"}),
        ({"opens": "08:00:00Z"}, {"opens": "08:00:00.000+00:00"}),
    ],
)
def test_defaults_that_a_factory_makes_and_durations(one: Any, other: Any) -> None:
    schema = decode(encode(Made.spec.transition("go").schema))
    assert canonical(encode(one), schema) == canonical(encode(other), schema)
    assert Made.spec.transition("go").decode_arguments(encode(one)) == Made.spec.transition("go").decode_arguments(encode(other))
    assert canonical(encode(one), schema) != canonical(encode({"deep": {"place": [2, 1]}}), schema)


def test_what_a_factory_makes_of_its_moment_is_no_default() -> None:
    properties = Made.spec.transition("go").schema["$defs"]["Deep"]["properties"]
    assert "default" not in properties["at"]
    assert properties["place"]["default"] == PLACE


ID = "6f1f0a52-6a6b-4c0e-9f0a-3f5d1c1f7a10"

SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"n": 1}),
    ({}, {"price": 1, "either": None, "flag": False}),
    ({"price": 2}, {"price": 2.0}),
    ({"tags": ["a", "b"]}, {}),
    ({"tags": ["c", "d", "c"]}, {"tags": ["d", "c"]}),
    ({}, {"names": ["x", "y"], "first": {"sku": "a"}}),
    ({"first": {"n": 1, "sku": "a", "tags": [], "parent": None}}, {}),
    ({"pay": {"type": "cash", "coins": [2, 1]}}, {"pay": {"coins": [1, 2], "type": "cash"}}),
    ({"pay": {"type": "cash", "coins": []}}, {"pay": {"type": "cash"}}),
    ({"pay": {"type": "card", "number": "1", "name": ""}}, {"pay": {"number": "1", "type": "card"}}),
    ({"lines": [{"sku": "a", "parent": {"sku": "b", "n": 1}}]}, {"lines": [{"parent": {"sku": "b", "tags": []}, "n": 1, "sku": "a"}]}),
    ({"id": ID}, {"id": ID.upper()}),
    ({"id": ID}, {"id": ID.replace("-", "")}),
    ({"cents": "1.50"}, {"cents": "1.5"}),
    ({"cents": 1.5}, {"cents": "1.5"}),
    ({"at": {"at": "2026-11-30T12:00:00+02:00"}}, {"at": {"at": "2026-11-30T10:00:00Z"}}),
    ({"due": "2026-11-30T10:00:00Z"}, {"due": "2026-11-30T10:00:00.000+00:00"}),
    ({"due": "2026-11-30T10:00:00.120Z"}, {"due": "2026-11-30 10:00:00.12-00:00"}),
    ({"pair": [[2, 1], "a"]}, {"pair": [[1, 2], "a"]}),
    ({"options": {"b": [3, 1], "a": []}}, {"options": {"a": [], "b": [1, 3]}}),
    ({"anything": {"b": {"d": 1, "c": 2}, "a": []}}, {"anything": {"a": [], "b": {"c": 2, "d": 1}}}),
]

OTHER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"n": 2}),
    ({}, {"n": 0}),
    ({}, {"tags": ["a"]}),
    ({"names": ["y", "x"]}, {}),
    ({"either": 1}, {"either": 1.5}),
    ({"anything": [1, 2]}, {"anything": [2, 1]}),
    ({"anything": 1}, {"anything": True}),
    ({"anything": "1"}, {"anything": 1}),
    ({"anything": {"n": None}}, {"anything": {}}),
    ({"lines": [{"sku": "a"}, {"sku": "b"}]}, {"lines": [{"sku": "b"}, {"sku": "a"}]}),
    ({"pay": {"type": "card", "number": "1"}}, {"pay": {"type": "cash"}}),
    ({"flag": True}, {}),
    ({"due": "2026-11-30T10:00:00Z"}, {"due": "2026-11-30T10:00:00"}),
    ({"due": "2026-11-30T10:00:00Z"}, {"due": "2026-11-30T10:00:00.1Z"}),
    ({"due": "2026-11-30T10:00:10Z"}, {"due": "2026-11-30T10:00:01Z"}),
    ({"pair": [[1], "a"]}, {"pair": [[1], "b"]}),
]

SPEC: MachineSpec = All.spec
STORED = decode(encode(SPEC.graph()))["arguments"]["go"]


@pytest.mark.parametrize("schema", [SPEC.transition("go").schema, STORED], ids=["class", "config"])
def test_which_requests_are_the_same(schema: dict[str, Any]) -> None:
    for requests, same in ((SAME, True), (OTHER, False)):
        for one, other in requests:
            for given in (one, other):
                SPEC.transition("go").decode_arguments(encode(given))
            assert (canonical(encode(one), schema) == canonical(encode(other), schema)) is same, (one, other)


@pytest.mark.parametrize("value", [10**400, -(2**70), 1e308, "1e999999999", "nan", "9" * 400])
def test_numbers_beyond_what_floats_hold(value: Any) -> None:
    for name in ("price", "cents", "either", "anything"):
        raw = encode({name: value})
        assert canonical(raw, STORED) == canonical(raw, STORED)


def test_by_class_and_by_name() -> None:
    command = All.go(
        "k", tags={"d", "c"}, pay=Cash({3, 1}), first=Line("a"), id=uuid.UUID(ID), at=Aware(datetime(2026, 11, 30, tzinfo=UTC))
    )
    by_name = {
        "id": ID,
        "at": {"at": "2026-11-30T00:00:00Z"},
        "pay": {"type": "cash", "coins": [1, 3]},
        "tags": ["c", "d"],
        "n": 1,
    }
    assert canonical(command.args, STORED) == canonical(encode(by_name), STORED)


def test_the_schema_has_every_default() -> None:
    properties = STORED["$defs"]["go"]["properties"]
    assert properties["names"]["default"] == ["x", "y"]
    assert properties["first"]["default"] == {"sku": "a", "n": 1, "tags": [], "parent": None}
    assert properties["tags"]["default"] == ["a", "b"]
    assert [name for name, described in properties.items() if "default" not in described] == []


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"$ref": 3, "$defs": []},
        {"type": "object", "properties": [], "additionalProperties": False},
        {"properties": {"b": 1, "a": None}},
        {"anyOf": [{"type": ["object"]}, None, {"enum": 1}]},
        {"properties": {"a": {"type": "string", "format": []}, "b": {"items": 3, "prefixItems": 4, "uniqueItems": 1}}},
        {"properties": {"a": {"type": "string", "format": "uuid"}, "b": {"type": "number"}}},
    ],
)
def test_a_schema_that_says_nothing_useful(schema: dict[str, Any]) -> None:
    """Somebody wrote it by hand, or a later version did."""
    assert canonical(b'{"b":[2,1],"a":1}', schema) == b'{"a":1,"b":[2,1]}'
