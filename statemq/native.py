"""Threads of the operating system, also where gevent has replaced ``threading`` by greenlets.

A loop in a greenlet would count as running in all others of its thread: nobody there could block, nor run a loop of his own. So it has a
real thread, and who waits for it gives way to other greenlets. Nothing of gevent's is shared between the two: its locks do not always wake
a waiter of another thread.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from statemq.errors import UsageError

STAYS_S = 3600.0


class Told(Protocol):
    """Set in one thread, waited for in another."""

    def set(self) -> None: ...

    def wait(self, timeout: float) -> bool: ...


def patched() -> Any:
    """gevent's ``monkey``, if there are greenlets in the place of threads; else None."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("threading") else None


def start_thread(work: Callable[[], None]) -> None:
    """``work`` runs in a real thread, which no end of the program waits for."""
    if (monkey := patched()) is not None:
        if not monkey.is_module_patched("select"):  # greenlets of the new thread, such as a look at a name, would never have their turn
            raise UsageError("under gevent this client needs monkey.patch_all(); here threads are replaced, and select is not")
        # gevent imports its parts when a thread first needs them; two at once would wait for each other's import for ever
        importlib.import_module("gevent").get_hub().resolver  # noqa: B018 - made by being asked for
        monkey.get_original("_thread", "start_new_thread")(work, ())
    else:
        threading.Thread(target=work, name="statemq", daemon=True).start()


def told_by_thread() -> Told:
    return threading.Event() if patched() is None else _Pipe()


class _Pipe:
    """What a greenlet can wait for that a real thread sets. The other end stays open until neither side has this any more."""

    def __init__(self) -> None:
        self._wait_read: Callable[..., None] = importlib.import_module("gevent.socket").wait_read
        self._read, self._write = os.pipe()

    def set(self) -> None:
        """Once. A forked child may have this end open, too: its closing alone would not be noticed."""
        os.write(self._write, b".")
        os.close(self._write)

    def wait(self, timeout: float) -> bool:
        try:
            self._wait_read(self._read, timeout, TimeoutError())
        except TimeoutError:
            return False
        return True

    def __del__(self) -> None:
        os.close(self._read)


def stay(loop: asyncio.AbstractEventLoop) -> None:
    """There is always a timer: gevent ends a thread that waits for nothing else than to be called from another one."""
    loop.call_later(STAYS_S, stay, loop)
