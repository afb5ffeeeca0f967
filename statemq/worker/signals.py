"""The signals that end a process, as values a loop can look at and wait for."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType, TracebackType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def heeded() -> list[signal.Signals]:
    """The ending signals; without SIGHUP if this process was started to ignore it, as ``nohup`` does."""
    return [number for number in ENDING if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]


class Signals:
    """While entered, SIGTERM, SIGINT and SIGHUP end nothing but are noted in ``received``, in order.

    ``wait`` also returns when a child process ends. Main thread only, and not beside an event loop that handles signals.
    """

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._former: dict[signal.Signals, Any] = {}
        self._former_fd = -1
        self._read = self._write = -1

    @property
    def exit_code(self) -> int:
        """130 if it was Ctrl-C that came first, else 0."""
        return 130 if self.received[:1] == [signal.SIGINT] else 0

    def wait(self, timeout_s: float | None) -> None:
        """Returns when a signal has come since the last call (a child's end included), or after the time."""
        select.select([self._read], [], [], timeout_s)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 512):
                pass

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._former_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in heeded():
            self._former[number] = signal.signal(number, self._note)
        self._former[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)  # so that it wakes `wait`
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        signal.set_wakeup_fd(self._former_fd)
        os.close(self._read)
        os.close(self._write)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received.append(signal.Signals(number))
