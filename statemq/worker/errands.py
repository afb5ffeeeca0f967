"""Calls that are made again and again, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self


class Errands:
    """Calls that are made again and again, each by one task at a time: one that waits for its node (in a cluster) holds up no other.

    Their errors are raised by the next ``begin``.
    """

    def __init__(self) -> None:
        self._tasks: dict[Any, asyncio.Task[None]] = {}

    def begin(self, name: Any, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """No effect while the last one of this name is under way."""
        last = self._tasks.get(name)
        if last is None or last.done():
            if last is not None:
                last.result()
            self._tasks[name] = asyncio.ensure_future(work())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for task in self._tasks.values():
            task.cancel()
