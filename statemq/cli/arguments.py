"""The arguments of a transition or query, from words of the command line to a JSON object."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from statemq.cli.ends import command
from statemq.cli.values import Unreadable, read_value
from statemq.errors import InvalidArguments, UnknownTransition, UsageError

_PAIR = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:?=)(.*)", re.DOTALL)


def read_arguments(words: Sequence[str], graph: Mapping[str, Any], name: str, kind: str = "transition") -> dict[str, Any]:
    """The arguments for ``name``: a JSON object, ``-`` for one on stdin, or ``name=value`` and ``name:=JSON``.

    ``graph`` is the machine's declared one; ``name=value`` is read by the type declared there.
    Raises UnknownTransition, InvalidArguments.
    """
    machine = str(graph.get("name", ""))
    schema = graph.get("arguments", {}).get(name)
    transitions, queries = (list(dict.fromkeys(str(one["name"]) for one in graph.get(what, ()))) for what in ("transitions", "queries"))
    known, others = (queries, transitions) if kind == "query" else (transitions, queries)
    if name in others:
        is_a, verb = ("transition", "call") if kind == "query" else ("query", "query")
        raise UsageError(f"{name} is a {is_a} of {machine}: {command()} {verb} {machine} KEY {name}")
    if schema is None or name not in known:
        raise UnknownTransition(machine, name, known, kind)
    try:
        if len(words) == 1 and words[0] == "-":
            return _object(sys.stdin.buffer.read(), "stdin")
        if len(words) == 1 and words[0].lstrip().startswith(("{", "[", '"')):
            return _object(_utf8(words[0]), "the argument")
        return _pairs(words, schema)
    except Unreadable as error:
        raise InvalidArguments(machine, name, str(error)) from None


def _pairs(words: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    definitions = schema.get("$defs", {})
    root = definitions.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    declared: Mapping[str, Any] = root.get("properties", {})
    found: dict[str, Any] = {}
    for word in words:
        match = _PAIR.fullmatch(word)
        if match is None:
            raise Unreadable(f'"{word}" is no argument; write name=value, name:=JSON, or a single JSON object')
        name, sign, text = match.groups()
        if name in found:
            raise Unreadable(f'argument "{name}" was given twice')
        if name not in declared:
            takes = f"it takes {', '.join(declared)}" if declared else "it takes no arguments"
            raise Unreadable(f'argument "{name}" is unknown; {takes}')
        _utf8(text)
        found[name] = _json(text.encode(), name) if sign == ":=" else read_value(name, text, declared[name], definitions)
    return found


def _object(raw: bytes, where: str) -> dict[str, Any]:
    value = _json(raw or b"{}", where)
    if not isinstance(value, dict):
        raise Unreadable(f"arguments are a JSON object such as {{}}, and {where} holds another kind of JSON")
    return value


def _json(raw: bytes, where: str) -> Any:
    from statemq.codec import decode

    try:
        return decode(raw)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{where} is not valid JSON: {error}") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Unreadable("an argument is not valid UTF-8") from None
