"""The states of a machine while its declaration is read: which there are, and whether each can be reached."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from statemq.config import LIMITS, is_name
from statemq.signature import Problem
from statemq.spec import TransitionSpec


class States:
    """The declared states; what is wrong about them goes to ``problem``."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.names: list[str] = []
        self.enum: type[Enum] | None = None

    def declare(self, status: Any, named: Iterable[Any]) -> None:
        """The states are those of ``status``, a StrEnum or Literal; without one, those that are ``named`` anywhere."""
        if isinstance(status, type) and issubclass(status, str) and issubclass(status, Enum):
            self.enum = status
            self.names = [str(member.value) for member in status]
        elif get_origin(status) is Literal:
            self.names = [value for value in get_args(status) if isinstance(value, str)]
        elif status is None or status is str or not isinstance(status, type):
            self.names = list(dict.fromkeys(name_of(state) for state in named if isinstance(state, str)))
        else:
            self.problem(f"Status is a StrEnum, not {status.__name__}")
        for state in self.names:
            if not is_name(state):
                self.problem(f'"{state}" cannot name a state: a letter or "_", then letters, digits, "_"; at most {LIMITS.name}')

    def one(self, where: str, value: Any) -> str:
        """The name of a state that was written somewhere."""
        name = name_of(value)
        if not isinstance(value, str):
            self.problem(f"{where}: {value!r} is no state")
        elif name not in self.names or (self.enum and isinstance(value, Enum) and not isinstance(value, self.enum)):
            self.problem(f"{where}: there is no state {value!r}; there are: {', '.join(self.names) or 'none'}")
        return name

    def several(self, where: str, value: Any) -> tuple[str, ...]:
        """The names of one state or several, each once."""
        return tuple(dict.fromkeys(self.one(where, state) for state in each(value)))

    def members(self) -> dict[str, str]:
        """State name to what a body sees in ``self.state``."""
        return {str(member.value): member for member in self.enum if isinstance(member, str)} if self.enum else {n: n for n in self.names}

    def are_reachable(self, initial: str, transitions: Iterable[TransitionSpec]) -> None:
        """Each state can be reached from ``initial``; a transition with several targets may end in any of them."""
        transitions = list(transitions)
        reached, ahead = {initial}, [initial]
        while ahead:
            state = ahead.pop()
            for transition in transitions:
                case = transition.by_state.get(state)
                new = set(case.targets or ()) - reached if case else set()
                reached |= new
                ahead += new
        for state in self.names:
            if state not in reached:
                self.problem(f"no transition leads from {initial} to {state}")


def name_of(state: Any) -> str:
    """The plain text of a state: an enum member's value, or what was written."""
    return str(state.value) if isinstance(state, Enum) else str(state)


def each(states: Any) -> tuple[Any, ...]:
    """One state or several, as several; those of a set in an order that is the same in every process."""
    if isinstance(states, set | frozenset):
        return tuple(sorted(states, key=str))
    return (states,) if isinstance(states, str) or not isinstance(states, Iterable) else tuple(states)
