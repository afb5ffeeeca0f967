"""What a user subclasses: a machine with its states and data."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, ClassVar, Generic, Literal, Never

from typing_extensions import TypeVar

from statemq.command import Command, Question, check_key
from statemq.declaration.declare import declare
from statemq.declaration.handlers import ANY, Query, Transition, query, transition
from statemq.declaration.inherited import UNSAID, Options
from statemq.declaration.spec import MachineSpec
from statemq.declaration.state import State, each
from statemq.retry import Retry

__all__ = ["ANY", "Command", "Machine", "Query", "Question", "Transition", "check_key", "query", "transition"]

Data = TypeVar("Data", default=None)
Status = TypeVar("Status", bound=State, default=str)


class Machine(Generic[Data, Status]):
    """Base of every machine: ``class Resource(Machine[Data, Status], initial=Status.DOWN)``.

    ``Data`` is a msgspec Struct whose fields all have defaults, or left out; ``Status`` an Enum of texts, such as a
    StrEnum, or left out: then the states are those that ``initial``, ``final``, ``source`` and ``target`` name.

    Options: ``name`` (the class's name in snake_case), ``final`` states that nothing leaves, ``legacy`` states that nothing
    leads into any more, kept for the instances that are in them, ``partitions`` (16; fixed when
    the machine is first used), ``retry`` for attempts that raise, ``on_failure`` of a command: ``skip`` it or ``pause`` the instance.

    A subclass has all of them but the name from its bases, unless its own class statement says otherwise, and their transitions and
    queries. A class without ``initial``, of its own or of a base, is a base of machines and no machine itself.

    In a body ``self.key``, ``self.state``, ``self.data`` and ``self.version`` are those of this attempt; what was changed is
    real once the transition is committed. The worker makes the instances, one for each attempt.
    """

    __slots__ = ("_before", "data", "key", "state", "version")

    spec: ClassVar[MachineSpec]

    key: str
    state: Status
    data: Data
    version: int
    _before: Status

    def __init_subclass__(
        cls,
        *,
        initial: State | None = None,
        name: str | None = None,
        final: State | Iterable[State] = UNSAID,
        legacy: State | Iterable[State] = UNSAID,
        partitions: int = UNSAID,
        retry: Retry = UNSAID,
        on_failure: Literal["skip", "pause"] = UNSAID,
        **kwargs: Any,
    ) -> None:
        """Read the declaration into ``cls.spec``, which a base without an initial state does not have. Raises DeclarationError with
        every fault in it."""
        super().__init_subclass__(**kwargs)
        around = sys._getframe(1).f_locals  # a class inside a function may be annotated with names of that function
        first = UNSAID if initial is None else initial
        ends, old = (UNSAID if states is UNSAID else each(states) for states in (final, legacy))
        spec = declare(cls, Machine, Options(name, first, ends, old, partitions, retry, on_failure), around)
        if spec is not None:
            cls.spec = spec

    def __init__(self, *args: Never, **kwargs: Never) -> None:
        name = type(self).__name__
        raise TypeError(f"the worker makes each {name}; to ask something of one, send {name}.<transition>(key)")
