"""Waiting for a condition instead of for a time; a test's speed never decides how it ends."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

EVERY_S = 0.01

LIMIT_S = 60.0
"""Far more than any of it takes, also on a machine that has other work to do."""


async def wait_until(predicate: Callable[[], T | Awaitable[T]], timeout_s: float = LIMIT_S) -> T:
    """What the predicate returned first that is true; it may be async. AssertionError after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        said: Any = predicate()
        if inspect.isawaitable(said):
            said = await said
        if said:
            return said  # type: ignore[no-any-return]
        assert time.monotonic() < deadline, f"not so within {timeout_s} s: {_source(predicate)}"
        await asyncio.sleep(EVERY_S)


def block_until(predicate: Callable[[], T], timeout_s: float = LIMIT_S) -> T:
    """The same where no event loop runs."""
    deadline = time.monotonic() + timeout_s
    while not (said := predicate()):
        assert time.monotonic() < deadline, f"not so within {timeout_s} s: {_source(predicate)}"
        time.sleep(EVERY_S)
    return said


def _source(predicate: Callable[[], Any]) -> str:
    try:
        return inspect.getsource(predicate).strip()
    except (OSError, TypeError):
        return repr(predicate)
