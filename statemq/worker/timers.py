"""Due timers of a partition: wake-ups of waiting commands, and delayed commands (P33)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from statemq.worker.partition import Partition

AT_ONCE = 128
"""Timers fired in one call."""

LATEST_S = 30.0
"""A timer's wait is cut here, so that a clock that was set is noticed."""


class Timers:
    """Fires what is due, as long as the tenure lasts. Silent until everything left by a former owner was read (P9)."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._alarm: asyncio.TimerHandle | None = None
        self._firing = False
        self._again = False
        self._unknown: set[bytes] = set()
        """Due timers of kinds that this version does not know: a newer version's worker armed them, and fires them."""
        self._told = 0
        """How often somebody said that the earliest due time has changed."""
        partition.on_due = self.tell

    def tell(self) -> None:
        """``next_due_ms`` has a new value."""
        self._told += 1
        self.set()

    def set(self) -> None:
        """The alarm rings at ``next_due_ms``."""
        p = self._partition
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if p.closed or p.draining or not p.caught_up or p.next_due_ms is None:
            return
        wait_s = min(LATEST_S, max(0.0, (p.next_due_ms - p.now_ms()) / 1000))
        self._alarm = asyncio.get_running_loop().call_later(wait_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._firing:
            self._again = True
        elif not self._partition.closed:
            self._firing = True
            self._partition.spawn(self._fire())

    async def _fire(self) -> None:
        p = self._partition
        try:
            while not p.closed and not p.draining:
                self._again = False
                fired = await self._fire_due()
                if fired < AT_ONCE and not self._again:
                    break
        finally:
            self._firing = False
        self.set()

    async def _fire_due(self) -> int:
        """Fires up to a batch; leaves in ``next_due_ms`` when to look again."""
        p, k = self._partition, self._partition.keys
        now = p.now_ms()
        rows = await self._due(now)
        if rows:
            data = await p.ask("HMGET", k.timers_data, *rows)
            timers = [_timer(id, text) for id, text in zip(rows, data, strict=True)]
            reply = await p.answer(p.fence.wake(timers))
            # a resend is only told "seen": who is woken for nothing reads its inbox's head and sees that it waits
            words = reply[1:] if reply[0] == b"done" else [b"ready"] * len(rows)
            if b"early" in words:
                await p.look_at_clock()
            for id, timer, word in zip(rows, timers, words, strict=True):
                if word == b"ready" and timer[0] == "wake" and timer[2]:
                    p.lane(timer[2]).woken()
                elif word == b"unknown":
                    self._unknown.add(id)
        told = self._told
        first = await self._first(now)
        if told != self._told:
            return AT_ONCE  # what was told meanwhile may be younger than this answer: once more
        p.next_due_ms = first
        if first is not None and first <= now and len(rows) < AT_ONCE:
            p.next_due_ms = now + 20  # our clock runs ahead of Redis: not busily
        return len(rows)

    async def _due(self, now: int) -> list[bytes]:
        """A batch of what is due, but for what this version does not know."""
        p, k = self._partition, self._partition.keys
        found: list[bytes] = []
        unknown: set[bytes] = set()
        at = 0
        while len(found) < AT_ONCE:
            page = await p.ask("ZRANGEBYSCORE", k.timers, "-inf", now, "LIMIT", at, AT_ONCE)
            unknown.update(self._unknown.intersection(page))
            found += [id for id in page if id not in self._unknown]
            at += len(page)
            if len(page) < AT_ONCE:
                self._unknown = unknown  # those that are gone are forgotten
                break
        return found[:AT_ONCE]

    async def _first(self, now: int) -> int | None:
        """When the first timer is due that is not passed over."""
        p, k = self._partition, self._partition.keys
        if not self._unknown:
            row = await p.ask("ZRANGE", k.timers, 0, 0, "WITHSCORES")
        elif await self._due(now):
            return now
        else:
            row = await p.ask("ZRANGEBYSCORE", k.timers, f"({now}", "+inf", "WITHSCORES", "LIMIT", 0, 1)
        return int(float(row[1])) if row else None


def _timer(id: bytes, text: bytes | None) -> tuple[str, str, str, list[Any]]:
    """A timer's kind, id, key and, for a delayed command, the fields of its entry."""
    try:
        data = msgspec.json.decode(text or b"")
    except msgspec.DecodeError:
        data = None
    if isinstance(data, list):
        fields = dict(zip(data[::2], data[1::2], strict=False))
        return "command", id.decode(), str(fields.get("key", "")), data
    if isinstance(data, dict):
        return str(data.get("kind", "wake")), id.decode(), str(data.get("key", "")), []
    return "lost", id.decode(), "", []  # its data was removed by hand: the script takes the timer away
