"""Where a blocking client's work runs: a loop in a thread of its own, one a process, started at the first call.

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
from concurrent import futures
from typing import Any, TypeVar

from statemq.client import Client
from statemq.errors import RedisAway
from statemq.store.wire import swallow

T = TypeVar("T")

LOOKS_EVERY_S = 1.0
"""How often a waiting thread looks whether there is still a loop that would answer."""


class Process:
    """What a process has of its own; a child gets a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def ends(self) -> bool:
        """The loop turns no more, and nobody would answer: the interpreter is ending."""
        return sys.is_finalizing() or (self._thread is not None and not self._thread.is_alive())

    def run(self, work: Coroutine[Any, Any, T], within_s: float | None = None) -> T:
        """What ``work`` returns, in the loop's thread; this thread waits. An interrupt, and the end of the time, end the work too."""
        if self.ends:
            work.close()
            raise RedisAway("the interpreter is ending; nothing can be asked any more")
        asked = asyncio.run_coroutine_threadsafe(work, self._started())
        until_s = math.inf if within_s is None else time.monotonic() + within_s
        try:
            while not asked.done() and time.monotonic() < until_s:
                futures.wait([asked], timeout=max(0.0, min(LOOKS_EVERY_S, until_s - time.monotonic())))
                if self.ends:
                    raise RedisAway("the interpreter is ending; nothing can be asked any more")
            return asked.result(timeout=0)
        except BaseException:
            asked.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._loop.run_forever, name="statemq", daemon=True)
                thread.start()
                self._thread = thread
            return self._loop


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
