"""An instance's data between what is stored and what this version of its class knows (during a deployment two versions serve one machine).

What the class does not know stays as long as the object in which it stands: at the same place of its parent, as the same key of a dict, or
in a list as an element that is equal in what the class knows, or that stands where a changed one stood. It goes with its object: when an
element or key is removed, a field becomes None, or a union holds another of its types. Fields that the class knows are the class's: what
it removes is removed.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any, Union

import msgspec
from msgspec import inspect

from statemq.codec import encode, encode_sorted

Members = dict[str, Any]

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode

FEW = 16
"""A member that more elements of a list have in common does not tell which of them one is."""

_EXACT = (
    inspect.BoolType | inspect.BytesType | inspect.DateTimeType | inspect.DateType | inspect.EnumType | inspect.IntType
    | inspect.LiteralType | inspect.NoneType | inspect.StrType | inspect.TimeDeltaType | inspect.TimeType | inspect.UUIDType
)  # fmt: skip


def is_exact(kind: type[Any]) -> bool:
    """Values of this type are equal only if their JSON is the same text: it has nothing without an order, no floats, no Any."""
    seen: set[type[Any]] = set()

    def exact(info: inspect.Type) -> bool:
        if isinstance(info, inspect.StructType):
            if info.cls in seen:
                return True
            seen.add(info.cls)
            return all(exact(field.type) for field in info.fields)
        if isinstance(info, inspect.UnionType):
            return all(map(exact, info.types))
        if isinstance(info, inspect.ListType | inspect.VarTupleType):
            return exact(info.item_type)
        if isinstance(info, inspect.TupleType):
            return all(map(exact, info.item_types))
        return isinstance(info, _EXACT)

    return exact(inspect.type_info(kind))


def same(one: Any, other: Any) -> bool:
    """Two decoded values are equal. The order of keys and of sets does not count; 1, 1.0 and true differ where a type allows them all."""
    return _canonical(one) == _canonical(other)


def _canonical(value: Any) -> bytes:
    try:
        return encode_sorted(value)
    except TypeError:  # what stands in a set has no order of its own, or a key is no text
        return encode_sorted(_sortable(value))


def _sortable(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return [msgspec.Raw(raw) for raw in sorted(map(_canonical, value))]
    if isinstance(value, list | tuple):
        return [_sortable(item) for item in value]
    if isinstance(value, dict):
        return {_key(key): _sortable(item) for key, item in value.items()}
    fields = fields_of(value)
    return value if fields is None else [type(value).__qualname__, *map(_sortable, fields.values())]


def _key(key: Any) -> str:
    """As JSON has it."""
    if isinstance(key, str):
        return str(key)
    (text,) = msgspec.to_builtins({key: None}, str_keys=True)
    return str(text)


def fields_of(value: Any) -> Members | None:
    """The fields of an object with a class of its own, by their names in JSON; None for any other value."""
    kind: Any = type(value)
    if isinstance(value, msgspec.Struct):
        return {field.encode_name: getattr(value, field.name) for field in msgspec.structs.fields(kind)}
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    return None


def carried(old: Any, stored: bytes, new: Any, raw: bytes) -> bytes:
    """``raw``, the JSON of ``new``, and with it what ``stored``, the JSON of ``old``, has beside what their class knows."""
    stored = stored.strip()
    if stored == raw or type(old) is not type(new):
        return raw
    if stored[:1] == raw[:1] == b"{":
        before, after = _members(stored), _members(raw)
        known, now = _known(old, before), _known(new, after)
        if known is None or now is None:
            return raw
        found = {
            name: carried(known[name], bytes(before[name]), now[name], bytes(text)) if name in now and name in known and name in before
            else bytes(text)
            for name, text in after.items()
        }  # fmt: skip
        found |= {name: bytes(text) for name, text in before.items() if name not in known and name not in after}
        return encode({name: msgspec.Raw(text) for name, text in found.items()})
    if stored[:1] == raw[:1] == b"[":
        return encode([msgspec.Raw(text) for text in _carried_elements(old, _bytes(stored), new, _bytes(raw))])
    return raw


def _bytes(raw: bytes) -> list[bytes]:
    return [bytes(text) for text in _elements(raw)]


def _known(value: Any, members: Mapping[str, Any]) -> Members | None:
    """What the class, or the dict, has of these members of its JSON. A dict knows each of them, a TypedDict those of its type."""
    if isinstance(value, dict):
        return {_key(key): item for key, item in value.items()}
    fields = fields_of(value)
    if fields is not None and isinstance(value, msgspec.Struct) and (tag := value.__struct_config__.tag_field):
        fields[tag] = None
    return fields


def _carried_elements(old: Any, before: list[bytes], new: Any, after: list[bytes]) -> list[bytes]:
    if isinstance(old, set | frozenset):
        return _carried_set(old, before, new) or after
    if isinstance(old, list | tuple):
        return _carried_items(list(old), before, list(new), after) if len(old) == len(before) else after
    known, now = fields_of(old), fields_of(new)
    if known is None or now is None:
        return after
    # a Struct that is written as a list: its tag, its fields, and what a newer class has behind them
    tag = [None] if old.__struct_config__.tag is not None else []
    values, others = [*tag, *known.values()], [*tag, *now.values()]
    found = [carried(*pair) for pair in zip(values, before, others, after, strict=False)]
    return found + after[len(found) :] + before[max(len(values), len(after)) :]


def _carried_set(old: Any, before: list[bytes], new: Any) -> list[bytes]:
    """A set has no places: who is in it still is who is equal. Empty where its members are of no class that can be read alone."""
    if not any(text[:1] in (b"{", b"[") for text in before):
        return []
    try:
        read = msgspec.json.Decoder(Union[tuple(set(map(type, old)))]).decode  # noqa: UP007 - they are known only now
        stands = {_canonical(read(text)): text for text in before}
    except (TypeError, ValueError):  # tuples of several kinds, or of what a plain decoder does not make
        return []
    return [stands.get(_canonical(item)) or encode(item) for item in new]


def _carried_items(old: list[Any], before: list[bytes], new: list[Any], after: list[bytes]) -> list[bytes]:
    if not any(text[:1] in (b"{", b"[") for text in before):
        return after
    places = _aligned([_canonical(item) for item in old], [_canonical(item) for item in new])
    return [
        text if (i := places[j]) is None else carried(old[i], before[i], new[j], text) for j, text in enumerate(after)
    ]  # fmt: skip


def _aligned(before: list[bytes], after: list[bytes]) -> list[int | None]:
    """For each of ``after`` which of ``before`` it is: an equal one; else a changed one between the same neighbours: the one with which
    it shares most members, or, if there are as many as before, the one in the same place."""
    where: dict[bytes, deque[int]] = defaultdict(deque)
    for i, text in enumerate(before):
        where[text].append(i)
    found = [where[text].popleft() if where[text] else None for text in after]
    taken = {i for i in found if i is not None}
    j = 0
    while j < len(after):
        until = j
        while until < len(after) and found[until] is None:
            until += 1
        if until > j:
            first = found[j - 1] if j else -1
            last = found[until] if until < len(after) else len(before)
            assert first is not None
            assert last is not None
            gap = [i for i in range(first + 1, last) if i not in taken]
            pairs = _paired([before[i] for i in gap], after[j:until])
            found[j:until] = [None if i is None else gap[i] for i in pairs]
        j = until + 1
    return found


def _paired(before: Sequence[bytes], after: Sequence[bytes]) -> list[int | None]:
    """For each of ``after`` its place in ``before``, if it has one."""
    holders: dict[tuple[Any, bytes], list[int]] = defaultdict(list)
    for i, text in enumerate(before):
        for member in _parts(text):
            holders[member].append(i)
    votes = {(j, j): 0 for j in range(len(after))} if len(before) == len(after) else {}
    for j, text in enumerate(after):
        for member in _parts(text):
            held = holders.get(member, [])
            # what many have tells nothing of one of them, and to compare all with all would hold up the other keys
            for i in held if len(held) <= FEW else [j] if j < len(before) and member in _parts(before[j]) else []:
                votes[i, j] = votes.get((i, j), 0) + 1
    found: list[int | None] = [None] * len(after)
    taken: set[int] = set()
    for i, j in sorted(votes, key=lambda pair: (-votes[pair], abs(pair[0] - pair[1]), pair)):
        if found[j] is None and i not in taken:
            found[j] = i
            taken.add(i)
    return found


def _parts(text: bytes) -> list[tuple[Any, bytes]]:
    """The members of an object, the elements of a list, with their places; both as they are when sorted."""
    if text[:1] == b"{":
        return [(name, bytes(raw)) for name, raw in _members(text).items()]
    return [(at, bytes(raw)) for at, raw in enumerate(_elements(text))] if text[:1] == b"[" else []
