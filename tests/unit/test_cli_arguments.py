"""Words of a command line as arguments: read by the declared type, refused in one sentence."""

from __future__ import annotations

import io
import sys
from typing import Any, Literal

import msgspec
import pytest

from statemq.cli.arguments import read_arguments
from statemq.cli.values import Unreadable, read_value
from statemq.errors import InvalidArguments, UnknownTransition, UsageError


class Point(msgspec.Struct):
    x: int = 0


class Arguments(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    size: int = 1
    price: float = 0.0
    note: str = ""
    on: bool = False
    maybe: int | None = None
    any: Any = None
    either: int | str = 0
    kind: Literal["small", "large"] = "small"
    level: Literal[1, 2] = 1
    tags: list[str] = []
    at: Point | None = None


GRAPH = {
    "name": "resource",
    "transitions": [{"name": "setUp", "source": ["DOWN"], "target": ["UP"]}, {"name": "nothing", "source": ["DOWN"], "target": None}],
    "queries": [{"name": "status"}],
    "arguments": {
        "setUp": msgspec.json.schema(Arguments),
        "nothing": msgspec.json.schema(msgspec.defstruct("nothing", [])),
        "status": msgspec.json.schema(msgspec.defstruct("status", [("verbose", bool, False)])),
    },
}


def read(*words: str) -> dict[str, Any]:
    return read_arguments(words, GRAPH, "setUp")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("size=3", {"size": 3}),
        ("size=-3", {"size": -3}),
        ("price=3", {"price": 3.0}),
        ("price=-1.5e3", {"price": -1500.0}),
        ("note=3", {"note": "3"}),
        ("note=null", {"note": "null"}),
        ("note=", {"note": ""}),
        ("note=a=b:=c\nd", {"note": "a=b:=c\nd"}),
        ("on=true", {"on": True}),
        ("on=false", {"on": False}),
        ("maybe=null", {"maybe": None}),
        ("maybe=7", {"maybe": 7}),
        ("any=7", {"any": 7}),
        ("any=007", {"any": "007"}),
        ("any=true", {"any": True}),
        ("either=7", {"either": 7}),
        ("either=seven", {"either": "seven"}),
        ("kind=large", {"kind": "large"}),
        ("level=2", {"level": 2}),
        ("at=null", {"at": None}),
        ('tags:=["a", "b"]', {"tags": ["a", "b"]}),
        ('at:={"x": 1}', {"at": {"x": 1}}),
        ("size:=3", {"size": 3}),
    ],
)
def test_a_pair_is_read_by_the_declared_type(word: str, value: dict[str, Any]) -> None:
    read_back = read(word)
    assert read_back == value
    assert [type(v) for v in read_back.values()] == [type(v) for v in value.values()]
    msgspec.json.decode(msgspec.json.encode(read_back), type=Arguments)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["size=three"], 'size is an integer, not "three"'),
        (["size=3.5"], 'size is an integer, not "3.5"'),
        (["size=٣"], 'size is an integer, not "٣"'),
        (["price=nan"], 'price is a number, not "nan"'),
        (["price=1e999"], 'price is a number, not "1e999"'),
        (["price:=1e999"], "price is not valid JSON"),
        (["size=" + "9" * 5000], "size is an integer"),
        (["on=yes"], 'on is true or false, not "yes"'),
        (["maybe=x"], 'maybe is null or an integer, not "x"'),
        (["kind=huge"], 'kind is large or small, not "huge"'),
        (["tags=a"], "tags is an array; write tags:=JSON, such as tags:='[1, 2]'"),
        (["at=x"], "at is an object; write at:=JSON, such as at:='{\"a\": 1}'"),
        (["colour=red"], 'argument "colour" is unknown; it takes size,'),
        (["size=1", "size=2"], 'argument "size" was given twice'),
        (["size:=three"], "size is not valid JSON"),
        (["three"], '"three" is no argument; write name=value'),
        (["{}", "size=1"], '"{}" is no argument'),
        (["[1]"], "arguments are a JSON object"),
        (['{"size": '], "the argument is not valid JSON"),
        (["note=\udcff"], "not valid UTF-8"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(words: list[str], why: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        read(*words)
    assert str(caught.value).startswith("resource.setUp: ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_single_json_object_is_taken_as_it_is() -> None:
    assert read('{"size": 2, "tags": []}') == {"size": 2, "tags": []}
    assert read() == {}


def test_a_dash_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b' {"note": "\xc3\xa9"}\n')))
    assert read("-") == {"note": "é"}


def test_names_are_checked_before_arguments() -> None:
    with pytest.raises(UnknownTransition, match='resource has no transition "setup"; it has: setUp, nothing'):
        read_arguments(["x"], GRAPH, "setup")
    with pytest.raises(UsageError, match="status is a query of resource: statemq query resource KEY status"):
        read_arguments([], GRAPH, "status")
    assert read_arguments(["verbose=true"], GRAPH, "status", "query") == {"verbose": True}
    with pytest.raises(InvalidArguments, match="it takes no arguments"):
        read_arguments(["a=1"], GRAPH, "nothing")


def test_a_type_that_contains_itself_needs_json() -> None:
    definitions = {"Tree": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "integer"}]}}
    assert read_value("tree", "3", {"$ref": "#/$defs/Tree"}, definitions) == 3
    with pytest.raises(Unreadable):
        read_value("tree", "x", {"$ref": "#/$defs/Tree"}, definitions)
