"""The states of a machine while its declaration is read: which there are, and whether each can be reached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from statemq.config import LIMITS, is_name
from statemq.declaration.signature import Problem
from statemq.declaration.spec import TransitionSpec
from statemq.declaration.state import State, each, name_of


class States:
    """The declared states; what is wrong about them goes to ``problem``."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.members: dict[str, Any] = {}
        """State name to what a body sees in ``self.state``."""
        self.enum: type[Enum] | None = None

    @property
    def names(self) -> list[str]:
        return list(self.members)

    def declare(self, status: Any, named: Iterable[Any]) -> None:
        """The states are those of ``status``, an Enum of texts or a Literal; without one, those that are ``named`` anywhere."""
        if isinstance(status, type) and issubclass(status, Enum):
            self.enum = status
            for member in status:
                self.add(member, member)
        elif get_origin(status) is Literal:
            for value in get_args(status):
                self.add(value, value)
        elif status is None or status is str or not isinstance(status, type):
            for state in named:
                if isinstance(state, State):
                    self.add(state, name_of(state) if isinstance(state, str) else state)
        else:
            self.problem(f"Status is an Enum of texts, not {status.__name__}")

    def add(self, state: Any, seen: Any) -> None:
        """One more; ``seen`` is what a body compares with what its code names."""
        name = name_of(state)
        if isinstance(state, Enum) and not isinstance(state.value, str):
            self.problem(f"{state!r} cannot be a state, its value is no text; write a StrEnum, or {state.name} = {state.name!r}")
        elif not is_name(name):
            self.problem(f'"{name}" cannot name a state: a letter or "_", then letters, digits, "_"; at most {LIMITS.name}')
        elif self.members.setdefault(name, seen) != seen:
            self.problem(f"{name} is written as {self.members[name]!r} and as {seen!r}, which are not equal; write one of them everywhere")

    def one(self, where: str, value: Any) -> str:
        """The name of a state that was written somewhere."""
        name = name_of(value)
        if not isinstance(value, State):
            self.problem(f"{where}: {value!r} is no state")
        elif name not in self.names or (self.enum and isinstance(value, Enum) and not isinstance(value, self.enum)):
            self.problem(f"{where}: there is no state {value!r}; there are: {', '.join(self.names) or 'none'}")
        return name

    def several(self, where: str, value: Any) -> tuple[str, ...]:
        """The names of one state or several, each once."""
        return tuple(dict.fromkeys(self.one(where, state) for state in each(value)))

    def are_reachable(self, initial: str, legacy: Sequence[str], transitions: Iterable[TransitionSpec]) -> None:
        """Each state can be reached from ``initial``, or from a ``legacy`` one, which itself cannot."""
        transitions = list(transitions)
        reached = reachable([initial], transitions)
        for state in legacy:
            if state in reached:
                how = "is the initial state" if state == initial else f"can still be reached from {initial}"
                self.problem(f"legacy: {state} {how}; leave it out")
        reached |= reachable(legacy, transitions)
        for state in self.names:
            if state not in reached:
                kept = f'legacy="{state}" keeps it for instances that are still in it'
                self.problem(f"no transition leads from {initial} to {state}; {kept}")


def reachable(starts: Iterable[str], transitions: Iterable[TransitionSpec]) -> set[str]:
    """The states in which an instance that is in one of these may ever be; of several targets it may end in any."""
    reached, ahead = {*starts}, [*starts]
    while ahead:
        state = ahead.pop()
        for transition in transitions:
            case = transition.by_state.get(state)
            new = set(case.targets or ()) - reached if case else set()
            reached |= new
            ahead += new
    return reached
