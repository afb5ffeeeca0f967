"""What may outlast a worker, though nobody needs it any more: its step is the next owner's, its result counts for nothing.

A blocking call cannot be ended but with its process, and a body may swallow its cancellation again and again. A process
that was asked to end must not wait for either.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

END_S = 5.0
"""What the end of the interpreter may take, such as the last words of somebody's library."""

_PREFIX = "statemq-step"
_bodies = 0


class Threads(ThreadPoolExecutor):
    """A pool that is shut down without waiting; what has not begun by then never does."""

    def __init__(self, n: int) -> None:
        super().__init__(n, thread_name_prefix=_PREFIX)

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:
        super().shutdown(wait=False, cancel_futures=True)


async def all_ended(within_s: float = 1.0) -> bool:
    """Cancels all other tasks of this loop; whether they have ended. If not, the loop must not be closed: that would wait for them."""
    global _bodies
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    left = (await asyncio.wait(others, timeout=within_s))[1] if others else ()
    _bodies += len(left)
    return not left


def end_within(code: int, seconds: float = END_S) -> None:
    """This process ends with ``code``: at once if something is left that must not be waited for, else as any does, but within this time.

    At its end Python waits for all threads, also those of pools that are not ours.
    """
    until = time.monotonic() + 0.1  # the idle threads of pools that were shut down end at once
    while (calls := sum(thread.name.startswith(_PREFIX) for thread in threading.enumerate())) and time.monotonic() < until:
        time.sleep(0.005)
    if calls or _bodies:
        _end(code, " and ".join(words for words in (_counted(calls, "blocking call"), _counted(_bodies, "cancelled body")) if words))
    timer = threading.Timer(
        seconds, lambda: _end(code, _counted(sum(not t.daemon for t in threading.enumerate()) - 1, "thread") or "the rest")
    )
    timer.daemon = True
    timer.start()


def _end(code: int, left: str) -> None:
    try:
        sys.stderr.write(f"statemq: this process ends without waiting for {left}\n")
        sys.stderr.flush()
        sys.stdout.flush()
    finally:  # stderr may be gone: a terminal that was closed
        os._exit(code)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n > 1 else ''}" if n else ""
