"""What arguments mean, in whatever order, spelling and with whatever defaults they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from statemq.codec import decode, encode_sorted

Schema = Mapping[str, Any]

ANYTHING: Schema = {}


def canonical(raw: bytes, schema: Schema) -> bytes:
    """Arguments as JSON bytes that are equal for equal requests, by the JSON schema that the machine declares.

    The order of an object's names and of a set's members does not count, nor does an argument or field with its default, which is the
    same as one left out; 1 and 1.0 are the same number, as are the spellings of a UUID, a decimal, a duration or a time in UTC.
    """
    return encode_sorted(_Reader(schema.get("$defs")).value(decode(raw or b"{}"), schema))


class _Reader:
    def __init__(self, definitions: Any) -> None:
        self.definitions = definitions if isinstance(definitions, Mapping) else {}

    def value(self, value: Any, schema: Any) -> Any:
        schema = self.fitting(value, schema)
        if isinstance(value, dict):
            return self.object(value, schema)
        if isinstance(value, list):
            return self.array(value, schema)
        if schema.get("type") == "number" and type(value) is int and abs(value) < 2**53:
            return float(value)
        kind = schema.get("format", "")
        spell = SPELLED.get(kind) if schema.get("type") == "string" and isinstance(kind, str) else None
        if spell is None or not (type(value) is str or (kind == "decimal" and type(value) in (int, float))):
            return value
        try:
            return spell(str(value))
        except (ValueError, ArithmeticError):
            return value

    def object(self, value: dict[str, Any], schema: Schema) -> dict[str, Any]:
        fields, others = _part(schema, "properties"), _part(schema, "additionalProperties")
        found = {}
        for name, given in value.items():
            described = fields.get(name, others)
            meant = self.value(given, described)
            if not (name in fields and self.is_default(meant, described)):
                found[name] = meant
        return found

    def is_default(self, meant: Any, described: Any) -> bool:
        if not (isinstance(described, Mapping) and "default" in described):
            return False
        return encode_sorted(meant) == encode_sorted(self.value(described["default"], described))

    def array(self, value: list[Any], schema: Schema) -> list[Any]:
        first = schema.get("prefixItems")
        described = list(first) if isinstance(first, Sequence) else []
        items = _part(schema, "items")
        found = [self.value(item, described[at] if at < len(described) else items) for at, item in enumerate(value)]
        while 0 < len(found) <= len(described) and self.is_default(found[-1], described[len(found) - 1]):
            found.pop()
        if schema.get("uniqueItems") is True:
            return [decode(one) for one in sorted({encode_sorted(item) for item in found})]
        return found

    def fitting(self, value: Any, schema: Any, within: int = 0) -> Schema:
        """The schema without references and choices; one that says nothing where several would fit."""
        if not isinstance(schema, Mapping) or within > DEEP:
            return ANYTHING
        if isinstance(reference := schema.get("$ref"), str):
            return self.fitting(value, self.definitions.get(reference.rpartition("/")[2]), within + 1)
        if isinstance(options := schema.get("anyOf"), list):
            found = [self.fitting(value, option, within + 1) for option in options]
            fit = [option for option in found if option is not ANYTHING and self.fits(value, option)]
            exact = [option for option in fit if option.get("type") != "number"] if type(value) is int else fit
            return (exact or fit)[0] if len(exact or fit) == 1 else ANYTHING
        return schema

    def fits(self, value: Any, schema: Schema) -> bool:
        """As far as tells apart what a declaration may offer as a choice: kinds of JSON, and objects or arrays by their tag."""
        choices = schema.get("enum")
        if isinstance(choices, list):
            return value in choices
        if schema.get("type") not in KINDS.get(type(value), ()) and not (schema.get("format") == "decimal" and type(value) in (int, float)):
            return False
        if isinstance(value, dict):
            fields = _part(schema, "properties")
            return all(name in value and value[name] in tags for name, tags in _tags(fields.items()))
        if isinstance(value, list) and isinstance(schema.get("prefixItems"), list):
            return all(at < len(value) and value[at] in tags for at, tags in _tags(enumerate(schema["prefixItems"][:1])))
        return True


IN_UTC = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d*[1-9])?)(?:\.?0*)?(?:[Zz]|[+-]00:00)")
"""A time in UTC, of which ``Z`` and ``+00:00`` are two spellings."""

DEEP = 100
"""References that lead to references: more are a circle."""

KINDS: dict[type, tuple[str, ...]] = {
    dict: ("object",),
    list: ("array",),
    str: ("string",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    type(None): ("null",),
}


def _tags(described: Any) -> list[tuple[Any, list[Any]]]:
    """The places where a tagged union's member has its one tag."""
    enums = [(place, one.get("enum")) for place, one in described if isinstance(one, Mapping)]
    return [(place, enum) for place, enum in enums if isinstance(enum, list) and len(enum) == 1]


def _part(schema: Schema, name: str) -> Schema:
    part = schema.get(name)
    return part if isinstance(part, Mapping) else ANYTHING


def _time(text: str) -> str:
    at = datetime.fromisoformat(text)
    return at.isoformat() if at.tzinfo is None else at.astimezone(UTC).isoformat()


def _decimal(text: str) -> str:
    number = Decimal(text)
    return format(number.normalize(), "f") if number.is_finite() and abs(number.adjusted()) < DEEP else text


def _text(text: str) -> str:
    """Of a datetime that may have no offset the schema says only that it is a text."""
    match = IN_UTC.fullmatch(text)
    return f"{match[1]}T{match[2]}Z" if match else text


def _duration(text: str) -> str:
    return str(msgspec.convert(text, timedelta))


def _time_of_day(text: str) -> str:
    return msgspec.convert(text, time).isoformat()


SPELLED: dict[str, Callable[[str], str]] = {
    "": _text,
    "uuid": lambda text: str(UUID(text)),
    "decimal": _decimal,
    "date-time": _time,
    "duration": _duration,
    "time": _time_of_day,
    "partial-time": _time_of_day,
}
"""Formats of a text in which one value may be written in several ways."""
