"""Where a blocking client's work runs: a loop in a thread of its own (``native.py``), one a process, started at the first call.

A forked child has neither thread nor connections of its own; there both are made anew, and the parent's are left alone.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from statemq.client.client import Client
from statemq.errors import RedisAway, UsageError
from statemq.native import start_thread, stay, told_by_thread
from statemq.store.wire import swallow

T = TypeVar("T")

LOOKS_EVERY_S = 1.0
"""How often a waiting thread looks whether there is still a loop that would answer."""

STARTS_WITHIN_S = 60.0


class Process:
    """What a process has of its own; a child gets a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False

    @property
    def ends(self) -> bool:
        """The loop turns no more, and nobody would answer: the interpreter is ending."""
        return sys.is_finalizing() or self._ended

    def run(self, work: Coroutine[Any, Any, T], within_s: float | None = None) -> T:
        """What ``work`` returns, in the loop's thread; this thread waits. An interrupt, and the end of the time, end the work too."""
        try:
            if self.ends:
                raise RedisAway("the interpreter is ending; nothing can be asked any more")
            loop = self._started()
        except BaseException:
            work.close()
            raise
        told = told_by_thread()
        asked: list[asyncio.Task[T]] = []

        def ask() -> None:
            asked.append(loop.create_task(work))
            asked[0].add_done_callback(ended)

        def ended(task: asyncio.Task[T]) -> None:
            swallow([task])  # who waited may have given up
            told.set()

        loop.call_soon_threadsafe(ask)
        until_s = math.inf if within_s is None else time.monotonic() + within_s
        try:
            while not (told.wait(max(0.0, min(LOOKS_EVERY_S, until_s - time.monotonic()))) or (asked and asked[0].done())):
                if self.ends:
                    raise RedisAway("the interpreter is ending; nothing can be asked any more")
                if time.monotonic() >= until_s:
                    raise TimeoutError
        except BaseException:
            loop.call_soon_threadsafe(lambda: asked[0].cancel())
            raise
        if asked[0].cancelled():
            raise UsageError("this client was closed meanwhile; make a new one")
        return asked[0].result()

    def _started(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        if self._loop is None:
            with self._lock:
                if self._loop is None:
                    made: list[asyncio.AbstractEventLoop | Exception] = []
                    start_thread(lambda: self._turn(made))
                    until_s = time.monotonic() + STARTS_WITHIN_S
                    while not made:
                        if time.monotonic() > until_s:
                            raise RedisAway(f"the client's thread has not begun within {STARTS_WITHIN_S:.0f} s; nothing was sent")
                        time.sleep(0.0005)
                    if isinstance(made[0], Exception):
                        raise made[0]
                    self._loop = made[0]
        return self._loop

    def _turn(self, made: list[asyncio.AbstractEventLoop | Exception]) -> None:
        """Made where it runs: a selector of gevent's belongs to the thread in which it was made."""
        try:
            loop = asyncio.new_event_loop()
            stay(loop)
        except Exception as error:  # noqa: BLE001 - for who waits, such as that there are too many open files
            made.append(error)
            return
        made.append(loop)
        try:
            loop.run_forever()
        finally:
            self._ended = True


current = Process()
_parents: list[Process] = []
"""Kept for ever: closing a parent's loop in the child would take sockets out of the parent's epoll set."""


def _forked() -> None:
    global current
    _parents.append(current)
    current = Process()


os.register_at_fork(after_in_child=_forked)


class Connection:
    """A client's connection within one process. Its methods run in the loop's thread."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._client: Client | None = None
        self._attempt: asyncio.Task[None] | None = None

    async def client(self) -> Client:
        """Connected. All who wait for one attempt hear how it went; what went wrong is tried again at the next call."""
        if self._client is None:
            if self._attempt is None or self._attempt.done():
                self._attempt = asyncio.get_running_loop().create_task(self._connect())
                swallow([self._attempt])  # all who waited may have given up
            await asyncio.shield(self._attempt)
        assert self._client is not None
        return self._client

    async def _connect(self) -> None:
        self._client = await self._make().connect()

    async def within(self, seconds: float | None, address: str) -> Client:
        """The same. Raises RedisAway after this time."""
        if self._client is not None:
            return self._client
        try:
            async with asyncio.timeout(seconds):
                return await self.client()
        except TimeoutError:
            raise RedisAway(f"no Redis answers at {address} within {seconds:g} s; nothing was sent") from None

    async def close(self) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        if self._client is not None:
            await self._client.close()
