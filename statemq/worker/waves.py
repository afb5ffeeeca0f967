"""When partitions send what they gathered: at the end of the loop's turn, records and commits in waves.

A wave is all that the partitions of one connection have to record and commit. The next one goes when the last is answered: so batches
grow with load, and what comes while nothing is on its way waits for nobody. In a cluster each partition makes its own waves, since
one node must not hold up another.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statemq.store.router import Router
    from statemq.worker.batches import Batches


class Wave:
    """Calls on their way, and who has more."""

    __slots__ = ("unanswered", "waiting")

    def __init__(self) -> None:
        self.unanswered = 0
        self.waiting: dict[Batches, None] = {}

    def send(self) -> None:
        waiting, self.waiting = self.waiting, {}
        for batches in waiting:
            with batches.partition.own_trouble():
                for call in batches.send():
                    self.unanswered += 1
                    call.add_done_callback(self._answered)

    def _answered(self, _: asyncio.Future[Any]) -> None:
        self.unanswered -= 1
        if not self.unanswered:
            self.send()


class Waves:
    """Those of one worker."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._shared = None if router.cluster else Wave()
        self._touched: dict[Batches, None] = {}
        self._due = False
        self._loop = asyncio.get_running_loop()

    def wave(self) -> Wave:
        """The one that a new tenure goes with."""
        return self._shared or Wave()

    def touch(self, batches: Batches) -> None:
        """They have something to send."""
        self._touched[batches] = None
        if not self._due:
            self._due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Sends now what would go at the end of this turn."""
        self._due = False
        touched, self._touched = self._touched, {}
        for batches in touched:
            with batches.partition.own_trouble():
                batches.flush()
        waves: dict[Wave, None] = {}
        for batches in touched:
            batches.wave.waiting[batches] = None
            waves[batches.wave] = None
        for wave in waves:
            if not wave.unanswered:
                wave.send()
        for wire in self._router.nodes:
            wire.flush()
