"""Due timers of a partition: wake-ups of waiting commands, and delayed commands (P33)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from statemq.worker.partition import Partition

Timer = tuple[str, str, str, list[Any]]

AT_ONCE = 128
"""Timers fired in one call."""

AT_A_LOOK = 10_000
"""Due timers whose ids are read at one time."""

LATEST_S = 30.0
"""A timer's wait is cut here, so that a clock that was set is noticed."""


class Timers:
    """Fires what is due, as long as the tenure lasts. Silent until everything left by a former owner was read (P9)."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._alarm: asyncio.TimerHandle | None = None
        self._firing = False
        self._again = False
        self._unknown: dict[bytes, bytes] = {}
        """Due timers of kinds that this version does not know, each with its time: a newer version's worker armed them, and fires them. One
        that was armed anew since is another."""
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
        p, now, told, words = self._partition, self._partition.now_ms(), self._told, list[bytes]()
        timers = await self._due(now)
        if timers:
            reply = await p.answer(p.fence.wake(timers))
            # a resend is only told "seen": who is woken for nothing reads its inbox's head and sees that it waits
            words = reply[1:] if reply[0] == b"done" else [b"ready"] * len(timers)
            if b"early" in words:
                await p.look_at_clock()
            for timer, word in zip(timers, words, strict=True):
                if word == b"ready" and timer[0] == "wake" and timer[2]:
                    p.lane(timer[2]).woken()
        if not self._unknown:
            told = self._told
            row = await p.ask("ZRANGE", p.keys.timers, 0, 0, "WITHSCORES")
        elif len(timers) == AT_ONCE:
            return AT_ONCE
        else:  # what is due by now was looked through, and fired unless Redis has another time
            row = [b"", now] if b"early" in words else await self._after(now)
        if told != self._told:
            return AT_ONCE  # what was told meanwhile may be younger than this answer: once more
        p.next_due_ms = first = int(float(row[1])) if row else None
        if first is not None and first <= now and len(timers) < AT_ONCE:
            p.next_due_ms = now + 20  # our clock runs ahead of Redis: not busily
        return len(timers)

    async def _after(self, now: int) -> list[Any]:
        p = self._partition
        row: list[Any] = await p.ask("ZRANGEBYSCORE", p.keys.timers, f"({now}", "+inf", "WITHSCORES", "LIMIT", 0, 1)
        return row

    async def _due(self, now: int) -> list[Timer]:
        """A batch of what is due, but for what this version does not know; that is looked through once, and then passed over."""
        p, k = self._partition, self._partition.keys
        found: list[Timer] = []
        passed: dict[bytes, bytes] = {}
        at = 0
        while True:
            n = min(AT_A_LOOK, AT_ONCE + len(self._unknown))
            flat = await p.ask("ZRANGEBYSCORE", k.timers, "-inf", now, "WITHSCORES", "LIMIT", at, n)
            page = list(zip(flat[::2], flat[1::2], strict=True))
            fresh = [(id, due_ms) for id, due_ms in page if self._unknown.get(id) != due_ms]
            passed.update(page)
            while fresh and len(found) < AT_ONCE:
                some, fresh = fresh[: AT_ONCE - len(found)], fresh[AT_ONCE - len(found) :]
                data = await p.ask("HMGET", k.timers_data, *(id for id, _ in some))
                for (id, _), text in zip(some, data, strict=True):
                    if (timer := _timer(id, text)) is not None:
                        found.append(timer)
                        del passed[id]
            for id, _ in fresh:
                del passed[id]
            if len(found) == AT_ONCE:
                self._unknown |= passed
                return found
            at += len(page)
            if len(page) < n:
                self._unknown = passed  # those that are gone are forgotten
                return found


def _timer(id: bytes, text: bytes | None) -> Timer | None:
    """A timer's kind, id, key and, for a delayed command, the fields of its entry; None for a kind that this version does not know."""
    try:
        data = msgspec.json.decode(text or b"")
    except msgspec.DecodeError:
        data = None
    if isinstance(data, dict):
        return ("wake", id.decode(), str(data.get("key", "")), []) if data.get("kind", "wake") == "wake" else None
    if isinstance(data, list) and data and len(data) % 2 == 0 and all(isinstance(field, str) for field in data):
        return "command", id.decode(), str(dict(zip(data[::2], data[1::2], strict=True)).get("key", "")), data
    return "lost", id.decode(), "", []  # its data was removed, or damaged, by hand: the script takes the timer away
