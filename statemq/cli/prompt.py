"""``breakpoint()`` in what a worker runs: a debugger in its terminal, or in that of the `dev` that started it; else one sentence."""

from __future__ import annotations

import os
import pdb
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from statemq.errors import Fail

TERMINAL = "STATEMQ_TERMINAL"
"""Environment of a worker that `dev` starts: the path of its terminal. The worker has none of its own, so that Ctrl-C is for `dev`."""

NO_TERMINAL = (
    "breakpoint() has no terminal here; run `statemq dev` or a single `statemq worker` (without --processes) in one, "
    "or name a debugger that needs none in PYTHONBREAKPOINT"
)

Attended = Callable[[bool], None]


def use(attended: Attended) -> None:
    """From now on ``breakpoint()`` asks there, unless PYTHONBREAKPOINT names another debugger. ``attended`` is told while it waits for
    words, so that nobody takes the process for stuck."""
    if os.environ.get("PYTHONBREAKPOINT"):
        return
    at_a_time = threading.Lock()

    def ask(*args: Any, **options: Any) -> None:
        words, says = _terminal()
        _Prompt(words, says, attended, at_a_time).set_trace(sys._getframe(1))

    sys.breakpointhook = ask


def own_terminal() -> dict[str, str]:
    """What `dev` adds to the environment of its worker."""
    try:
        return {TERMINAL: os.ttyname(0)}
    except OSError:
        return {}


def _terminal() -> tuple[IO[str] | None, IO[str] | None]:
    """Where to read and write; None is the process's own. Raises Fail, which is not tried again."""
    if sys.stdin is not None and sys.stdin.isatty():
        return None, None
    if path := os.environ.get(TERMINAL):
        try:
            file = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            return os.fdopen(file, "r", encoding="utf-8"), os.fdopen(os.dup(file), "w", encoding="utf-8")
        except OSError:  # it was closed meanwhile
            pass
    raise Fail(NO_TERMINAL, "usage")


class _Prompt(pdb.Pdb):
    def __init__(self, words: IO[str] | None, says: IO[str] | None, attended: Attended, at_a_time: threading.Lock) -> None:
        super().__init__(stdin=words, stdout=says, nosigint=True)
        self._attended, self._at_a_time = attended, at_a_time
        if words is not None:
            self.use_rawinput = False

    def interaction(self, *args: Any, **options: Any) -> None:
        with self._at_a_time:
            self._attended(True)
            try:
                super().interaction(*args, **options)
            finally:
                self._attended(False)
