"""A declared machine, compiled: what the worker, the client and the edges ask it. Frozen; no Redis, no clocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from statemq.codec import encode, encode_exact
from statemq.config import FIRST_SCHEMA
from statemq.declaration.data import carried, same
from statemq.declaration.guard import Guard
from statemq.declaration.inherited import is_machine_class
from statemq.declaration.operation import UNENCODABLE, InvalidResult, Operation, explain
from statemq.declaration.state import name_of
from statemq.errors import DeclarationError, Reject, UnknownTransition, UsageError
from statemq.retry import Retry

NO_INITIAL = "it has no initial state: class X(Machine[...], initial=...)"


class Case(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """What a transition does in some states. Call ``fn(instance, [ctx,] **arguments)``."""

    transition: str
    fn: Callable[..., Any]
    pure: bool
    """A plain ``def``: it returns its result; otherwise it is ``async def``."""
    has_ctx: bool
    sources: tuple[str, ...]
    targets: tuple[str, ...] | None
    """None: the instance stays in its state."""
    guard: Guard | None
    retry: Retry | None
    timeout_ms: int | None
    """What one attempt may take, beside what it sleeps."""
    doc: str

    def refused(self, instance: Any, arguments: Mapping[str, Any]) -> Reject | None:
        """The guard's refusal, or None. ``arguments`` are those of ``decode_arguments``."""
        return None if self.guard is None else self.guard.refusal(instance, arguments)

    def check_guard(self, instance: Any, arguments: Mapping[str, Any]) -> str | None:
        """Why the guard refuses, or None."""
        refusal = self.refused(instance, arguments)
        return None if refusal is None else refusal.reason


class TransitionSpec(Operation, frozen=True, eq=False, kw_only=True):
    """A command that the machine knows: its arguments and result, and the case for each state."""

    cases: tuple[Case, ...]
    by_state: dict[str, Case]

    def case(self, state: str) -> Case | None:
        """The one that applies in this state: one named state beats several, several beat ANY."""
        return self.by_state.get(state)


class QuerySpec(Operation, frozen=True, eq=False, kw_only=True):
    """A read-only question; call ``fn(instance, **arguments)``."""

    fn: Callable[..., Any]


class MachineSpec(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Everything declared about a machine."""

    cls: type[Any]
    name: str
    initial: str
    final: frozenset[str]
    legacy: tuple[str, ...]
    """States that nothing leads into any more."""
    partitions: int
    retry: Retry
    on_failure: str
    """"skip" or "pause": what happens to an instance after a command failed for good."""
    states: tuple[str, ...]
    members: dict[str, Any]
    """State name → what a body sees in ``self.state`` (the member of the Status enum, or the name)."""
    data_type: type[msgspec.Struct] | None
    transitions: dict[str, TransitionSpec]
    queries: dict[str, QuerySpec]
    default_data: bytes
    decode_data: Callable[[bytes], Any]
    exact_data: bool
    """Values of the data differ whenever their JSON does (``data.is_exact``)."""

    @property
    def schema(self) -> int:
        """The version of the data in Redis that stores all that this machine uses."""
        return FIRST_SCHEMA

    def transition(self, name: str) -> TransitionSpec:
        """The transition of that name. Raises UnknownTransition."""
        try:
            return self.transitions[name]
        except KeyError:
            raise UnknownTransition(self.name, name, list(self.transitions)) from None

    def query(self, name: str) -> QuerySpec:
        """The query of that name. Raises UnknownTransition."""
        try:
            return self.queries[name]
        except KeyError:
            raise UnknownTransition(self.name, name, list(self.queries), "query") from None

    def allowed(self, state: str) -> list[str]:
        """The transitions that have a case for this state; guards are not asked."""
        return [name for name, transition in self.transitions.items() if state in transition.by_state]

    def refusal(self, transition: str, state: str, key: str) -> str:
        """``resource/a is UP; setUp needs DOWN``."""
        by_state = self.transitions[transition].by_state
        *most, last = [name for name in self.states if name in by_state] or ["a state that is not final"]
        needs = f"{', '.join(most)} or {last}" if most else last
        return f"{self.name}/{key} is {state}; {transition} needs {needs}"

    def new_data(self) -> bytes | None:
        """The data of an instance that no command has changed yet, as JSON; None for a machine without data."""
        return None if self.data_type is None else self.default_data

    def build(self, key: str, state: str, version: int, data: bytes | None) -> Any:
        """An instance for one attempt, with a copy of its own of the data (None or empty: the defaults).

        Raises ValueError when what is stored does not fit this version of the class.
        """
        member = self.members.get(state)
        if member is None:
            raise ValueError(undeclared(self, key, state))
        instance = object.__new__(self.cls)
        instance.key, instance.state, instance.version, instance._before = key, member, version, member
        instance.data = self.read_data(key, data)
        return instance

    def read_data(self, key: str, data: bytes | None) -> Any:
        """The stored data (None or empty: the defaults) as this class has it. Raises ValueError when it does not fit."""
        if self.data_type is None:
            return None
        try:
            return self.decode_data(data or self.default_data)
        except Exception as error:  # noqa: BLE001 - a __post_init__ is the user's code: what it raises says that it takes no such data
            why = explain(error) if isinstance(error, ValueError | RecursionError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.name}/{key}: the stored data does not fit {self.data_type.__name__}: {why}") from None

    def encode_data(self, instance: Any) -> bytes:
        """The instance's data as JSON that ``build`` accepts; empty for a machine without data. Raises InvalidResult."""
        return b"" if self.data_type is None else self._encoded(instance, self.data_type)[0]

    def revise(self, instance: Any, stored: bytes, own: bool) -> tuple[bytes, bool]:
        """The data to store after a body: ``stored`` itself if no value has changed, else the new one, with what another version of the
        class has stored beside what this one knows (``statemq.declaration.data``).

        ``own``, and the second value: it is known to be as this class writes it, with nothing else in it. Raises InvalidResult.
        """
        if self.data_type is None:
            return stored, own  # another version's
        raw, new = self._encoded(instance, self.data_type)
        if raw == stored:
            return stored, True
        if own and self.exact_data:
            return raw, True
        old = self.decode_data(stored)
        if same(old, new):
            return stored, own
        if own or encode(old) == stored:
            return raw, True
        stands = carried(old, stored, new, raw)
        return stands, stands == raw

    def _encoded(self, instance: Any, expected: type[msgspec.Struct]) -> tuple[bytes, Any]:
        """The data as JSON, and as it will be read."""
        data = instance.data
        if type(data) is not expected:
            raise InvalidResult(f"{self.name}/{instance.key}: self.data is {type(data).__name__}, not {expected.__name__}", "data")
        try:
            raw = encode_exact(data)
            # Structs do not check assignments: what could not be read back would block the instance for ever.
            return raw, self.decode_data(raw)
        except UNENCODABLE as error:
            why = f"self.data does not fit {expected.__name__}: {explain(error)}"
            raise InvalidResult(f"{self.name}/{instance.key}: {why}", "data") from None

    def finish(self, case: Case, instance: Any) -> str:
        """The state after the body has returned. Raises InvalidResult for a state outside the case's targets."""
        targets = case.targets
        if targets is not None and len(targets) == 1 and instance.state is instance._before:  # nearly always
            return targets[0]
        before = name_of(instance._before)
        state = before if instance.state is instance._before else name_of(instance.state)
        if targets is None:
            if state == before:
                return state
            wrong = f"has no target, but its body set self.state to {state}"
        elif len(targets) == 1:
            if state == before or state == targets[0]:
                return targets[0]
            wrong = f"has the target {targets[0]}, but its body set self.state to {state}"
        elif state in targets:
            return state
        elif state == before:
            wrong = f"must set self.state to one of {', '.join(targets)}; it is still {state}"
        else:
            wrong = f"set self.state to {state}; its targets are {', '.join(targets)}"
        raise InvalidResult(f"{self.name}/{instance.key}: {case.transition} {wrong}", "state")

    def graph(self) -> dict[str, Any]:
        """The declaration as plain JSON: what is kept in ``config`` and drawn by ``statemq graph``."""
        operations: list[Operation] = [*self.transitions.values(), *self.queries.values()]
        return {
            "name": self.name,
            "initial": self.initial,
            "final": [state for state in self.states if state in self.final],
            "legacy": list(self.legacy),
            "states": list(self.states),
            "transitions": [
                {
                    "name": transition.name,
                    "source": list(case.sources),
                    "target": None if case.targets is None else list(case.targets),
                    "guard": case.guard and case.guard.reason,
                    "doc": case.doc,
                }
                for transition in self.transitions.values()
                for case in transition.cases
            ],
            "queries": [{"name": query.name, "doc": query.doc} for query in self.queries.values()],
            "arguments": {operation.name: operation.schema for operation in operations},
            "results": {operation.name: msgspec.json.schema(operation.result_type) for operation in operations},
        }


def spec_of(machine: Any) -> MachineSpec:
    """What a machine's class declares. Raises UsageError for what is no such class, DeclarationError for a base of machines."""
    spec = getattr(machine, "spec", None)
    if isinstance(spec, MachineSpec):
        return spec
    if is_machine_class(machine):
        raise DeclarationError(machine.__name__, [NO_INITIAL])
    raise UsageError(f"{machine!r} is no machine; give its class, or its name")


def undeclared(spec: MachineSpec, key: str, state: str) -> str:
    """Why an instance in this state cannot be read."""
    return f"{spec.name}/{key} is in state {state}, which this version of {spec.name} does not declare"


def way_out(state: str) -> str:
    """What can be done about instances in a state that the class does not have any more."""
    return f'deploy a class that has {state} again, with legacy="{state}" and a transition out of it, or the former version'
