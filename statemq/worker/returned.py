"""What a step's function returns: of which type, and there and back through JSON, so that the first run gives what a replay gives."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
import typing
import uuid
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from statemq.codec import decode, encode_exact
from statemq.config import LIMITS
from statemq.declaration.annotations import annotations_of
from statemq.declaration.data import fields_of
from statemq.declaration.defaults import types_within
from statemq.declaration.operation import PLAIN, UNENCODABLE, explain, unfinished
from statemq.declaration.signature import closure, json_type, type_name
from statemq.errors import Fail, StepConflict, TooLarge

R = TypeVar("R")


class Unknown:
    """As a step's type: nothing says it, so its result has to be one that JSON gives back as it was."""


class Partly(msgspec.Struct, frozen=True):
    """As a step's type: what its function says leaves open what some of it is, as ``dict[str, Any]`` or ``list[T]`` do."""

    type: Any


METHODS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
PLAINLY = (*METHODS, type)
TYPES = (type, typing.NewType)

NAMESAKES = (bytes, date, datetime, time, Decimal)
"""Built-in classes whose class methods make instances, such as ``datetime.now``."""

UNSAID: dict[Any, Any] = dict.fromkeys((uuid.uuid1, uuid.uuid3, uuid.uuid4, uuid.uuid5), uuid.UUID)
"""Functions of the standard library whose result does not come back from JSON as it was, and that have no annotation."""

PROMISES = (Awaitable, Coroutine, asyncio.Future, asyncio.Task)
"""What a plain function may say that it returns; its last parameter is what comes of it."""


def told(field: str, fn: Callable[..., Any], returns: Any) -> tuple[Any, bool]:
    """The type of the step's result, as the caller says, as its function says, or Unknown; and whether its call gives a coroutine by its
    definition (another callable may give one, too). Raises Fail for a type that JSON cannot carry."""
    type_, is_async = _told(fn)
    if returns is None:
        return type_, is_async
    if returns is not Any and not _carried(returns):
        raise Fail(f"JSON cannot carry returns={type_name(returns)} of step {field}: give a type of plain values, such as a Struct")
    return returns, is_async


def encode_result(field: str, returns: Any, result: Any) -> msgspec.Raw:
    """The result for the record. Raises Fail where a replay could not give it: no JSON, of another type than declared, or, of no
    declared type, one that would come back as something else; TooLarge."""
    if type(result) not in PLAIN and (left := unfinished(result)):
        raise Fail(f"step {field} returned {left} and return what that gives")
    try:
        raw = encode_exact(result)
    except UNENCODABLE as error:
        raise Fail(f"step {field} returned what JSON cannot hold: {error}") from error
    if len(raw) > LIMITS.step:
        raise TooLarge(f"the result of step {field}", len(raw), LIMITS.step)
    kept = msgspec.Raw(raw)
    if type(result) in PLAIN and returns in (type(result), Unknown, Any):
        return kept
    if returns is Unknown:
        if (changed := _changed(result, decode(raw))) is not None:
            inside = "" if changed is result else f" with {_a(changed)} in it"
            raise Fail(
                f"step {field} returned {_a(result)}{inside}, and nothing says so when its record is read: "
                "annotate what its function returns, or give returns="
            )
        return kept
    said = returns.type if isinstance(returns, Partly) else returns
    try:
        back = decoder(said)(kept)
    except (ValueError, RecursionError) as error:
        raise Fail(
            f"step {field} returned {_a(result)}, which does not fit {type_name(said)}: {explain(error)}; mend one of them"
        ) from error
    if said is not returns and (changed := _lost(result, back)) is not None:
        inside = "" if changed is result else f" with {_a(changed)} in it"
        raise Fail(
            f"step {field} returned {_a(result)}{inside}, and {type_name(said)} does not say so when its record is read: "
            "annotate more of what its function returns, or give returns="
        )
    return kept


def read_result(field: str, returns: Any, raw: msgspec.Raw) -> Any:
    """The recorded result, as a value of the step's type. Raises StepConflict if it was recorded for another one."""
    if isinstance(returns, Partly):
        returns = returns.type
    try:
        return decoder(Any if returns is Unknown else returns)(raw)
    except (ValueError, RecursionError) as error:
        why = f"was recorded with {_kind(raw)}, which does not fit {type_name(returns)}: {explain(error)}"
        raise StepConflict(field, f"{why}; give a step whose type has changed another name") from None


def _changed(value: Any, back: Any) -> Any:
    """The first value, from the outside, that JSON has not given back as it was, tuples as lists; None if there is none."""
    if type(value) is not type(back) and not (type(value) is tuple and type(back) is list):
        return value
    if isinstance(value, dict):
        if [*map(type, value)] != [*map(type, back)] or list(value) != list(back):
            return next((key for key in value if type(key) is not str), value)
        pairs = zip(value.values(), back.values(), strict=True)
    elif isinstance(value, list | tuple):
        pairs = zip(value, back, strict=True)
    else:
        return None if value == back else value
    return next((changed for one, other in pairs if (changed := _changed(one, other)) is not None), None)


def _lost(value: Any, back: Any) -> Any:
    """The first value that has not come back equal; whether as the same class is its type's to say, where that says anything."""
    if isinstance(value, dict) and isinstance(back, dict):
        if (other := next((key for key in value if key not in back), None)) is not None:
            return other
        pairs = [(one, back[key]) for key, one in value.items()]
    elif isinstance(value, list | tuple) and isinstance(back, list | tuple):
        pairs = list(zip(value, back, strict=False))
    elif (fields := fields_of(value)) is not None and (others := fields_of(back)) is not None:
        pairs = [(one, others[name]) for name, one in fields.items() if name in others]
    else:
        return None if value == back else value
    return next((lost for one, other in pairs if (lost := _lost(one, other)) is not None), None)


def _a(value: Any) -> str:
    name = "None" if value is None else type(value).__name__
    return name if value is None else f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def _kind(raw: msgspec.Raw) -> str:
    first = bytes(raw).lstrip()[:1]
    kinds = {b"{": "an object", b"[": "a list", b'"': "a text", b"t": "true", b"f": "false", b"n": "null"}
    return kinds.get(first, "a number")


# -- what a function says of itself --------------------------------------------------------------------


def _without_arguments(fn: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _inner(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The plain function of a method, or of an object that can be called; else ``fn``."""
    if isinstance(fn, types.MethodType):
        return fn.__func__
    if isinstance(fn, PLAINLY) or "__wrapped__" in getattr(fn, "__dict__", ()) or inspect.iscoroutinefunction(fn):
        return fn
    call = type(fn).__call__
    return call if isinstance(call, types.FunctionType) else fn


def _once(ask: Callable[[Callable[..., Any]], R]) -> Callable[[Callable[..., Any]], R]:
    """What is asked of a plain function is asked once, and forgotten with it; other callables may be equal without being the same."""
    answers: weakref.WeakKeyDictionary[Callable[..., Any], R] = weakref.WeakKeyDictionary()

    def answer(fn: Callable[..., Any]) -> R:
        if type(fn) is not types.FunctionType:
            return ask(fn)
        try:
            return answers[fn]
        except KeyError:
            return answers.setdefault(fn, ask(fn))

    return answer


@_once
def _told(fn: Callable[..., Any]) -> tuple[Any, bool]:
    """What a function says of its call: the type of what it gives, or Unknown, and whether it gives a coroutine."""
    fn = _without_arguments(fn)
    said = _said(fn)
    if said is Any or isinstance(said, TypeVar) or not _carried(said):
        return Unknown, _is_async(_inner(fn))
    return Partly(said) if _is_open(said) else said, _is_async(_inner(fn))


def _is_open(said: Any) -> bool:
    """Somewhere in values of this type may be anything."""
    return any(isinstance(info, msgspec.inspect.AnyType) for info in types_within(msgspec.inspect.type_info(said)))


@_once
def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn)


def _said(fn: Callable[..., Any]) -> Any:
    """What its call gives: itself, if it is a class or another type that can be called; else as its annotation says, or Any."""
    if not isinstance(fn, METHODS) and (isinstance(fn, TYPES) or typing.get_origin(fn) is not None):
        return fn
    owner = getattr(fn, "__self__", None)
    if isinstance(fn, types.BuiltinFunctionType):
        return owner if owner in NAMESAKES else Any
    inner = _inner(fn)
    hint = _annotated(inner)
    if owner is None and inner is not fn:  # an object that can be called
        owner = fn
    if hint is Any and owner is not None:
        hint = _annotation(inner, vars(owner if isinstance(owner, type) else type(owner)))
    if hint is typing.Self:
        return owner if isinstance(owner, type) else type(owner)
    return hint


@_once
def _annotated(fn: Callable[..., Any]) -> Any:
    """The function's return annotation, or Any where there is none that can be read."""
    unsaid = UNSAID.get(fn) if type(fn) is types.FunctionType else None
    return _annotation(fn, {}) if unsaid is None else unsaid


def _annotation(fn: Callable[..., Any], names: Mapping[str, Any]) -> Any:
    """It alone is read: names in the other annotations may be there for type checkers only."""

    def alone() -> None: ...

    try:
        within = inspect.unwrap(fn)
        alone.__annotations__ = {"return": annotations_of(fn)["return"]}
        around = {**names, **(closure(within) if isinstance(within, types.FunctionType) else {})}
        hint = typing.get_type_hints(alone, getattr(within, "__globals__", {}), around)["return"]
    except Exception:  # noqa: BLE001 - an annotation may be any text, and reading it runs it
        return Any
    if typing.get_origin(hint) in PROMISES:
        return typing.get_args(hint)[-1]
    return hint


@functools.lru_cache(maxsize=1024)
def _kept_decoder(type_: Any) -> Callable[[msgspec.Raw], Any]:
    return msgspec.json.Decoder(type_).decode


@functools.lru_cache(maxsize=1024)
def _kept_carried(type_: Any) -> bool:
    return json_type(type_)


def decoder(type_: Any) -> Callable[[msgspec.Raw], Any]:
    try:
        return _kept_decoder(type_)
    except TypeError:  # a type that cannot be hashed, such as Annotated with a list
        return msgspec.json.Decoder(type_).decode


def _carried(type_: Any) -> bool:
    try:
        return _kept_carried(type_)
    except TypeError:
        return json_type(type_)
