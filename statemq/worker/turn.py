"""When partitions send what they gathered: all together, at the end of the loop's turn in which it came up.

So what one turn brings goes in one call of each kind and partition, and in one write to each server.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statemq.store.router import Router
    from statemq.worker.batches import Batches


class Turn:
    """The present one of one worker's loop."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._touched: dict[Batches, None] = {}
        self._due = False
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # not that of the body that happens to touch first

    def touch(self, batches: Batches) -> None:
        """They have something to send."""
        self._touched[batches] = None
        if not self._due:
            self._due = True
            self._loop.call_soon(self.end, context=self._context)

    def end(self) -> None:
        """Sends now what would go at the end of this turn."""
        self._due = False
        touched, self._touched = self._touched, {}
        for batches in touched:
            with batches.partition.own_trouble():
                batches.send()
        for wire in self._router.nodes:
            wire.flush()
