"""What a partition keeps in memory: commands that were read and have not ended, and the instances of its lanes. Both are bounded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from statemq.config import LIMITS, WorkerSettings
from statemq.store.commands import Garbage, Queued

if TYPE_CHECKING:
    from statemq.worker.lane import Lane


class Window:
    """``partitions``: of the machine, which share what the settings allow its instances."""

    def __init__(self, settings: WorkerSettings, partitions: int) -> None:
        self.settings, self._partitions = settings, partitions
        self.draining = self.closed = False
        self.held = self.held_bytes = 0
        self.mean_bytes = max(1, settings.window_bytes // LIMITS.batch)
        """Of a command, as what was read lets expect."""
        self.lanes: dict[str, Lane] = {}
        self._worth = max(1, min(LIMITS.batch, settings.window // 4))
        """So much room a read is worth."""
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._cache = max(1, settings.cache // partitions)
        self._cached_bytes, self._trim_in = 0, 0
        """Of the data of all lanes' instances; and the looks until it is tried again to have less of it."""

    # -- commands ----------------------------------------------------------------------------------

    def room(self) -> int:
        """Commands that may be read now; none while it would be few, so that a deep backlog is not read by handfuls."""
        free = self.settings.window - self.held
        if self.closed or self.draining or free < self._worth:
            return 0
        left = self.settings.window_bytes - self.held_bytes
        few = left * 2 < self.settings.window_bytes and left < self._worth * self.mean_bytes
        return 0 if left <= 0 or few else min(free, self.affords)

    @property
    def affords(self) -> int:
        """So many commands of the size that is to be expected find room, one at least."""
        return max(1, (self.settings.window_bytes - self.held_bytes) // self.mean_bytes)

    def expect(self, size: int, n: int) -> None:
        """``n`` commands that were read had this size: a sudden growth counts at once, what is gone is forgotten by halves."""
        self.mean_bytes = max(1, self.mean_bytes // 2, size // n)

    @property
    def crowded(self) -> bool:
        """Most of the window is taken: busy keys keep nothing waiting in it, so that a few cannot hold up all others (I2)."""
        return self.held * 4 >= self.settings.window * 3 or self.held_bytes * 4 >= self.settings.window_bytes * 3

    @property
    def patience_s(self) -> float:
        """How long a body that only waits stays in memory; the shorter the fuller the window is, so that those which wait leave room."""
        taken = max(self.held / self.settings.window, self.held_bytes / self.settings.window_bytes)
        return self.settings.suspend_after_s * max(0.0, 1 - 2 * taken)

    async def roomy(self) -> None:
        """Returns when something has left the window."""
        self._roomy.clear()
        if not self.closed:
            await self._roomy.wait()

    def hold(self, c: Queued | Garbage) -> None:
        self.held += 1
        self.held_bytes += c.size

    def let_go(self, c: Queued | Garbage) -> None:
        """The command is not in memory any more."""
        self.held -= 1
        self.reserve(-c.size)

    def reserve(self, size: int) -> None:
        """Bytes of the window that what comes, or has ended and is not committed, takes; or less of them."""
        self.held_bytes += size
        if size < 0 and not self._roomy.is_set() and self.room():
            self._roomy.set()

    # -- instances ---------------------------------------------------------------------------------

    def add(self, lane: Lane) -> Lane:
        """A lane more; where there are too many, some others are forgotten."""
        if len(self.lanes) >= self._cache:
            self._evict()
        self.lanes[lane.key] = lane
        return lane

    def _evict(self) -> None:
        """Forgets the longest known of the idle instances."""
        for key in [k for k, lane in self.lanes.items() if lane.idle][: max(1, self._cache // 10)]:
            self._forget(key)

    def _forget(self, key: str) -> None:
        self._cached_bytes -= self.lanes.pop(key).weight

    def weighed(self, lane: Lane) -> None:
        """The lane has another state in memory."""
        self._cached_bytes += len(lane.snap.data) - lane.weight
        lane.weight = len(lane.snap.data)
        if self._cached_bytes * self._partitions > self.settings.cache_bytes:
            self._trim_in -= 1
            if self._trim_in <= 0:
                self.trim()

    def trim(self) -> None:
        """Data of idle instances, the longest known first, leaves when there is too much of it; where all are busy, at a later look."""
        share = self.settings.cache_bytes // self._partitions
        if self._cached_bytes > share:
            for key in [k for k, lane in self.lanes.items() if lane.weight and lane.idle]:
                if self._cached_bytes <= share * 0.9:
                    break
                self._forget(key)
        self._trim_in = len(self.lanes) // 8 if self._cached_bytes > share else 0
