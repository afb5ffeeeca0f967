"""A child that a step forks starts clean: it has none of this worker's connections, signals or loop, and comes back into none of its code.

Its copies of the connections are closed where they are made (``store/dial.py``), without a word over them: else a worker that has died
would still be heard. A child that is executed (``subprocess``, ``spawn``, ``forkserver``) inherits nothing of all this anyway.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import contextlib
import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

_workers: dict[int, asyncio.AbstractEventLoop] = {}
"""Threads in which workers run, and their loops."""

_generation = 0
"""How many forks lie between this process and the one that loaded this module."""

_masks = threading.local()


@contextlib.contextmanager
def clean_children() -> Iterator[None]:
    """For as long as it is entered, in the thread and loop of a worker."""
    thread = threading.get_ident()
    _workers[thread] = asyncio.get_running_loop()
    try:
        yield
    finally:
        _workers.pop(thread, None)


class OneProcess:
    """What was begun in this process ends in it: a child that comes back from the user's code ends here, with the code it asks for."""

    __slots__ = ("_generation",)

    def __enter__(self) -> None:
        self._generation = _generation

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._generation != _generation:
            _end(error)


def _end(error: BaseException | None = None) -> None:
    code: Any = 0
    try:
        if isinstance(error, SystemExit):
            code = error.code
            if code is not None and not isinstance(code, int):
                sys.stderr.write(f"{code}\n")
                code = 1
        elif error is not None:
            traceback.print_exception(error)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit((code or 0) & 0xFF)


def _before() -> None:
    """A signal for the child must not come before it has its own way to take it: it would be heard here, by the shared wake-up."""
    if _workers:
        _masks.former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def _after_in_parent() -> None:
    former = getattr(_masks, "former", None)
    if former is not None:
        _masks.former = None
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _after_in_child() -> None:
    global _generation
    _generation += 1
    workers = dict(_workers)
    _workers.clear()
    if workers:
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            if _is_a_loop_s(signal.getsignal(number)):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        # at its end Python would wait for the threads of pools, of which there is at most the one that goes on here
        getattr(concurrent.futures.thread, "_threads_queues", {}).clear()
        if (loop := workers.get(threading.get_ident())) is not None:
            loop.call_soon(_end)  # forked out of it: it must not turn in the child, where it would run other commands' code once more
    _after_in_parent()


def _is_a_loop_s(handler: Any) -> bool:
    """Whether only an event loop that runs can do what this handler is for."""
    if isinstance(handler, functools.partial):
        handler = handler.func
    owner = getattr(handler, "__self__", None)
    return isinstance(owner, asyncio.AbstractEventLoop | asyncio.Runner) or getattr(handler, "__module__", "") == "asyncio.unix_events"


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
