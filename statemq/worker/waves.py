"""When partitions send what they gathered: at the end of the loop's turn, their commits in waves.

A wave is one commit of each partition that has ended something. The next wave goes when the last one is answered, whichever
partitions it was of: so batches grow with load, and what ends while nothing is on its way waits for nobody. In a cluster each
partition makes its own waves, since one node must not hold up another.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statemq.worker.partition import Partition


class Wave:
    """Commits on their way, and who has more."""

    __slots__ = ("unanswered", "waiting")

    def __init__(self) -> None:
        self.unanswered = 0
        self.waiting: dict[Partition, None] = {}

    def send(self) -> None:
        waiting, self.waiting = self.waiting, {}
        for p in waiting:
            if p.may_commit:
                self.unanswered += 1
                p.commit().add_done_callback(self._answered)

    def _answered(self, _: asyncio.Future[Any]) -> None:
        self.unanswered -= 1
        if not self.unanswered:
            self.send()


class Waves:
    """Those of one worker."""

    def __init__(self, *, cluster: bool) -> None:
        self._shared = None if cluster else Wave()
        self._touched: dict[Partition, None] = {}
        self._due = False
        self._loop = asyncio.get_running_loop()

    def wave(self) -> Wave:
        """The one that a new tenure's commits go with."""
        return self._shared or Wave()

    def touch(self, p: Partition) -> None:
        """The partition has something to send."""
        self._touched[p] = None
        if not self._due:
            self._due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self._due = False
        touched, self._touched = self._touched, {}
        for p in touched:
            p.flush()
        waves: dict[Wave, None] = {}
        for p in touched:
            p.wave.waiting[p] = None
            waves[p.wave] = None
        for wave in waves:
            if not wave.unanswered:
                wave.send()
