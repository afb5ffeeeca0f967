"""From a class body to a ``MachineSpec``: every rule of a declaration, all faults told together."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from functools import cached_property, partial, partialmethod
from typing import Any, TypeVar

import msgspec

from statemq.codec import time_limit_ms
from statemq.config import LIMITS, is_name
from statemq.declaration.data import is_exact
from statemq.declaration.guard import read_guard
from statemq.declaration.handlers import ANY, WRITTEN, Query, Transition, Written
from statemq.declaration.inherited import Options, options_of, parameters_of
from statemq.declaration.operation import UNENCODABLE
from statemq.declaration.signature import WRAPPED, Problem, Signature, compile_operation, doc, instead, is_async, may_wait, read_signature
from statemq.declaration.spec import NO_INITIAL, Case, MachineSpec, QuerySpec, TransitionSpec
from statemq.declaration.state import each
from statemq.declaration.states import States
from statemq.errors import DeclarationError, UsageError
from statemq.retry import Retry

MAX_PARTITIONS = 4096
RESERVED = ("data", "key", "spec", "state", "version")
"""Attributes that every machine has."""
HIDDEN = "what stands above @{} would hide it; put it below, around the function"


def declare(cls: type[Any], base: type[Any], options: Options, around: Mapping[str, Any]) -> MachineSpec | None:
    """The compiled declaration of ``cls``, its transitions bound to it; None for one without an initial state, which is a base of
    machines. Raises DeclarationError.

    ``base`` is Machine itself; ``around`` the names visible where the class statement stands.
    """
    return _Declaration(cls, base, options, around).compile()


def hides(value: Any, kind: type[Any]) -> bool:
    """A decorator has put something around a transition or query, which nobody would find there."""
    for _ in range(WRAPPED):
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, partial | partialmethod | cached_property):
            value = value.func
        elif inspect.isfunction(value):
            value = getattr(value, "__wrapped__", None)
        else:
            break
    return isinstance(value, kind)


def left_abstract(cls: type[Any]) -> set[str]:
    """The methods that ``cls`` was to define (``abc.abstractmethod``); Python looks for them only when an instance is made."""
    names = {name for ancestor in cls.__mro__ for name, value in vars(ancestor).items() if getattr(value, "__isabstractmethod__", False)}
    return {name for name in names if getattr(inspect.getattr_static(cls, name), "__isabstractmethod__", False)}


def snake_case(name: str) -> str:
    """``PaymentOrder`` → ``payment_order``, ``HTTPServer`` → ``http_server``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class _Declaration:
    """One class under examination; each method is one part of the rules and notes what it finds in ``problems``."""

    def __init__(self, cls: type[Any], base: type[Any], options: Options, around: Mapping[str, Any]) -> None:
        self.cls, self.base, self.options = cls, base, options_of(cls, options)
        self.scope = {**around, **vars(cls)}
        """What the annotations of the class's own methods may name besides their globals."""
        self.problems: list[str] = []
        self.name = snake_case(cls.__name__) if self.options.name is None else self.options.name
        self.states = States(self.problem)

    def compile(self) -> MachineSpec | None:
        data_type, status = self.parameters()
        self.options_are_right()
        for ancestor in self.cls.__mro__:
            if ancestor is not self.base and issubclass(ancestor, self.base) and "__init__" in vars(ancestor):
                self.problem("its __init__ is never called: give the fields of its data their defaults, and take it out")
        for name in () if self.is_a_base else sorted(left_abstract(self.cls)):
            self.problem(f"{name} is abstract: define it here, or leave out initial, for a base of machines")
        written = self.members(Transition)
        queries = self.members(Query)
        self.nothing_is_replaced()
        self.states.declare(status, self.written_states(written))
        initial = self.states.one("initial", self.options.initial) if self.options.initial is not None else ""
        final = frozenset(self.states.several("final", self.options.final))
        legacy = self.states.several("legacy", self.options.legacy)
        decode_data, default_data = self.data(data_type)
        specs: dict[str, TransitionSpec] = {}
        for attribute, transition in written.items():
            self.add(specs, self.transition(attribute, transition, final))
        asked: dict[str, QuerySpec] = {}
        for attribute, query in queries.items():
            spec = self.query(attribute, query)
            if spec and spec.name in specs:
                self.problem(f'"{spec.name}" names a transition and a query')
            self.add(asked, spec)
        if self.is_a_base and self.options.name is not None:
            self.problem(f"it has a name, which only a machine has; {NO_INITIAL}")
        elif not self.problems and not self.is_a_base:  # a half-read graph would only repeat faults in other words
            self.states.are_reachable(initial, legacy, specs.values())
        if self.problems:
            raise DeclarationError(self.cls.__name__, self.problems)
        for attribute, transition in written.items():
            transition.name = transition.name or attribute
            self.bind(attribute, transition, specs, transition.name)
        for attribute, query in queries.items():
            self.bind(attribute, query, asked, attribute)
        if self.is_a_base:
            return None
        return MachineSpec(
            cls=self.cls,
            name=self.name,
            initial=initial,
            final=final,
            legacy=legacy,
            partitions=self.options.partitions,
            retry=self.options.retry,
            on_failure=self.options.on_failure,
            states=tuple(self.states.names),
            members=self.states.members,
            data_type=data_type,
            transitions=specs,
            queries=asked,
            default_data=default_data,
            decode_data=decode_data,
            exact_data=data_type is not None and is_exact(data_type),
        )

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def at(self, where: str) -> Problem:
        """``problem`` for what is found in one place."""
        return lambda text: self.problem(f"{where}: {text}")

    # --- the class statement -------------------------------------------------------------------------------------

    @property
    def is_a_base(self) -> bool:
        """Its subclasses are machines, and say what it leaves open."""
        return self.options.initial is None

    def parameters(self) -> tuple[type[msgspec.Struct] | None, Any]:
        """Data and Status of ``Machine[Data, Status]``; None for what was left out."""
        data, status = parameters_of(self.cls, self.base)
        if data is None or data is type(None) or (self.is_a_base and isinstance(data, TypeVar)):
            return None, status
        if isinstance(data, type) and issubclass(data, msgspec.Struct):
            return data, status
        self.problem(f"data is a msgspec.Struct; {getattr(data, '__name__', data)} is none")
        return None, status

    def options_are_right(self) -> None:
        partitions, retry, on_failure = self.options.partitions, self.options.retry, self.options.on_failure
        self.check_name("machine", self.name)
        if type(partitions) is not int or not 1 <= partitions <= MAX_PARTITIONS:
            self.problem(f"partitions is a number from 1 to {MAX_PARTITIONS}, not {partitions!r}")
        if not isinstance(retry, Retry):
            self.problem(f"retry is a Retry, not {retry!r}")
        if on_failure not in ("skip", "pause"):
            self.problem(f'on_failure is "skip" or "pause", not {on_failure!r}')

    def check_name(self, kind: str, name: Any) -> None:
        if not (isinstance(name, str) and is_name(name)):
            self.problem(f'"{name}" cannot name a {kind}: a letter or "_", then letters, digits, "_"; at most {LIMITS.name}')

    def members(self, kind: type[Any]) -> dict[str, Any]:
        """The transitions or queries of the class and its bases by attribute, in the order in which they are written."""
        found: dict[str, Any] = {}
        for ancestor in reversed(self.cls.__mro__):
            for attribute, value in vars(ancestor).items():
                found.pop(attribute, None)
                if isinstance(value, kind):
                    found[attribute] = value
                elif hides(value, kind):
                    self.problem(f"{attribute}: {HIDDEN.format(kind.__name__.lower())}")
        for attribute in found:
            if attribute in RESERVED:
                self.problem(f'"{attribute}" is what every machine calls its {attribute}: give the method another name')
        return found

    def nothing_is_replaced(self) -> None:
        """No transition, query or method before one was lost to a second method of its name in the same class body."""
        for ancestor in self.cls.__mro__:
            kept = [value for value in vars(ancestor).values() if isinstance(value, Transition | Query)]
            cases = [case.fn for value in kept if isinstance(value, Transition) for case in value.cases]
            for name, what in vars(ancestor).get(WRITTEN, ()):
                now = vars(ancestor).get(name)
                if now is None or any(what is one for one in (*kept, *cases)):
                    continue
                ours = isinstance(now, Transition | Query)
                if ours or getattr(now, "__qualname__", None) == f"{ancestor.__qualname__}.{name}":
                    way = f"a case for another state is @{name}.when(...) with a name of its own" if ours else "give one another name"
                    self.problem(f"{name}: a second method of this name replaces the first; {way}")
                elif not callable(now) and not isinstance(now, property | classmethod | staticmethod):
                    self.problem(f"{name}: something else of this name replaces it; give one another name")
                elif not hides(now, type(what)):  # which is told already
                    self.problem(f"{name}: {HIDDEN.format(type(what).__name__.lower())}")

    def written_states(self, written: Mapping[str, Transition[Any, Any]]) -> list[Any]:
        """Every state that is named somewhere in the declaration."""
        cases = [case for transition in written.values() for case in transition.cases]
        named = [*each(self.options.initial if self.options.initial is not None else ()), *self.options.final, *self.options.legacy]
        for case in cases:
            named += [*case.source, *(case.target or ())]
        return [state for state in named if state != ANY]

    def data(self, data_type: type[msgspec.Struct] | None) -> tuple[Callable[[bytes], Any], bytes]:
        """The decoder of the data, and the defaults encoded."""
        if data_type is None:
            return msgspec.json.Decoder(type(None)).decode, b""
        try:
            fields = msgspec.structs.fields(data_type)
            if missing := [field.name for field in fields if field.required]:
                self.problem(f"every field of {data_type.__name__} needs a default; without one: {', '.join(missing)}")
                return msgspec.json.Decoder().decode, b""
            decoder = msgspec.json.Decoder(data_type)
            default = msgspec.json.encode(data_type())
            decoder.decode(default)
            msgspec.json.schema(data_type)  # tells what only an encoder hook of one's own could write
        except (*UNENCODABLE, NameError, AttributeError) as error:
            self.problem(f"{data_type.__name__} cannot be kept as JSON: {error}{instead(data_type)}")
            return msgspec.json.Decoder().decode, b""
        return decoder.decode, default

    # --- transitions and queries ---------------------------------------------------------------------------------

    def transition(self, attribute: str, transition: Transition[Any, Any], final: frozenset[str]) -> TransitionSpec | None:
        name = transition.name or attribute
        self.check_name("transition", name)
        first: Signature | None = None
        cases: list[Case] = []
        ranks: dict[str, tuple[int, Case]] = {}
        for number, written in enumerate(transition.cases):
            where = name if number == 0 else f"{name}.when {getattr(written.fn, '__name__', written.fn)}"
            signature = self.signature(where, written.fn, context=True)
            if number and getattr(written.fn, "__name__", "") == attribute:
                self.problem(f"{where}: a case needs a name of its own, this one replaces the transition")
            if number == 0:
                first = signature
            elif first and signature and not signature.same_call(first):
                self.problem(f"{where}: it must take the same arguments as {name} and return the same type")
            case, rank = self.case(where, name, written, signature, final)
            cases.append(case)
            for state in case.sources:
                known = ranks.get(state)
                if known and known[0] == rank:
                    self.problem(f"{where}: {name} has two cases for {state}")
                elif not known or rank < known[0]:
                    ranks[state] = rank, case
        if first is None:
            return None
        return TransitionSpec(
            **compile_operation(self.name, name, transition.cases[0].fn, first),
            cases=tuple(cases),
            by_state={state: case for state, (_, case) in ranks.items()},
        )

    def case(self, where: str, transition: str, written: Written, signature: Signature | None, final: frozenset[str]) -> tuple[Case, int]:
        """The compiled case, and how widely it was meant: 1 one state, 2 several, 3 ANY."""
        if written.source == (ANY,):
            sources, rank = tuple(state for state in self.states.names if state not in final), 3
        else:
            sources = self.states.several(f"{where}: source", written.source)
            rank = 1 if len(sources) == 1 else 2
        targets = None if written.target is None else self.states.several(f"{where}: target", written.target)
        if not written.source:
            self.problem(f"{where}: it has no source state")
        if targets == ():
            self.problem(f"{where}: target is empty; leave it out for a transition that stays in its state")
        for state in sources:
            if state in final and targets and targets != (state,):
                self.problem(f"{where}: {state} is final, but this leads out of it")
        if written.retry is not None and not isinstance(written.retry, Retry):
            self.problem(f"{where}: retry is a Retry, not {written.retry!r}")
        pure = not may_wait(written.fn)
        return Case(
            transition=transition,
            fn=written.fn,
            pure=pure,
            has_ctx=signature is not None and signature.has_ctx,
            sources=sources,
            targets=targets,
            guard=None if written.guard is None else read_guard(written.guard, signature, self.at(f"{where}: guard")),
            retry=written.retry,
            timeout_ms=None if written.timeout is None else self.timeout(where, written.timeout, pure),
            doc=doc(written.fn),
        ), rank

    def timeout(self, where: str, timeout: Any, pure: bool) -> int:
        """In ms."""
        if pure:
            self.problem(f"{where}: timeout is for async def; a plain def runs at once and cannot be stopped: make it async def")
        try:
            return time_limit_ms(timeout)
        except UsageError as error:
            self.problem(f"{where}: {error}")
            return 0

    def query(self, attribute: str, query: Query[Any, Any]) -> QuerySpec | None:
        self.check_name("query", attribute)
        if is_async(query.fn):
            self.problem(f"{attribute}: a query is a plain def, it only reads")
        signature = self.signature(attribute, query.fn, context=False)
        return None if signature is None else QuerySpec(**compile_operation(self.name, attribute, query.fn, signature), fn=query.fn)

    def signature(self, where: str, fn: Any, context: bool) -> Signature | None:
        if not inspect.isfunction(fn):
            self.problem(f"{where}: it must be a function, not {type(fn).__name__}: write a def or async def, which may call it")
            return None
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            self.problem(f"{where}: it is a generator; return the result")
            return None
        own = (fn.__module__, fn.__qualname__.rpartition(".")[0]) == (self.cls.__module__, self.cls.__qualname__)
        return read_signature(fn, self.scope if own else {}, context, self.at(where))

    def add(self, specs: dict[str, Any], spec: TransitionSpec | QuerySpec | None) -> None:
        if spec is not None:
            if spec.name in specs:
                self.problem(f'"{spec.name}" is declared twice')
            specs[spec.name] = spec

    def bind(self, attribute: str, written: Any, specs: Mapping[str, Any], name: str) -> None:
        """Calling the transition or query on this class makes commands, or questions, of this class; a base keeps its own."""
        if attribute not in vars(self.cls):
            written = copy.copy(written)
            setattr(self.cls, attribute, written)
        written.complete = f"{self.cls.__name__ if self.is_a_base else self.name}.{name}"
        if not self.is_a_base:
            written.machine, written.spec = self.cls, specs[name]
