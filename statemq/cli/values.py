"""``name=value``: reading a value by the JSON schema of its declared type."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
LONGEST = 300
"""Digits of an integer; what has more was not written by hand, and Python refuses to read it at some length."""
_ORDER = ("null", "boolean", "integer", "number", "string")
"""What is tried first when a value may be of several types: the narrow ones."""
_CALLED = {"null": "null", "boolean": "true or false", "integer": "an integer", "number": "a number", "string": "text"}


class Unreadable(Exception):
    """The words do not make arguments; its text says why."""


def read_value(name: str, text: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    """The value of ``text`` as the declared type. Raises Unreadable, also for types that need JSON.

    >>> read_value("size", "3", {"type": "integer"}, {}), read_value("note", "3", {"type": "string"}, {})
    (3, '3')
    """
    options = list(_options(schema, definitions))
    choices = [choice for option in options for choice in option.get("enum", [])]
    for choice in choices:
        if text == _as_text(choice):
            return choice
    kinds = {kind for option in options if "enum" not in option for kind in _kinds(option)}
    for kind in _ORDER:
        if kind in kinds and (read := _read(kind, text)) is not None:
            return read[0]
    needs_json = kinds & {"array", "object"}
    readable = [_CALLED[kind] for kind in _ORDER if kind in kinds]
    if needs_json:
        raise Unreadable(f"{name} is an {min(needs_json)}; write {name}:=JSON, such as {name}:='{_SAMPLE[min(needs_json)]}'")
    raise Unreadable(f'{name} is {" or ".join([*map(_as_text, choices), *readable])}, not "{text}"')


_SAMPLE = {"array": "[1, 2]", "object": '{"a": 1}'}


def _options(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The schema's alternatives, references followed."""
    if depth > 16:  # a definition of itself is an object somewhere, and needs JSON anyway
        return
    if isinstance(reference := schema.get("$ref"), str):
        yield from _options(definitions.get(reference.rpartition("/")[2], {}), definitions, depth + 1)
    elif isinstance(alternatives := schema.get("anyOf"), list):
        for alternative in alternatives:
            yield from _options(alternative, definitions, depth + 1)
    elif "const" in schema:
        yield {"enum": [schema["const"]]}
    else:
        yield schema


def _kinds(option: Mapping[str, Any]) -> list[str]:
    kind = option.get("type")
    if kind is None:
        return list(_ORDER)
    return [str(one) for one in kind] if isinstance(kind, list) else [str(kind)]


def _read(kind: str, text: str) -> tuple[Any] | None:
    """The value in a 1-tuple (it may be null), or None when the text is no such value."""
    if kind == "null" and text == "null":
        return (None,)
    if kind == "boolean" and text in ("true", "false"):
        return (text == "true",)
    if kind == "integer" and len(text) <= LONGEST and _INTEGER.fullmatch(text):
        return (int(text),)
    if kind == "number" and _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return (number,)
    return (text,) if kind == "string" else None


def _as_text(choice: Any) -> str:
    return {None: "null", True: "true", False: "false"}[choice] if choice is None or isinstance(choice, bool) else str(choice)
