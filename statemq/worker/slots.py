"""Whose turn it is, and how much code runs at one time in this process (P14, P17)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statemq.worker.lane import Job, Lane

ALONE_WITHIN_S = 10.0
"""How long a suspect waits for the others to end; then it runs in company, and a crash does not count against it."""

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
        self._suspects: deque[Lane] = deque()
        self._suspect_since = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._alone: Lane | None = None
        self._loop = asyncio.get_running_loop()
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
        """The lane's next command has seen two owners die: it is to run with nothing else (P14)."""
        if lane not in self._suspects:
            if not self._suspects:
                self._suspect_since = self._loop.time()
            self._suspects.append(lane)
            self._wake()

    def give(self) -> None:
        """A slot is free again."""
        self.free += 1
        self._wake()

    def end(self, lane: Lane) -> None:
        """The lane's code has ended and its slot is free."""
        if self._alone is lane:
            self._alone = None
            self._suspect_since = self._loop.time()
        self.give()

    async def take(self) -> None:
        """Waits for a slot: code that had one and gave it back comes before new commands."""
        if self.free > 0 and not self._returning and self._alone is None:
            self.free -= 1
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
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._due = False
        while self._returning and (self.free > 0 or self._returning[0].done()) and self._alone is None:
            turn = self._returning.popleft()
            if not turn.done():
                self.free -= 1
                turn.set_result(None)
        if self.closed or self._alone is not None:
            return
        jobs: list[Job] = []
        while self._suspects and not self._suspects[0].partition.starting:
            self._suspects.popleft()  # its partition was lost, or holds back: nobody waits for it
        if self._suspects:
            self._run_suspect(jobs)
        else:
            looked = 0
            while self._runnable and self.free > 0 and looked < LANES_A_TURN:
                looked += 1
                lane = self._runnable.popleft()
                lane.offered = False
                if (job := lane.prepare()) is not None:
                    self.free -= 1
                    jobs.append(job)
                if self._suspects:
                    break
            if self._runnable and self.free > 0:
                self._wake()
        for job in jobs:
            if job.claims:
                job.lane.partition.batches.claim(job)
        self._run([job for job in jobs if not job.claims])

    def _run_suspect(self, jobs: list[Job]) -> None:
        company = self.running > 0
        left_s = self._suspect_since + ALONE_WITHIN_S - self._loop.time()
        if company and left_s > 0 and self._alarm is None:
            self._alarm = self._loop.call_later(left_s, self._ring)
        if company and (self.free <= 0 or left_s > 0):
            return
        lane = self._suspects.popleft()
        job = lane.prepare(alone=not company, suspect=True)
        if job is None:
            self._wake()
            return
        self.free -= 1
        if company:
            self._wake()  # others need not wait for its end
        else:
            self._alone = lane
        jobs.append(job)

    def _ring(self) -> None:
        self._alarm = None
        self._wake()

    def _run(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.lane.run(job)
