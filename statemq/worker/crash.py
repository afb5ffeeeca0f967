"""``statemq dev --crash P``: kill -9 in the middle of transitions, to see them go on from where they were.

The worker tells it where an attempt stands; with probability P it has this process killed at one of these moments:
at the start, after a journal record or wait (at once or within the next second), or just before the commit.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Mapping

import msgspec

from statemq.errors import UsageError

VARIABLE = "STATEMQ_CRASH"

MAX_CRASHES = 2
"""An attempt whose command has crashed so often is left alone: one more may bury it (P14)."""

LATEST_POINT = 3
LONGEST_DELAY_S = 1.0

logger = logging.getLogger("statemq.worker")


class Plan(msgspec.Struct, frozen=True):
    """Pass ``points`` records or waits, then end after ``delay_s``; never later than the attempt's own end."""

    points: int
    delay_s: float


class Crash:
    """Kills this process in the middle of ``probability`` of the attempts (of commands that crashed less than twice)."""

    def __init__(self, probability: float, *, dice: random.Random | None = None, kill: Callable[[], None] | None = None) -> None:
        self.probability = probability
        self._dice = dice or random.Random()  # noqa: S311 - chance, not secrecy
        self._kill = kill or kill_this_process
        self._armed: dict[str, tuple[Plan, str]] = {}
        """Command id → what is still to pass, and what the command is called in the log."""
        self._fuses: dict[str, threading.Timer] = {}

    def plan(self, command_id: str, crashes: int) -> Plan | None:
        """The dice for one attempt; None: it is left alone."""
        if crashes >= MAX_CRASHES or self._dice.random() >= self.probability:
            return None
        delay_s = self._dice.choice([0.0, self._dice.uniform(0.0, LONGEST_DELAY_S)])
        return Plan(self._dice.randint(0, LATEST_POINT), delay_s)

    def started(self, command_id: str, crashes: int, what: str = "") -> None:
        """Call when an attempt begins; ``what`` is the command for people: ``resource/a setUp``."""
        self._disarm(command_id)
        if plan := self.plan(command_id, crashes):
            self._armed[command_id] = (plan, what or command_id)
            self._look(command_id)

    def passed(self, command_id: str) -> None:
        """Call when a step or wait of the attempt has been recorded."""
        if armed := self._armed.get(command_id):
            plan, what = armed
            if plan.points > 0:
                self._armed[command_id] = (Plan(plan.points - 1, plan.delay_s), what)
                self._look(command_id)

    def ending(self, command_id: str) -> None:
        """Call when the body has returned or raised, before that is committed: the last moment for a planned crash."""
        if armed := self._disarm(command_id):
            self._end(armed[1])

    def dropped(self, command_id: str) -> None:
        """Call when the attempt is given up without an end of its own (fenced, cancelled): nothing is planned any more."""
        self._disarm(command_id)

    def _look(self, command_id: str) -> None:
        plan, what = self._armed[command_id]
        if plan.points > 0:
            return
        if plan.delay_s == 0:
            self._disarm(command_id)
            self._end(what)
            return
        # A thread, not the event loop: a handler that blocks the loop shall be hit as well.
        self._fuses[command_id] = fuse = threading.Timer(plan.delay_s, self._end, [what])
        fuse.daemon = True
        fuse.start()

    def _disarm(self, command_id: str) -> tuple[Plan, str] | None:
        if fuse := self._fuses.pop(command_id, None):
            fuse.cancel()
        return self._armed.pop(command_id, None)

    def _end(self, what: str) -> None:
        logger.warning("killing worker process %d in the middle of %s (--crash)", os.getpid(), what)
        self._kill()


def crash_from(environ: Mapping[str, str]) -> Crash | None:
    """The Crash that ``STATEMQ_CRASH`` asks for, if it does. Raises UsageError for what is no probability."""
    said = environ.get(VARIABLE, "")
    return Crash(probability(said)) if said else None


def probability(said: str) -> float:
    """A number from 0 to 1. Raises UsageError."""
    try:
        value = float(said)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise UsageError(f'"{said}" is no probability for --crash; write a number from 0 to 1, as 0.4')
    return value


def kill_this_process() -> None:
    """As the kernel does to what is out of memory: nothing is flushed, closed or said."""
    os.kill(os.getpid(), signal.SIGKILL)
