"""The machine whose histories prove most: each applied command is a link of its key's chain.

A value ``[n, digest]`` binds all that was applied before it, in its order, so one reading tells what happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any


def link(digest: str, id: str, x: int) -> str:
    """The digest after one more command."""
    return hashlib.sha256(f"{digest} {id} {x}".encode()).hexdigest()


class Chain:
    """The model. ``applies``: whether a command of this transition and ``x`` changes its instance."""

    def __init__(self, applies: Callable[[str, int], bool] = lambda transition, x: True) -> None:
        self.initial: Any = [0, ""]
        self._applies = applies

    def apply(self, state: Any, id: str, transition: str, x: int) -> tuple[Any, Any] | None:
        if not self._applies(transition, x):
            return None
        after = [state[0] + 1, link(state[1], id, x)]
        return after, after
