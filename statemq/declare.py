"""From a class body to a ``MachineSpec``: every rule of a declaration, all faults told together."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from statemq.config import LIMITS, is_name
from statemq.errors import DeclarationError
from statemq.handlers import ANY, Query, States, Transition, Written
from statemq.operation import UNENCODABLE
from statemq.retry import Retry
from statemq.signature import Signature, make_struct, plain_type, read_signature
from statemq.spec import Case, Guard, MachineSpec, QuerySpec, TransitionSpec

MAX_PARTITIONS = 4096
RESERVED = ("data", "key", "spec", "state", "version")
"""Attributes that every machine has."""


class Options(NamedTuple):
    """The keyword arguments of the class statement."""

    name: str | None
    initial: str | None
    final: States
    partitions: Any
    retry: Any
    on_failure: Any


def declare(cls: type[Any], base: type[Any], options: Options, around: Mapping[str, Any]) -> MachineSpec:
    """The compiled declaration of ``cls``, its transitions bound to it. Raises DeclarationError.

    ``base`` is Machine itself; ``around`` the names visible where the class statement stands.
    """
    return _Declaration(cls, base, options, around).compile()


def snake_case(name: str) -> str:
    """``PaymentOrder`` → ``payment_order``, ``HTTPServer`` → ``http_server``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class _Declaration:
    """One class under examination; each method is one part of the rules and notes what it finds in ``problems``."""

    def __init__(self, cls: type[Any], base: type[Any], options: Options, around: Mapping[str, Any]) -> None:
        self.cls, self.base, self.options = cls, base, options
        self.scope = {**around, **vars(cls)}
        self.problems: list[str] = []
        self.name = options.name or snake_case(cls.__name__)
        self.states: list[str] = []
        self.enum: type[Enum] | None = None
        self.open = False
        """Whether states are declared by being named: there is no Status."""

    def compile(self) -> MachineSpec:
        data_type, status = self.parameters()
        self.options_are_right()
        written = self.members(Transition)
        queries = self.members(Query)
        self.declare_states(status, written)
        initial = self.state("initial", self.options.initial) if self.options.initial is not None else ""
        final = frozenset(self.named_states("final", self.options.final))
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
        if self.options.initial is None:
            self.problem("it has no initial state: class X(Machine[...], initial=...)")
        elif not self.problems:  # a half-read graph would only repeat faults in other words
            self.states_are_reachable(initial, specs)
        if self.problems:
            raise DeclarationError(self.cls.__name__, self.problems)
        for attribute, transition in written.items():
            self.bind(attribute, transition, specs)
        return MachineSpec(
            cls=self.cls,
            name=self.name,
            initial=initial,
            final=final,
            partitions=self.options.partitions,
            retry=self.options.retry,
            on_failure=self.options.on_failure,
            states=tuple(self.states),
            members={state: self.member(state) for state in self.states},
            data_type=data_type,
            transitions=specs,
            queries=asked,
            default_data=default_data,
            decode_data=decode_data,
        )

    def problem(self, text: str) -> None:
        self.problems.append(text)

    # --- the class statement -------------------------------------------------------------------------------------

    def parameters(self) -> tuple[type[msgspec.Struct] | None, Any]:
        """Data and Status of ``Machine[Data, Status]``; None for what was left out."""
        for ancestor in self.cls.__mro__:
            for generic in ancestor.__dict__.get("__orig_bases__", ()):
                if get_origin(generic) is self.base:
                    data, status = (*get_args(generic), None, None)[:2]
                    if data is None or data is type(None):
                        return None, status
                    if isinstance(data, type) and issubclass(data, msgspec.Struct):
                        return data, status
                    self.problem(f"data is a msgspec.Struct; {getattr(data, '__name__', data)} is none")
                    return None, status
        return None, None

    def options_are_right(self) -> None:
        partitions, retry, on_failure = self.options.partitions, self.options.retry, self.options.on_failure
        self.check_name("machine", self.name)
        if type(partitions) is not int or not 1 <= partitions <= MAX_PARTITIONS:
            self.problem(f"partitions is a number from 1 to {MAX_PARTITIONS}, not {partitions!r}")
        if not isinstance(retry, Retry):
            self.problem(f"retry is a Retry, not {retry!r}")
        if on_failure not in ("skip", "pause"):
            self.problem(f'on_failure is "skip" or "pause", not {on_failure!r}')

    def check_name(self, kind: str, name: str) -> None:
        if not is_name(name):
            self.problem(f'"{name}" cannot name a {kind}: a letter or "_", then letters, digits, "_"; at most {LIMITS.name}')

    def members(self, kind: type[Any]) -> dict[str, Any]:
        """The transitions or queries of the class and its bases by attribute, in the order in which they are written."""
        found: dict[str, Any] = {}
        for ancestor in reversed(self.cls.__mro__):
            for attribute, value in vars(ancestor).items():
                found.pop(attribute, None)
                if isinstance(value, kind):
                    found[attribute] = value
        for attribute in found:
            if attribute in RESERVED:
                self.problem(f'"{attribute}" is what every machine calls its {attribute}: give the method another name')
        return found

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
        except (*UNENCODABLE, NameError, AttributeError) as error:
            self.problem(f"{data_type.__name__} cannot be kept as JSON: {error}")
            return msgspec.json.Decoder().decode, b""
        return decoder.decode, default

    # --- states --------------------------------------------------------------------------------------------------

    def declare_states(self, status: Any, written: Mapping[str, Transition[Any, Any]]) -> None:
        if isinstance(status, type) and issubclass(status, str) and issubclass(status, Enum):
            self.enum = status
            self.states = [str(member.value) for member in status]
        elif get_origin(status) is Literal:
            self.states = [value for value in get_args(status) if isinstance(value, str)]
        elif status is None or status is str or not isinstance(status, type):
            self.open = True
            named: list[Any] = [self.options.initial] if self.options.initial is not None else []
            for transition in written.values():
                for case in transition.cases:
                    named += [*_several(case.source), *_several(case.target or ())]
            named += _several(self.options.final)
            self.states = list(dict.fromkeys(str(name) for name in named if name != ANY))
        else:
            self.problem(f"Status is a StrEnum, not {status.__name__}")
        for state in self.states:
            self.check_name("state", state)

    def state(self, where: str, value: Any) -> str:
        """The name of a state that was written somewhere, checked."""
        name = str(value.value) if isinstance(value, Enum) else value
        if not isinstance(name, str):
            self.problem(f"{where}: {value!r} is no state")
        elif name not in self.states or (self.enum and isinstance(value, Enum) and not isinstance(value, self.enum)):
            self.problem(f'{where}: there is no state "{name}"; there are: {", ".join(self.states) or "none"}')
        return str(name)

    def named_states(self, where: str, value: States) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.state(where, one) for one in _several(value)))

    def member(self, state: str) -> str:
        """What a body sees in ``self.state``."""
        return next((member for member in self.enum or () if member.value == state and isinstance(member, str)), state)

    def states_are_reachable(self, initial: str, specs: Mapping[str, TransitionSpec]) -> None:
        reached, ahead = {initial}, [initial]
        while ahead:
            state = ahead.pop()
            for spec in specs.values():
                case = spec.by_state.get(state)
                new = set(case.targets or ()) - reached if case else set()
                reached |= new
                ahead += new
        for state in self.states:
            if state not in reached:
                self.problem(f"no transition leads from {initial} to {state}")

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
            **self.operation(name, transition.cases[0].fn, first),
            cases=tuple(cases),
            by_state={state: case for state, (_, case) in ranks.items()},
        )

    def case(self, where: str, transition: str, written: Written, signature: Signature | None, final: frozenset[str]) -> tuple[Case, int]:
        """The compiled case, and how widely it was meant: 1 one state, 2 several, 3 ANY."""
        if written.source == ANY:
            sources, rank = tuple(state for state in self.states if state not in final), 3
        else:
            sources = self.named_states(f"{where}: source", written.source)
            rank = 1 if len(sources) == 1 else 2
        targets = None if written.target is None else self.named_states(f"{where}: target", written.target)
        if not sources and written.source != ANY:
            self.problem(f"{where}: it has no source state")
        if targets == ():
            self.problem(f"{where}: target is empty; leave it out for a transition that stays in its state")
        for state in sources:
            if state in final and targets and targets != (state,):
                self.problem(f"{where}: {state} is final, but this leads out of it")
        if written.retry is not None and not isinstance(written.retry, Retry):
            self.problem(f"{where}: retry is a Retry, not {written.retry!r}")
        return Case(
            transition=transition,
            fn=written.fn,
            pure=not inspect.iscoroutinefunction(written.fn),
            has_ctx=signature is not None and signature.has_ctx,
            sources=sources,
            targets=targets,
            guard=self.guard(where, written.guard, signature) if written.guard is not None else None,
            retry=written.retry,
            doc=_doc(written.fn),
        ), rank

    def guard(self, where: str, fn: Any, signature: Signature | None) -> Guard | None:
        where = f"{where}: guard"
        if not callable(fn) or isinstance(fn, Transition | Query):
            self.problem(f"{where} must be a function, not {fn!r}")
            return None
        if inspect.iscoroutinefunction(fn):
            self.problem(f"{where} is async; guards are pure functions")
        try:
            parameters = list(inspect.signature(fn).parameters.values())
        except (TypeError, ValueError) as error:
            self.problem(f"{where} has no readable signature: {error}")
            return None
        known = {parameter.name for parameter in signature.parameters} if signature else set()
        if not parameters or parameters[0].kind not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            self.problem(f"{where} must take the instance as its first parameter")
        names = []
        for parameter in parameters[1:]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and parameter.name in known:
                names.append(parameter.name)
            elif signature and parameter.default is parameter.empty:
                self.problem(f"{where} asks for {parameter.name}, which is no argument of the transition")
        name = getattr(fn, "__name__", type(fn).__name__)
        reason = _doc(fn) or ("its guard refuses" if name == "<lambda>" else f"guard {name} refuses")
        returns = getattr(fn, "__annotations__", {}).get("return", "")
        return Guard(fn, tuple(names), reason, returns is None or returns == "None")

    def query(self, attribute: str, query: Query[Any, Any]) -> QuerySpec | None:
        self.check_name("query", attribute)
        if inspect.iscoroutinefunction(query.fn):
            self.problem(f"{attribute}: a query is a plain def, it only reads")
        signature = self.signature(attribute, query.fn, context=False)
        return None if signature is None else QuerySpec(**self.operation(attribute, query.fn, signature), fn=query.fn)

    def signature(self, where: str, fn: Any, context: bool) -> Signature | None:
        if not inspect.isfunction(fn):
            self.problem(f"{where}: it must be a function, not {type(fn).__name__}")
            return None
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            self.problem(f"{where}: it is a generator; return the result")
            return None
        return read_signature(fn, self.scope, context, lambda text: self.problem(f"{where}: {text}"))

    def operation(self, name: str, fn: Callable[..., Any], signature: Signature) -> dict[str, Any]:
        """The fields that transitions and queries share."""
        parameters = signature.parameters
        arguments = make_struct(name, parameters)
        return {
            "machine": self.name,
            "name": name,
            "doc": _doc(fn),
            "names": tuple(parameter.name for parameter in parameters),
            "positional": sum(not parameter.keyword_only for parameter in parameters),
            "required": frozenset(parameter.name for parameter in parameters if parameter.default is msgspec.NODEFAULT),
            "arguments": arguments,
            "result_type": signature.result,
            "plain_result": plain_type(signature.result),
            "decode_struct": msgspec.json.Decoder(arguments).decode,
            "decode_result": msgspec.json.Decoder(signature.result).decode,
        }

    def add(self, specs: dict[str, Any], spec: TransitionSpec | QuerySpec | None) -> None:
        if spec is not None:
            if spec.name in specs:
                self.problem(f'"{spec.name}" is declared twice')
            specs[spec.name] = spec

    def bind(self, attribute: str, transition: Transition[Any, Any], specs: Mapping[str, TransitionSpec]) -> None:
        """Calling the transition on this class makes commands of this class; a base keeps its own."""
        if attribute not in vars(self.cls):
            transition = copy.copy(transition)
            setattr(self.cls, attribute, transition)
        transition.machine, transition.spec = self.cls, specs[transition.name or attribute]


def _several(value: Any) -> Iterable[Any]:
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


def _doc(fn: Any) -> str:
    """The first line of a docstring."""
    text = inspect.getdoc(fn) if inspect.isroutine(fn) else None
    return text.strip().partition("\n")[0] if text else ""
