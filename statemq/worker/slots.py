"""Whose turn it is, and how much code runs at one time in this process (P14, P17)."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from typing import TYPE_CHECKING

from statemq.worker.suspects import Suspects, forget, stand_down

if TYPE_CHECKING:
    from statemq.worker.lane import Job, Lane

LANES_A_TURN = 256
"""Lanes looked at before the event loop gets its turn."""


class Slots:
    """``concurrency`` counts running code; a command that waits gives its slot back at once."""

    def __init__(self, concurrency: int) -> None:
        self.free = self.concurrency = concurrency
        self.closed = False
        """Nothing new starts (the worker is stopping)."""
        self._runnable: deque[Lane] = deque()
        self._returning: deque[asyncio.Future[None]] = deque()
        self._suspects = Suspects(self._wake)
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        """Not that of whose code happens to run when something is to be done for all."""
        self._due = False

    @property
    def running(self) -> int:
        return self.concurrency - self.free

    def offer(self, lane: Lane) -> None:
        """The lane may have something to do."""
        if not lane.offered:
            lane.offered = True
            self._runnable.append(lane)
            self._wake()

    def suspect(self, lane: Lane) -> None:
        """The lane's next command has seen two owners die: it is to begin with nothing else beside it (P14)."""
        self._suspects.add(lane)

    def give(self) -> None:
        """A slot is free again."""
        self.free += 1
        self._wake()

    def end(self, lane: Lane) -> None:
        """The lane's code has ended, or waits, and its slot is free."""
        if lane.suspected is not None:
            if lane.task is not None:
                stand_down(lane)
            self.cleared(lane)
        self.give()

    def cleared(self, lane: Lane) -> None:
        """What runs there is no suspect, or not any more."""
        forget(lane)
        self._suspects.leave(lane)

    def take_now(self) -> bool:
        """Takes a slot for code that had one and gave it back, if one is free and nobody came before."""
        if self.free > 0 and not self._returning and self._suspects.alone is None:
            self.free -= 1
            return True
        return False

    async def take(self) -> None:
        """Waits for a slot: code that had one and gave it back comes before new commands."""
        if self.take_now():
            return
        turn = self._loop.create_future()
        self._returning.append(turn)
        self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()
            raise

    def _wake(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._pump, context=self._context)

    def _pump(self) -> None:
        self._due = False
        suspects = self._suspects
        suspects.tick(others_wait=bool(self._runnable or self._returning))
        while self._returning and (self.free > 0 or self._returning[0].done()) and suspects.alone is None:
            turn = self._returning.popleft()
            if not turn.done():
                self.free -= 1
                turn.set_result(None)
        if self.closed or suspects.alone is not None:
            return
        jobs: list[Job] = []
        others = self.running - len(suspects.crowd)
        if (lane := suspects.turn(others, self.free)) is not None:
            if (job := lane.prepare(suspect=True)) is not None:
                self.free -= 1
                suspects.runs(lane, others)
                jobs.append(job)
            self._wake()
        elif not suspects.holds_up:
            self._begin(jobs)
        for job in jobs:
            if job.claims:
                job.lane.partition.batches.claim(job)
        self._run([job for job in jobs if not job.claims])

    def _begin(self, jobs: list[Job]) -> None:
        """What is no suspect begins, as long as there are slots and nobody is suspected."""
        looked = 0
        while self._runnable and self.free > 0 and looked < LANES_A_TURN:
            looked += 1
            lane = self._runnable.popleft()
            lane.offered = False
            if (job := lane.prepare()) is not None:
                self.free -= 1
                jobs.append(job)
            if self._suspects.asks:
                break
        if self._runnable and self.free > 0:
            self._wake()

    def _run(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.lane.run(job)
