"""The slot of one attempt: it gives it back while it only waits, and goes on when it has one again (P17)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from statemq.worker.order import tell

if TYPE_CHECKING:
    from statemq.worker.execute import Attempt


class Slot:
    __slots__ = ("_asking", "_attempt", "_slots", "_waiting", "held")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt, self._slots = attempt, attempt.partition.slots
        self.held = True
        self._asking = False
        self._waiting: list[asyncio.Future[None]] = []

    def rest(self) -> None:
        """The body waits: others may run."""
        if self.held and not self._attempt.running:
            self.held = False
            self._slots.end(self._attempt.lane)

    def regained(self) -> bool:
        """Whether the body may go on; if not, it is told when it may."""
        if not self.held and not self._asking:
            if self._slots.take_now():
                self.held = True
            else:
                self._asking = True
                self._attempt.partition.spawn(self._regain())
        return self.held

    async def taken(self) -> None:
        """Returns when the body has one."""
        while not self.regained():
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting

    def end(self) -> None:
        """The body has ended: its lane gives the slot back."""
        if not self.held:
            self._slots.free -= 1
            self.held = True

    async def _regain(self) -> None:
        await self._slots.take()
        self._asking = False
        if self.held:  # the body has ended meanwhile
            self._slots.give()
            return
        self.held = True
        for waiting in self._waiting:
            tell(waiting)
        self._waiting.clear()
        self._attempt.goes_on()
