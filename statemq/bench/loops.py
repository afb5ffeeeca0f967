"""The event loop of the bench's own processes: uvloop where it is installed, as for ``statemq worker``."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None


def run(work: Coroutine[Any, Any, T]) -> T:
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    if has_uvloop():
        from uvloop import new_event_loop as make_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(work)
