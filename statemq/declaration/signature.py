"""Reading a handler's signature: its arguments and result as types that JSON can carry."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import msgspec

from statemq.codec import INSTEAD, decode, encode, encode_sorted, is_pydantic
from statemq.context import Context
from statemq.declaration.defaults import schema_of
from statemq.declaration.operation import PLAIN, UNENCODABLE

Problem = Callable[[str], None]
"""Notes one fault of a declaration."""


WRAPPED = 100
"""So many decorators around each other are looked through."""


class Parameter(NamedTuple):
    name: str
    type: Any
    default: Any
    """msgspec.NODEFAULT when it must be given."""
    keyword_only: bool


class Signature(NamedTuple):
    """``(self, [ctx,] **parameters) -> result``."""

    parameters: tuple[Parameter, ...]
    result: Any
    has_ctx: bool

    def same_call(self, other: Signature) -> bool:
        """Whether both take the same arguments and return the same type; ``ctx`` does not count."""
        return (self.parameters, self.result) == (other.parameters, other.result)


def read_signature(fn: Callable[..., Any], scope: Mapping[str, Any], context: bool, problem: Problem) -> Signature | None:
    """The signature of a method, or None after ``problem`` was told what is wrong. ``context``: a second parameter may be ``ctx``."""
    try:
        hints = get_type_hints(fn, localns=dict(scope), include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        problem(f"its annotations cannot be resolved: {error}")
        return None
    given = list(inspect.signature(fn).parameters.values())
    if not given or given[0].kind not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        problem("its first parameter must be self")
        return None
    if hints.get(given[0].name) is Context or given[0].name == "ctx":
        problem("its first parameter must be self, before ctx")
        return None
    given.pop(0)
    has_ctx = context and bool(given) and (given[0].name == "ctx" or hints.get(given[0].name) is Context)
    if has_ctx:
        given.pop(0)
    parameters = [_read_parameter(parameter, hints, problem) for parameter in given]
    result = hints.get("return", Any)
    if not json_type(result):
        problem(f"JSON cannot carry its result type {type_name(result)}{instead(result)}")
        return None
    if None in parameters:
        return None
    return Signature(tuple(parameter for parameter in parameters if parameter is not None), result, has_ctx)


def _read_parameter(parameter: inspect.Parameter, hints: Mapping[str, Any], problem: Problem) -> Parameter | None:
    name, kind = parameter.name, parameter.kind
    if kind in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD):
        stars = "*" if kind is kind.VAR_POSITIONAL else "**"
        problem(f"{stars}{name} cannot be checked: name each argument")
    elif kind is kind.POSITIONAL_ONLY:
        problem(f"argument {name} is positional-only: arguments travel by name")
    elif name not in hints:
        problem(f"argument {name} has no type annotation")
    elif not json_type(hints[name]):
        problem(f"JSON cannot carry argument {name} of type {type_name(hints[name])}{instead(hints[name])}")
    else:
        default = msgspec.NODEFAULT if parameter.default is parameter.empty else parameter.default
        if default is msgspec.NODEFAULT or _fits(default, hints[name]):
            return Parameter(name, hints[name], default, kind is kind.KEYWORD_ONLY)
        problem(f"the default {default!r} of argument {name} is no {type_name(hints[name])}")
    return None


def compile_operation(machine: str, name: str, fn: Callable[..., Any], signature: Signature) -> dict[str, Any]:
    """The fields of an ``Operation``, decoders made."""
    parameters = signature.parameters
    arguments = _make_struct(name, parameters)
    return {
        "machine": machine,
        "name": name,
        "doc": doc(fn),
        "names": tuple(parameter.name for parameter in parameters),
        "positional": sum(not parameter.keyword_only for parameter in parameters),
        "required": frozenset(parameter.name for parameter in parameters if parameter.default is msgspec.NODEFAULT),
        "arguments": arguments,
        "result_type": signature.result,
        "plain_result": signature.result if signature.result in PLAIN else _Nothing,
        "schema": schema_of(arguments),
        "decode_struct": msgspec.json.Decoder(arguments).decode,
        "decode_result": msgspec.json.Decoder(signature.result).decode,
    }


def _make_struct(name: str, parameters: tuple[Parameter, ...]) -> type[msgspec.Struct]:
    """The Struct of these arguments; each decoding has defaults of its own, unknown names are refused."""
    fields: list[Any] = []
    for name_, type_, default, _ in parameters:
        if default is msgspec.NODEFAULT:
            fields.append((name_, type_))
        elif default is None or isinstance(default, str | int | float):
            fields.append((name_, type_, default))
        else:
            shown = msgspec.Meta(extra_json_schema={"default": decode(encode_sorted(default))})
            fields.append((name_, Annotated[type_, shown], msgspec.field(default_factory=partial(copy.deepcopy, default))))
    return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)


def is_async(fn: Any) -> bool:
    """Whether the function is ``async def``, or a plain decorator (``functools.wraps``) around one."""
    for _ in range(WRAPPED):
        if inspect.iscoroutinefunction(fn):
            return True
        if (fn := getattr(fn, "__wrapped__", None)) is None:
            return False
    return False


def may_wait(fn: Any) -> bool:
    """Whether its call may give a coroutine: ``is_async``, or made by a decorator from what may wait, without a word of it."""
    seen: set[int] = set()
    rest = [fn]
    while rest:
        one = rest.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if is_async(one):
            return True
        if isinstance(one, FunctionType):
            rest += [called for held in closure(one).values() for called in _called(held)]
        else:
            rest += _called(one)
    return False


def _called(held: Any) -> list[Any]:
    """The functions that a decorator may call by what it holds: itself, or in a partial, a method, a list or an object of its own."""
    if isinstance(held, FunctionType):
        return [held]
    if isinstance(held, partial):
        return [held.func]
    if isinstance(held, MethodType):
        return [held.__func__]
    if isinstance(held, list | tuple):
        within: Iterable[Any] = held[:WRAPPED]
    elif isinstance(held, type | ModuleType):
        within = ()
    else:
        within = [type(held).__call__ if callable(held) else None, *getattr(held, "__dict__", {}).values()]
    return [one for one in within if isinstance(one, FunctionType | partial | MethodType)]


def closure(fn: FunctionType) -> dict[str, Any]:
    """What the function uses of the functions around it."""
    found = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        with suppress(ValueError):  # not set yet
            found[name] = cell.cell_contents
    return found


def doc(fn: Any) -> str:
    """The first line of a function's docstring."""
    return (inspect.getdoc(fn) or "").strip().partition("\n")[0]


class _Nothing:
    """No value has this type."""


def json_type(type_: Any) -> bool:
    """Whether JSON can carry values of this type."""
    try:
        msgspec.json.Decoder(type_)
        msgspec.json.schema(type_)
    except (TypeError, ValueError, NameError, AttributeError):
        return False
    return True


def instead(type_: Any) -> str:
    """What to write in place of a type that has a pydantic model in it; empty for one that has none."""
    seen: set[int] = set()
    rest = [type_]
    while rest:
        one = rest.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if is_pydantic(one):
            return f"; in place of the pydantic model {one.__name__} {INSTEAD}"
        rest += get_args(one)
        if isinstance(one, type) and one.__module__ != "builtins":
            with suppress(NameError, TypeError, AttributeError):
                rest += get_type_hints(one).values()
    return ""


def _fits(value: Any, type_: Any) -> bool:
    try:
        msgspec.json.decode(encode(value), type=type_)
    except UNENCODABLE:
        return False
    return True


def type_name(type_: Any) -> str:
    return type_.__name__ if isinstance(type_, type) else str(type_)
