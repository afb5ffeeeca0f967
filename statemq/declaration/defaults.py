"""The JSON schema of a type, with every default in it that its classes have: who has only the schema must know what may be left out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, time
from types import FunctionType
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect

from statemq.codec import decode, encode_sorted

NOTHING = object()

MADE_OF_ITS_TIME = (date, time, UUID)
"""What a factory makes of the moment of its call is no default that a schema could say."""

Class = inspect.StructType | inspect.DataclassType | inspect.TypedDictType | inspect.NamedTupleType


def schema_of(type_: Any) -> dict[str, Any]:
    """As ``msgspec.json.schema``, which says nothing of what a default_factory of the user's makes."""
    classes = [info for info in types_within(inspect.type_info(type_)) if isinstance(info, Class)]
    (schema, *described), components = msgspec.json.schema_components([type_, *(info.cls for info in classes)])
    for info, reference in zip(classes, described, strict=True):
        shown = components[reference["$ref"].rpartition("/")[2]]
        for field in info.fields:
            if (default := _made(field)) is not NOTHING:
                _place(info, shown, field)["default"] = default
    return {**schema, "$defs": components} if components else schema


def types_within(info: inspect.Type) -> Iterator[inspect.Type]:
    """A type and all that its values may hold, each class once."""
    seen: set[Any] = set()
    rest = [info]
    while rest:
        one = rest.pop()
        if isinstance(one, Class):
            if one.cls in seen:
                continue
            seen.add(one.cls)
            rest += [field.type for field in reversed(one.fields)]
        elif isinstance(one, inspect.Metadata):
            rest.append(one.type)
        elif isinstance(one, inspect.CollectionType):
            rest.append(one.item_type)
        elif isinstance(one, inspect.TupleType):
            rest += one.item_types
        elif isinstance(one, inspect.DictType):
            rest += [one.key_type, one.value_type]
        elif isinstance(one, inspect.UnionType):
            rest += one.types
        yield one


def _place(info: Class, shown: dict[str, Any], field: inspect.Field) -> dict[str, Any]:
    if "prefixItems" in shown:
        tagged = isinstance(info, inspect.StructType) and info.tag is not None
        found: dict[str, Any] = shown["prefixItems"][info.fields.index(field) + tagged]
    else:
        found = shown["properties"][field.encode_name]
    return found


def _made(field: inspect.Field) -> Any:
    """What the field's factory makes, each time the same; NOTHING if it has none."""
    factory = field.default_factory
    if not isinstance(factory, type | FunctionType):  # such as datetime.now
        return NOTHING
    try:
        value = factory()
        raw = encode_sorted(value)
        again = encode_sorted(factory())
    except Exception:  # noqa: BLE001 - the user's code, which may need what is not there yet
        return NOTHING
    return decode(raw) if raw == again and not isinstance(value, MADE_OF_ITS_TIME) else NOTHING
