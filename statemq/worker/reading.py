"""Reading the command streams (P3): stateless reads from positions in memory.

A new tenure first pulls what its stream holds, without blocking, on the connection of its calls; then it joins the one blocking read
over all partitions. A partition left out of that read (new, or full and free again) is pulled meanwhile, so that nobody waits for
a BLOCK to end (P7). In a cluster each partition has a blocking read of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from statemq import events
from statemq.errors import RedisAway
from statemq.store.fence import TenureOver
from statemq.store.router import Router
from statemq.store.wire import ReplyError, Wire
from statemq.worker.partition import Partition

COUNT, FIRST = 128, 16
"""Entries asked for; at first fewer, since nothing is known of their size."""
BLOCK_MS = 2_000
PULL_S = 0.02
"""How often a partition is pulled that no blocking read has taken up yet."""

CLAIM_AFTER_S = 0.05
"""Then the second reader takes it."""


class Reading:
    """Feeds partitions with what their streams hold."""

    def __init__(self, router: Router, failed: Callable[[BaseException], None]) -> None:
        self._router, self._failed = router, failed
        self._waiting: set[Partition] = set()
        """Caught up, not being pulled, and in no blocking read."""
        self._since: dict[Partition, float] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wires: list[Wire] = []
        self._shared = False
        self._loop = asyncio.get_running_loop()

    def add(self, p: Partition) -> None:
        """A tenure began."""
        p.spawn(self._follow(p))
        if self._router.cluster:
            self._spawn(self._read_alone(p))
        elif not self._shared:
            self._shared = True
            self._spawn(self._read_shared(0.0))
            self._spawn(self._read_shared(CLAIM_AFTER_S))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in self._wires:
            await self._router.release_wire(wire)

    async def _follow(self, p: Partition) -> None:
        """Pulls until nothing is left; then waits to be taken into a blocking read, and pulls now and then until it is."""
        while not p.closed:
            await p.unread()  # a reader may have taken it up during any wait
            if p.room() == 0:
                await p.roomy()
                continue
            self._waiting.discard(p)  # never pulled and read at one time: an entry would be taken twice
            asked = min(COUNT if p.position != "0-0" else FIRST, p.room())
            got = await self._pull(p, asked)
            if not p.caught_up and (got < asked or p.read_past):
                p.catch_up()
            if got == 0:
                self._offer(p)
                await asyncio.sleep(PULL_S)

    def _offer(self, p: Partition) -> None:
        self._since.setdefault(p, self._loop.time())
        self._waiting.add(p)
        self._changed.set()

    async def _pull(self, p: Partition, asked: int) -> int:
        name = p.keys.commands
        reply = await p.told(self._router.call(name, "XREAD", "COUNT", asked, "STREAMS", name, p.position))
        if not reply:
            return 0
        p.take(reply[0][1])
        return len(reply[0][1])

    def _claim(self, after_s: float) -> list[Partition]:
        now = self._loop.time()
        self._waiting = {p for p in self._waiting if not p.closed}
        self._since = {p: since for p, since in self._since.items() if not p.closed}
        mine = [p for p in self._waiting if now - self._since[p] >= after_s and p.room() > 0]
        for p in mine:
            self._take_up(p)
        return mine

    def _take_up(self, p: Partition) -> None:
        self._waiting.discard(p)
        del self._since[p]
        p.in_read = True

    async def _read_shared(self, after_s: float) -> None:
        wire: Wire | None = None
        while True:
            mine = self._claim(after_s)
            if not mine:
                self._changed.clear()
                if not self._waiting:
                    await self._changed.wait()
                await asyncio.sleep(max(after_s, 0.002))
                continue
            if wire is None:
                wire = self._own_wire(mine[0])
            while mine and await self._read(wire, mine):
                for p in mine:
                    if p.closed or p.room() == 0 or after_s:
                        self._leave(p)
                # the first reader keeps what it has and takes up what waits; the second one gives back after each read
                mine = [p for p in mine if p.in_read and not p.closed]
                if not after_s:
                    mine += self._claim(0.0)

    async def _read_alone(self, p: Partition) -> None:
        wire, fine = self._own_wire(p), True
        try:
            while not p.closed:
                if p in self._waiting:
                    self._take_up(p)
                    while p.room() > 0 and (fine := await self._read(wire, [p])):
                        pass
                    self._leave(p)
                    if not fine:  # its slot may have moved to another node
                        await self._release(wire)
                        wire = self._own_wire(p)
                else:
                    await asyncio.sleep(PULL_S)
        finally:
            self._waiting.discard(p)
            self._since.pop(p, None)
            await self._release(wire)

    async def _release(self, wire: Wire) -> None:
        self._wires.remove(wire)
        await self._router.release_wire(wire)

    def _leave(self, p: Partition) -> None:
        p.in_read = False
        p.left_read()

    async def _read(self, wire: Wire, mine: list[Partition]) -> bool:
        """One blocking read for these partitions; a reply for a tenure that has ended meanwhile is dropped (P3).

        False: it failed, and has left them all; another reader may have them by now.
        """
        count = max(1, min(COUNT, *(p.room() for p in mine), COUNT))
        if count < COUNT:  # those that are quiet must not hold the others to the size of what they had once
            for p in mine:
                p.expect(0, 1)
        names = [p.keys.commands for p in mine]
        try:
            reply = await wire.call("XREAD", "COUNT", count, "BLOCK", BLOCK_MS, "STREAMS", *names, *(p.position for p in mine))
        except ReplyError as error:
            # a key of the wrong type: its owner finds out by its own pull; here it must not spin
            for p in mine:
                self._leave(p)
            events.emit(events.Warned(text=f"a read of {', '.join(names)} failed: {error}"))
            await asyncio.sleep(0.5)
            return False
        except RedisAway:
            for p in mine:
                self._leave(p)
            return False
        if reply:
            by_name = {p.keys.commands.encode(): p for p in mine}
            for name, entries in reply:
                p = by_name[name]
                if not p.closed:
                    p.take(entries)
            # behind the turns that were given out for it: what has ended by then is written one loop turn after it was read
            self._loop.call_soon(mine[0].shop.turn.end)
        return True

    def _own_wire(self, p: Partition) -> Wire:
        wire = self._router.own_wire(p.keys.commands, timeout_s=BLOCK_MS / 1000 + 3)
        self._wires.append(wire)
        return wire

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, TenureOver):
            self._failed(error)  # nobody would read what this worker holds, while it renews the leases
