"""Checking arguments by the JSON schema that a declared machine keeps in Redis: for callers that have not its class.

The schema is the one ``MachineSpec.graph`` writes. It becomes msgspec types, so that such a caller is told the same
sentence as one with the class. What has no such type (a pattern with options msgspec lacks, a schema of a later
version) is accepted here; the worker checks again with the class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import msgspec

from statemq.declaration.operation import UNENCODABLE, explain

Schema = Mapping[str, Any]
UNTYPABLE = (*UNENCODABLE, re.error)
"""What msgspec raises for a type it cannot make a decoder of."""

_SCALARS = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}
_LIMITS = {
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "pattern": "pattern",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
}


def validator(schema: Schema) -> Callable[[bytes], None]:
    """A function that raises ValueError, in one sentence, for JSON that does not fit ``schema``."""
    types = _Types(schema.get("$defs", {}))
    root = types.resolve(schema)
    names = tuple(root.get("properties", ()))
    try:
        decode = msgspec.json.Decoder(types.type_of(schema)).decode
    except UNTYPABLE:  # more than msgspec's types can say together: at least it is JSON
        decode = msgspec.json.Decoder().decode

    def validate(raw: bytes) -> None:
        try:
            decode(raw or b"{}")
        except (ValueError, RecursionError) as error:
            raise ValueError(explain(error, names)) from None

    return validate


class _Types:
    """From the schemas of one document to types; ``$defs`` may refer to themselves."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self.definitions = definitions
        self.made: dict[str, Any] = {}

    def resolve(self, schema: Schema) -> Schema:
        """The schema itself, or the one it refers to."""
        reference = schema.get("$ref")
        return self.definitions.get(_definition(reference), {}) if isinstance(reference, str) else schema

    def type_of(self, schema: Any) -> Any:
        """The type of the values that fit; Any where that cannot be said."""
        if not isinstance(schema, Mapping):
            return Any
        if isinstance(reference := schema.get("$ref"), str):
            return self.referred(_definition(reference))
        if isinstance(choices := schema.get("enum"), list):
            return Literal[tuple(choices)] if choices and all(isinstance(c, str | int) for c in choices) else Any
        if "const" in schema:
            return Literal[schema["const"]] if isinstance(schema["const"], str | int) else Any
        if isinstance(options := schema.get("anyOf"), list):
            return self.union([self.type_of(option) for option in options])
        kind = schema.get("type")
        if isinstance(kind, list):
            return self.union([self.type_of({**schema, "type": one}) for one in kind])
        if kind == "array":
            return _limited(self.array(schema), schema, ("minItems", "maxItems"))
        if kind == "object":
            return self.object(schema)
        if kind == "string":
            # a format (date-time, uuid, ...) is a text here: the class knows which one exactly
            return _limited(str, schema, ("pattern", "minLength", "maxLength"))
        if kind in ("integer", "number"):
            return _limited(_SCALARS[kind], schema, ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"))
        return _SCALARS.get(kind, Any) if isinstance(kind, str) else Any

    def referred(self, name: str) -> Any:
        """The type of a definition; one that contains itself is checked to the first repetition."""
        if name not in self.made:
            self.made[name] = Any
            self.made[name] = self.type_of(self.definitions.get(name))
        return self.made[name]

    def union(self, options: list[Any]) -> Any:
        """Any of the options, as far as msgspec can tell them apart by their JSON."""
        united = reduce(or_, options) if options else Any
        return united if _decodable(united) else Any

    def array(self, schema: Schema) -> Any:
        items = schema.get("items")
        if isinstance(prefix := schema.get("prefixItems"), list):
            return tuple.__class_getitem__(tuple(self.type_of(item) for item in prefix)) if items is False else list[Any]
        return list.__class_getitem__(self.type_of(items))

    def object(self, schema: Schema) -> Any:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return dict.__class_getitem__((str, self.type_of(schema.get("additionalProperties"))))
        required = schema.get("required", ())
        fields: list[Any] = []
        for number, (name, described) in enumerate(properties.items()):
            # a property may be named like no identifier: the Struct's own names are numbers
            options: dict[str, Any] = {} if name in required else {"default": None}
            fields.append((f"f{number}", self.type_of(described), msgspec.field(name=name, **options)))
        closed = schema.get("additionalProperties") is False
        return msgspec.defstruct(str(schema.get("title", "Object")), fields, kw_only=True, forbid_unknown_fields=closed)


def _definition(reference: str) -> str:
    return reference.rpartition("/")[2]


def _limited(type_: Any, schema: Schema, limits: tuple[str, ...]) -> Any:
    given = {_LIMITS[limit]: schema[limit] for limit in limits if limit in schema}
    if not given:
        return type_
    try:
        limited = Annotated[type_, msgspec.Meta(**given)]
    except UNTYPABLE:
        return type_
    return limited if _decodable(limited) else type_


def _decodable(type_: Any) -> bool:
    try:
        msgspec.json.Decoder(type_)
    except UNTYPABLE:
        return False
    return True
