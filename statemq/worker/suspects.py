"""Suspects: commands that have seen two owners die without going on between (P14). Which of them kills is found out by how they run.

Each begins alone, nothing else in its process; a death then counts against it (RETRYCOUNT, ``@mark``). One that lives longer goes on
in company, so that others need not wait for its end, and others begin beside it. A death then counts in ``@crowd`` of its journal: against
the one suspect that ran, if it was the only one; where several ran, nobody is blamed, but half as many may run together next time, until
the one that kills is the only one. A step that is recorded clears its command.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from statemq.store.commands import Queued
from statemq.store.wire import swallow
from statemq.worker.judge import Doomed

if TYPE_CHECKING:
    from statemq.worker.lane import Lane

SUSPICIOUS = 2
"""So many deaths make a suspect."""

ALONE_WITHIN_S = 5.0
"""How long a suspect waits for the others to end; then it runs in company from its beginning."""

ALONE_S = 3.0
"""How long a suspect runs alone, less when others wait for their turn; and how long all of them may hold up what is no suspect: then that
runs for as long as it was held up."""

NOT_YET = -1
"""Among how many a suspect runs that does not run."""

IN_COMPANY = 2
"""In company others may be to blame: it takes so many times ``max_crashes``."""


class Suspects:
    """Whose turn it is among the suspects of one process. ``wake``: something may have changed."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), wake
        self.alone: Lane | None = None
        """Runs, and nothing else begins."""
        self.crowd: list[Lane] = []
        """Run in company."""
        self._waiting: deque[Lane] = deque()
        self._held_s: float | None = None
        """Since when others are held up."""
        self._until_s = 0.0
        """Until when nobody may join the lonely one."""
        self._rest_s = 0.0
        """Until when others run first."""
        self._alarm: asyncio.TimerHandle | None = None

    def add(self, lane: Lane) -> None:
        """Its next command is a suspect, which waits for its turn."""
        if lane not in self._waiting:
            self._waiting.append(lane)
            self._wake()

    def leave(self, lane: Lane) -> None:
        """Its suspect has ended, waits for something, or has gone on and is none any more."""
        if lane in self.crowd:
            self.crowd.remove(lane)
            self._tell_crowd()
        if self.alone is lane:
            self.alone = None
            self._rest()

    def tick(self, others_wait: bool) -> None:
        """Who was alone for long has company from now on, if there is any."""
        if self.alone is not None and (others_wait or self._waiting) and self._loop.time() >= self._until_s:
            self._accompanied(self.alone)
            self.alone = None
            self._rest()

    def turn(self, others: int, free: int) -> Lane | None:
        """The lane whose suspect is to run now; see ``holds_up``. ``others``: what runs and is no suspect."""
        if not self._waiting:
            self._held_s = None
            return None
        self._waiting = deque(lane for lane in self._waiting if lane.partition.starting)  # nobody waits for a lost partition
        now = self._loop.time()
        lane = next((lane for lane in self._waiting if self._fits(lane)), None)
        if lane is None or now < self._rest_s:
            self._held_s = None
            if lane is not None:
                self._ring_in(self._rest_s - now)
            return None
        if self._held_s is None:
            self._held_s = now
        left_s = self._held_s + ALONE_WITHIN_S - now
        if others and left_s > 0:
            self._ring_in(left_s)
            return None
        if free <= 0:
            return None
        self._waiting.remove(lane)
        return lane

    @property
    def asks(self) -> bool:
        """One has come whose turn it is, as soon as the others have ended."""
        return bool(self._waiting) and self._loop.time() >= self._rest_s and any(map(self._fits, self._waiting))

    @property
    def holds_up(self) -> bool:
        """Nothing else begins: a suspect waits for the others to end."""
        return self._held_s is not None

    def runs(self, lane: Lane, others: int) -> None:
        """It was its turn, and it runs from now on; nothing of it has been claimed yet."""
        if self.crowd or others:
            self._accompanied(lane)
        else:
            accompany(lane, 0)
        if others:
            self._rest()
            return
        self.alone = lane  # but for suspects that have been running for long
        alone_s = ALONE_S / (1 + len(self._waiting))
        self._until_s = self._loop.time() + alone_s
        self._ring_in(alone_s)

    def _accompanied(self, lane: Lane) -> None:
        if lane not in self.crowd:
            self.crowd.append(lane)
        self._tell_crowd()

    def _fits(self, lane: Lane) -> bool:
        return all(one.crowd == 0 or len(self.crowd) < one.crowd for one in (lane, *self.crowd))

    def _tell_crowd(self) -> None:
        for lane in self.crowd:
            accompany(lane, len(self.crowd))

    def _rest(self) -> None:
        """Others have waited; when it was long, they come first for as long."""
        now = self._loop.time()
        if self._held_s is not None and now - self._held_s >= ALONE_S:
            self._rest_s, self._held_s = now + min(now - self._held_s, ALONE_WITHIN_S + ALONE_S), None
        self._wake()

    def _ring_in(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_later(seconds, self._wake)


# -- one suspect -------------------------------------------------------------------------------------


def kills(c: Queued, max_crashes: int) -> bool:
    """It has killed its worker so often that it is not run any more."""
    return c.crashes - SUSPICIOUS >= max_crashes or c.fell >= IN_COMPANY * max_crashes


def killer(c: Queued) -> Doomed:
    alone = max(0, c.crashes - SUSPICIOUS)
    why = f"its worker's process died {c.crashes + c.fell} times while it ran, {alone} of them while it ran alone"
    if c.fell:
        why += f", {c.fell} of them after it had run alone for a while"
    return Doomed(why, "crashes", "WorkerCrashed", garbage=True)


def crowd_of(raw: bytes, dead: str) -> tuple[int, int]:
    """What ``@crowd`` says: how many suspects may run together (0: any number), and how often it fell as the only one.

    ``dead``: the owner whose death gave us the partition. Raises ValueError for what was written by hand.

    >>> crowd_of(b"w1 1 0 2", "w1"), crowd_of(b"w1 5 0 2", "w1"), crowd_of(b"w1 0 4 2", "w1"), crowd_of(b"w1 1 4 2", "")
    ((0, 3), (2, 2), (4, 2), (4, 2))
    """
    if not raw:
        return 0, 0
    worker, *numbers = raw.decode().split(" ")
    size, crowd, fell = map(int, numbers)
    if worker == dead and size == 1:
        fell += 1
    elif worker == dead and size > 1:
        crowd = size // 2
    return crowd, fell


def accompany(lane: Lane, size: int) -> None:
    """The lane's suspect runs among ``size`` suspects (0: alone), and a death counts accordingly from now on."""
    c, p = lane.suspected, lane.partition
    if c is None or lane.among == size:
        return
    if size and lane.among <= 0:  # no lonely crash any more
        c.crashes -= 1
        if c.claimed:
            p.claim_now(c)
    lane.among = size
    if size or c.crowd or c.fell or "@crowd" in c.journal:
        _write(lane, c, b"%b %d %d %d" % (p.shop.worker.encode(), size, c.crowd, c.fell))


def stand_down(lane: Lane) -> None:
    """It waits for something, and may go on as one of many: a death until then is no sign against it."""
    c = lane.suspected
    if c is not None and not lane.partition.closed:
        if lane.among == 0:
            c.crashes -= 1
            lane.partition.claim_now(c)
        else:
            lane.among = NOT_YET
            accompany(lane, 0)
    forget(lane)


def forget(lane: Lane) -> None:
    lane.suspected, lane.among = None, NOT_YET


def went_on(lane: Lane, c: Queued) -> None:
    """A step or sleep of it is being recorded: what died while it ran before says nothing against it (P14)."""
    c.crashes = c.crowd = c.fell = 0
    if c.journal.get("@crowd"):
        _write(lane, c, b"")
    lane.partition.claim_now(c)
    lane.partition.slots.cleared(lane)


def _write(lane: Lane, c: Queued, value: bytes) -> None:
    c.journal["@crowd"] = value
    c.journalled = True
    swallow([lane.partition.batches.record(c, "@crowd", value)])
