"""The threads in which code that blocks runs: the worker's steps, and what handlers give to ``asyncio.to_thread``.

Such code cannot be ended but with its process. When the worker leaves it is left behind: its result counts for nothing, and its step
runs again elsewhere, so nobody should wait for it.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

_PREFIX = "statemq-blocking"


class Threads(ThreadPoolExecutor):
    """A pool that is shut down without waiting; what has not begun by then never does."""

    def __init__(self, n: int) -> None:
        super().__init__(n, thread_name_prefix=_PREFIX)

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def unreturned(within_s: float = 0.2) -> int:
    """How many threads of pools that were shut down are still in somebody's code; the idle ones end at once."""
    until = time.monotonic() + within_s
    while (left := sum(thread.name.startswith(_PREFIX) for thread in threading.enumerate())) and time.monotonic() < until:
        time.sleep(0.005)
    return left
