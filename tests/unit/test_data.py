"""What another version of a class has stored stays: each shape of data, each way to change it."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable
from typing import Any, ClassVar, TypedDict

import msgspec
import pytest

from statemq import Machine, transition
from statemq.declaration import data
from statemq.declaration.data import same


def spec_of(data: type[msgspec.Struct]) -> Any:
    class Shop(Machine[data, str], initial="open"):  # type: ignore[valid-type]
        @transition(source="open")
        def go(self) -> None: ...

    return Shop.spec


def after(data: type[msgspec.Struct], stored: Any, change: Callable[[Any], None] = lambda data: None) -> Any:
    """What is stored when a body has changed the data; ``stored`` itself (the very text) if that is what stays."""
    spec = spec_of(data)
    raw = stored if isinstance(stored, bytes) else json.dumps(stored).encode()
    instance = spec.build("a", "open", 1, raw)
    change(instance.data)
    kept, own = spec.revise(instance, raw, False)
    assert own == (msgspec.json.encode(spec.decode_data(kept)) == kept) or (kept == raw and not own)
    assert kept == raw or spec.revise(spec.build("a", "open", 2, kept), kept, own) == (kept, own), "a no-op after it changes nothing"
    return stored if kept == raw else json.loads(kept)


class Item(msgspec.Struct):
    sku: str = ""
    n: int = 0


class Frozen(msgspec.Struct, frozen=True):
    sku: str = ""


class Cat(msgspec.Struct, tag="cat"):
    name: str = ""


class Dog(msgspec.Struct, tag="dog"):
    name: str = ""


class Pair(msgspec.Struct, array_like=True):
    left: int = 0
    right: int = 0


class Tagged(msgspec.Struct, array_like=True, tag="t"):
    left: int = 0


class Short(msgspec.Struct, omit_defaults=True):
    n: int = 0
    m: int = 7


class Named(msgspec.Struct, rename="camel"):
    vat_id: str = ""
    old_one: int = 0


@dataclasses.dataclass
class Point:
    x: int = 0


class Part(TypedDict):
    x: int


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Data(msgspec.Struct):
    n: int = 0
    rate: float = 0.0
    item: Item = msgspec.field(default_factory=Item)
    maybe: Item | None = None
    pet: Cat | Dog | None = None
    items: list[Item] = []
    two: tuple[Item, Item] | None = None
    by_key: dict[str, Item] = {}
    by_number: dict[int, Item] = {}
    pair: Pair = msgspec.field(default_factory=Pair)
    tagged: Tagged = msgspec.field(default_factory=Tagged)
    short: Short = msgspec.field(default_factory=Short)
    named: Named = msgspec.field(default_factory=Named)
    point: Point = msgspec.field(default_factory=Point)
    part: Part | None = None
    plain: dict[str, Any] = {}
    words: set[str] = set()
    colours: set[Colour] = set()
    frozen: frozenset[Frozen] = frozenset()
    anything: Any = None


U = {"u": [1.10, {"deep": None}]}
"""What only the newer version knows."""


def changed(data: Any) -> None:
    data.n += 1


KEPT = {
    "top": {"n": 0, **U},
    "nested": {"item": {"sku": "a", "n": 1, **U}},
    "optional": {"maybe": {"sku": "a", **U}},
    "union": {"pet": {"type": "dog", "name": "Rex", **U}},
    "list": {"items": [{"sku": "a", **U}, {"sku": "b"}, {"sku": "c", "v": 2}]},
    "tuple": {"two": [{"sku": "a", **U}, {"sku": "b", "v": 1}]},
    "dict": {"by_key": {"x": {"sku": "a", **U}, "y": {"sku": "b", "v": 1}}},
    "numbered": {"by_number": {"2": {"sku": "a", **U}, "1": {"sku": "b", "v": 1}}},
    "array_like": {"pair": [1, 2, "third", U]},
    "tagged array": {"tagged": ["t", 1, "second"]},
    "omitted": {"short": {"n": 3, **U}},
    "renamed": {"named": {"vatId": "DE1", "vat_id": "another's", **U}},
    "dataclass": {"point": {"x": 1, **U}},
    "typed dict": {"part": {"x": 1, **U}},
    "set": {"frozen": [{"sku": "b", **U}, {"sku": "a", "v": 2}]},
    "in a list in a dict": {"by_key": {"x": {"sku": "a"}}, "items": [{"sku": "a", "more": [{"x": 1}]}]},
}


@pytest.mark.parametrize("stored", KEPT.values(), ids=list(KEPT))
def test_what_the_class_does_not_know_stays(stored: dict[str, Any]) -> None:
    assert after(Data, stored) is stored, "a no-op leaves the stored text"
    kept = after(Data, stored, changed)
    assert covers(kept, {**stored, "n": 1})


def covers(found: Any, wanted: Any) -> bool:
    """All of ``wanted`` is there; fields with defaults may have been written beside it."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and covers(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return False
        return all(map(covers, found, wanted)) or all(any(covers(f, w) for f in found) for w in wanted)
    return bool(found == wanted)


def test_a_default_that_was_written_is_left_out_where_the_class_leaves_it_out() -> None:
    stored = {"short": {"n": 0, "m": 7, **U}}
    assert after(Data, stored) is stored
    assert after(Data, stored, changed)["short"] == U


def test_unknown_values_stay_to_the_letter() -> None:
    spec = spec_of(Item)
    raw = b'{"sku":"a","n":1,"price":0.12345678901234567890123,"big":123456789012345678901234567890,"tiny":1e-400, "s":"\\u00e4"}'
    instance = spec.build("a", "open", 1, raw)
    instance.data.n = 2
    kept, own = spec.revise(instance, raw, False)
    expected = b'{"sku":"a","n":2,"price":0.12345678901234567890123,"big":123456789012345678901234567890,"tiny":1e-400,"s":"\\u00e4"}'
    assert (kept, own) == (expected, False)


def set_none(data: Any) -> None:
    data.maybe = data.pet = None


def another_type(data: Any) -> None:
    data.pet = Cat("Rex")


def test_it_goes_with_the_object_in_which_it_stood() -> None:
    stored = {"maybe": {"sku": "a", **U}, "pet": {"type": "dog", "name": "Rex", **U}}
    kept = after(Data, stored, set_none)
    assert (kept["maybe"], kept["pet"]) == (None, None)
    assert after(Data, stored, another_type)["pet"] == {"type": "cat", "name": "Rex"}


def test_what_is_removed_on_purpose_is_removed() -> None:
    def remove(data: Any) -> None:
        del data.by_key["x"]
        del data.plain["b"]
        data.short.n = 0
        del data.by_number[1]

    stored = {
        "by_key": {"x": {"sku": "a", **U}, "y": {"sku": "b", **U}},
        "plain": {"a": 1, "b": {"c": 1}},
        "short": {"n": 5, **U},
        "by_number": {"1": {}, "2": {"sku": "z", **U}},
    }
    kept = after(Data, stored, remove)
    assert kept["by_key"] == {"y": {"sku": "b", "n": 0, **U}}
    assert (kept["plain"], kept["short"]) == ({"a": 1}, U)
    assert kept["by_number"] == {"2": {"sku": "z", "n": 0, **U}}


A, B, C = ({"sku": sku, "n": 1, "u": sku} for sku in "abc")
"""Items with a field each that the class does not know."""


def items(change: Callable[[list[Item]], Any]) -> list[Any]:
    def change_items(data: Any) -> None:
        changed_items = change(data.items)
        if isinstance(changed_items, list):
            data.items = changed_items

    return [item.get("u") for item in after(Data, {"items": [A, B, C]}, change_items)["items"]]


def test_an_element_of_a_list_keeps_it_wherever_it_goes() -> None:
    assert items(lambda i: i.append(Item("d"))) == ["a", "b", "c", None]
    assert items(lambda i: i.insert(0, Item("d"))) == [None, "a", "b", "c"]
    assert items(lambda i: i.pop(0)) == ["b", "c"]
    assert items(lambda i: i.pop(1)) == ["a", "c"]
    assert items(lambda i: i.reverse()) == ["c", "b", "a"]
    assert items(lambda i: [*i[1:], Item("d")]) == ["b", "c", None], "a window that moves on"
    assert items(lambda i: i.clear()) == []
    assert items(lambda i: setattr(i[1], "n", 9)) == ["a", "b", "c"]
    assert items(lambda i: [setattr(one, "n", 9) for one in i] and None) == ["a", "b", "c"]
    assert items(lambda i: [i[0], Item("b", 5), i[2]]) == ["a", "b", "c"], "a new object in the place of a changed one"
    assert items(lambda i: setattr(i.pop(0) and i[0], "n", 9)) == ["b", "c"], "removed and changed: the more alike"
    assert items(lambda i: i.append(Item("d")) or setattr(i[0], "n", 9)) == ["a", "b", "c", None]


def test_a_queue_whose_head_goes_and_whose_next_changes_gives_no_element_another_s() -> None:
    assert items(lambda i: i.append(Item("d")) or setattr(i.pop(0) and i[0], "n", 9)) == ["b", "c", None]
    assert items(lambda i: [Item("d"), *(Item(one.sku, 9) for one in i[:2])]) == [None, "a", "b"]
    assert items(lambda i: [Item(one.sku, 9) for one in reversed(i)]) == ["c", "b", "a"]
    assert items(lambda i: [Item("x", 5), Item("y", 6), Item("z", 7)]) == ["a", "b", "c"], "changed all over, each in its place"


def test_a_long_list_of_which_all_has_changed_is_matched_in_no_time_that_grows_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def counted(text: bytes) -> Any:
        nonlocal looked
        looked += 1
        return parts(text)

    parts = data._parts
    monkeypatch.setattr(data, "_parts", counted)
    stored = {"items": [{"sku": str(i), "n": 0, "u": i} for i in range(2000)]}

    def all_of_it(found: Any) -> None:
        for item in found.items:
            item.n = 1
        found.items.append(Item("new"))

    assert [item.get("u") for item in after(Data, stored, all_of_it)["items"]] == [*range(2000), None]
    assert 0 < looked < 20_000


class Within(msgspec.Struct, frozen=True):
    one: Frozen = Frozen()
    n: int = 0


class Sets(msgspec.Struct):
    n: int = 0
    within: set[Within] = set()
    kinds: set[Within | int] = set()


def test_a_member_of_a_set_keeps_what_lies_deeper_in_it_and_what_it_leaves_out() -> None:
    one, other = {"one": {"sku": "a", **U}, "n": 1}, {"u": "its fields have their defaults"}
    found = after(Sets, {"within": [one, other], "kinds": [7, one]}, changed)
    assert sorted(found["within"], key=str) == sorted([one, other], key=str)
    assert one in found["kinds"]
    assert after(Sets, {"within": [one, other]}, lambda data: data.within.discard(Within()))["within"] == [one]


@dataclasses.dataclass
class Rated:
    rate: ClassVar[int] = 19
    n: int = 0


class OfRated(msgspec.Struct):
    rated: Rated = msgspec.field(default_factory=Rated)


def test_what_is_the_class_s_own_in_one_version_and_a_field_in_another_stays() -> None:
    stored = {"rated": {"n": 1, "rate": 7}}
    assert after(OfRated, stored, lambda data: setattr(data.rated, "n", 2)) == {"rated": {"n": 2, "rate": 7}}


def test_a_no_op_makes_nothing_of_another_encoding() -> None:
    for stored in (
        b'{ "rate": 1, "n": 0 }',
        b'{"n":0,"rate":1.0}',
        b'{"words":["b","a","c"],"plain":{"y":1,"x":{"b":1,"a":2}}}',
        b'{"colours":["blue","red"],"by_number":{"2":{},"1":{}}}',
        b'{"short":{"m":7},"maybe":null}',
        b"{}",
    ):
        assert after(Data, stored) is stored

    def again(data: Any) -> None:
        data.words = set(data.words)
        data.plain = dict(reversed(data.plain.items()))
        data.rate = 1

    stored = b'{"words":["b","a","c"],"plain":{"y":1,"x":2},"rate":1.0}'
    assert after(Data, stored, again) is stored


def test_a_change_is_none_the_less_one() -> None:
    def to(value: Any) -> Callable[[Any], None]:
        return lambda data: setattr(data, "anything", value)

    for before, value in ((1, True), (1, 1.0), (0, False), (None, 0), ("1", 1), ([1, 2], [2, 1]), ({"a": 1}, {"a": 1.0})):
        assert after(Data, {"anything": before}, to(value))["anything"] == value
        assert type(after(Data, {"anything": before}, to(value))["anything"]) is type(value)
    assert after(Data, {"words": ["a"]}, lambda data: data.words.add("b"))["words"] in (["a", "b"], ["b", "a"])


def test_values_that_have_no_order_are_compared() -> None:
    assert same({Colour.RED, Colour.BLUE}, {Colour.BLUE, Colour.RED})
    assert not same({Colour.RED}, {Colour.BLUE})
    assert same({(1, "a"), (1, 2)}, {(1, 2), (1, "a")})
    assert same({1: {None, 1}, 2: []}, {2: [], 1: {1, None}})
    assert same([{Frozen("a"), Frozen("b")}], [{Frozen("b"), Frozen("a")}])
    assert not same({1: 1}, {1: True})
    assert same(Point(1), Point(1))


class Forbidding(msgspec.Struct, forbid_unknown_fields=True):
    item: Item = msgspec.field(default_factory=Item)
    n: int = 0


def test_a_class_that_forbids_them_has_none_but_what_lies_deeper() -> None:
    stored = {"item": {"sku": "a", "n": 0, **U}, "n": 0}
    assert after(Forbidding, stored, changed) == {**stored, "n": 1}
    with pytest.raises(ValueError, match="unknown field"):
        spec_of(Forbidding).build("a", "open", 1, b'{"n":0,"u":1}')


def test_a_class_without_data_leaves_another_version_s() -> None:
    class Bare(Machine, initial="open"):
        @transition(source="open")
        def go(self) -> None: ...

    instance = Bare.spec.build("a", "open", 1, b'{"n":1}')
    assert Bare.spec.revise(instance, b'{"n":1}', False) == (b'{"n":1}', False)


def test_what_the_class_itself_has_written_costs_no_second_look() -> None:
    spec = spec_of(Item)
    assert spec.exact_data
    assert not spec_of(Data).exact_data
    instance = spec.build("a", "open", 1, b'{"sku":"a","n":1}')
    instance.data.n = 2
    assert spec.revise(instance, b"never read: it is this class's own", True) == (b'{"sku":"a","n":2}', True)
