"""Contexts for calls of the user's code, so that none sees what another has set."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from contextvars import Context


def copies_of(base: Context) -> Callable[[], Context]:
    """Each call of what it returns gives a copy. Its decimal context is a copy, too: that is an object which bodies change in place, and
    any arithmetic at import, in whatever library, has made one."""
    if not any(variable.name == "decimal_context" for variable in base):
        return base.copy
    numbers = base.run(decimal.getcontext).copy()

    def copy() -> Context:
        made = base.copy()
        made.run(decimal.setcontext, numbers.copy())
        return made

    return copy
