"""What goes into a transition or query and what comes out, as JSON: compiled once from a signature."""

from __future__ import annotations

import re
from asyncio import Future
from collections.abc import Callable, Mapping
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

import msgspec

from statemq.codec import check_depth, encode_exact
from statemq.errors import Fail, InvalidArguments

UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What the encoder raises for a value that JSON cannot hold."""


PLAIN = (str, int, bool, type(None))
"""Types whose every value is right JSON of that type."""


class InvalidResult(Fail, ValueError):
    """A body ended with a result, state or data that it did not declare: the command fails for good, nothing changes."""


class Operation(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Arguments and result of one transition or query; ``arguments`` is the Struct made of its parameters."""

    machine: str
    name: str
    doc: str
    names: tuple[str, ...]
    positional: int
    """How many of ``names`` may be given without their name."""
    required: frozenset[str]
    arguments: type[msgspec.Struct]
    schema: dict[str, Any]
    """Of the arguments, as JSON schema."""
    result_type: Any
    plain_result: Any
    """The type whose values need no second look: equal to ``result_type``, or one that nothing has."""
    decode_struct: Callable[[bytes], msgspec.Struct]
    decode_result: Callable[[bytes], Any]
    """The result as the declared type."""

    def encode_arguments(self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = {}) -> bytes:
        """The JSON object of these arguments, which ``decode_arguments`` accepts. Raises InvalidArguments."""
        if not args and not kwargs and not self.required:
            return b"{}"
        try:
            raw = encode_exact(self._bind(args, kwargs))
        except UNENCODABLE as error:
            raise self._invalid(f"JSON cannot hold the arguments: {error}") from None
        self.decode_arguments(raw)
        return raw

    def decode_arguments(self, raw: bytes) -> dict[str, Any]:
        """The keyword arguments for the function, defaults filled in. Raises InvalidArguments."""
        if not self.names and raw == b"{}":
            return {}
        try:
            check_depth(raw)
            return msgspec.structs.asdict(self.decode_struct(raw or b"{}"))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._invalid(explain(error, self.names)) from None

    def encode_result(self, value: Any) -> bytes:
        """The result as JSON. Raises InvalidResult when it is not JSON or not what the signature says."""
        if type(value) is not self.plain_result and (left := unfinished(value)):
            raise InvalidResult(f"{self.machine}.{self.name} returned {left} and return what that gives", "result")
        try:
            raw = encode_exact(value)
        except UNENCODABLE as error:
            raise InvalidResult(f"{self.machine}.{self.name} returned what JSON cannot hold: {error}", "result") from None
        if type(value) is not self.plain_result:
            try:
                self.decode_result(raw)
            except msgspec.ValidationError as error:
                raise InvalidResult(f"{self.machine}.{self.name} returned another type than declared: {explain(error)}", "result") from None
        return raw

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if len(args) > self.positional:
            raise self._invalid(f"{len(args)} arguments were given by position, {self.positional} can be; {takes(self.names)}")
        given = dict(zip(self.names, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise self._invalid(f'argument "{name}" was given twice')
            if name not in self.names:
                raise self._invalid(f'argument "{name}" is unknown; {takes(self.names)}')
            given[name] = value
        for name in self.names:
            if name in self.required and name not in given:
                raise self._invalid(f'argument "{name}" is missing')
        return {name: given[name] for name in self.names if name in given}

    def _invalid(self, why: str) -> InvalidArguments:
        return InvalidArguments(self.machine, self.name, why)


def unfinished(value: Any) -> str:
    """What a function has left undone that returned this, and what is to be done; empty for a value. A coroutine is closed."""
    kind = type(value)
    if kind in (CoroutineType, GeneratorType):
        value.close()
    elif isinstance(value, Future):  # a task would go on beside whatever comes next
        value.cancel()
    if hasattr(kind, "__await__"):
        what = "a coroutine" if kind is CoroutineType else f"{kind.__name__}, an awaitable,"
        return f"{what} that nobody has awaited: await it in an async def"
    if kind in (GeneratorType, AsyncGeneratorType):
        return f"{'a generator' if kind is GeneratorType else 'an async generator'}: collect its values"
    return ""


def takes(names: tuple[str, ...]) -> str:
    """What a caller may give, for an error's end."""
    return f"it takes {', '.join(names)}" if names else "it takes no arguments"


def explain(error: Exception, names: tuple[str, ...] | None = None) -> str:
    """A decoding error in words of the caller: the place first, no JSON paths. ``names`` when it is about arguments.

    >>> explain(msgspec.ValidationError("Expected `int`, got `str` - at `$.size`"))
    'size: expected int, got str'
    """
    text = str(error)
    if names is not None:
        if match := re.fullmatch(r"Object missing required field `([^`]+)`", text):
            return f'argument "{match[1]}" is missing'
        if match := re.fullmatch(r"Object contains unknown field `([^`]*)`", text):
            return f'argument "{match[1]}" is unknown; {takes(names)}'
        if match := re.fullmatch(r"Expected `object`, got `([^`]+)`", text):
            return f"arguments are a JSON object, not {match[1]}"
    text, _, place = text.replace("`", "").partition(" - at ")
    place = place.removeprefix("$").removeprefix(".")
    return f"{place}: {text[:1].lower()}{text[1:]}" if place else text
