"""What all partitions of one worker share."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from statemq.config import WorkerSettings
from statemq.store.fence import TenureOver
from statemq.store.router import Router
from statemq.worker.slots import Slots
from statemq.worker.threads import StepThreads
from statemq.worker.turn import Turn

if TYPE_CHECKING:
    from statemq.worker.partition import Partition


class CrashPlan(Protocol):
    """``dev --crash``: ends this process in the middle of transitions."""

    def started(self, command_id: str, crashes: int, what: str = "") -> None: ...

    def passed(self, command_id: str) -> None: ...

    def ending(self, command_id: str) -> None: ...

    def dropped(self, command_id: str) -> None: ...


class Shop(msgspec.Struct):
    router: Router
    worker: str
    settings: WorkerSettings
    slots: Slots
    threads: StepThreads
    now_ms: Callable[[], int]
    """Redis time."""
    over: Callable[[Partition, TenureOver], None]
    """Told when a tenure ends by itself."""
    turn: Turn
    context: contextvars.Context
    """As this worker was started. The user's code runs in copies of it: what one sets, no other sees."""
    crash: CrashPlan | None = None
