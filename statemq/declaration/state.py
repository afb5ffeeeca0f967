"""One state, in all the ways in which it may be written."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

State = str | Enum
"""One state, as it may be written wherever one is asked for."""


def name_of(state: Any) -> str:
    """The plain text of a state: an enum member's value, or what was written; ``str`` of a member has its class in it."""
    text = state.value if isinstance(state, Enum) else state
    return str.__str__(text) if isinstance(text, str) else repr(text)


def each(states: Any) -> tuple[Any, ...]:
    """One state or several, as several; those of a set in an order that is the same in every process."""
    if isinstance(states, set | frozenset):
        return tuple(sorted(states, key=name_of))
    return (states,) if isinstance(states, State) or not isinstance(states, Iterable) else tuple(states)
