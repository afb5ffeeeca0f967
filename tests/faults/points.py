"""Named crash points in a worker, put there from outside: the engine knows nothing of them and pays nothing.

``STATEMQ_FP=commit-sent:2:exit statemq worker tests.faults.points:Ledger`` ends the process at the second time it has sent a commit.
Actions: ``exit`` (``os._exit``), ``kill`` (SIGKILL), ``stop`` (SIGSTOP). The last line of its log says where and when (monotonic).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from statemq.store import lease
from statemq.store.fence import Fence
from statemq.worker.execute import Attempt
from statemq.worker.partition import Partition
from tests.chaos.ledger import Ledger

__all__ = ["POINTS", "VARIABLE", "Ledger"]

VARIABLE = "STATEMQ_FP"
POINTS = (
    "read", "start-sent", "start-answered", "journal-sent", "journal",
    "commit", "commit-sent", "commit-answered", "acquire-sent", "renewal-sent", "release-sent",
)  # fmt: skip


class Point:
    """The one that this process ends at."""

    def __init__(self, name: str, n: int, action: str) -> None:
        self.name, self.left, self.action = name, n, action

    def __call__(self, name: str, more: str = "") -> None:
        """The process stands here."""
        if name != self.name:
            return
        self.left -= 1
        if self.left == 0:
            sys.stderr.write(f"\npoint {name} {os.getpid()} {time.monotonic()} {more}\n")
            sys.stderr.flush()
            if self.action == "exit":
                os._exit(9)
            os.kill(os.getpid(), signal.SIGSTOP if self.action == "stop" else signal.SIGKILL)


def install(at: Point) -> None:
    """Wraps what a command passes on its way."""
    take, record = Partition.take, Attempt._record

    def taken(self: Partition, entries: Any) -> None:
        take(self, entries)
        at("read")

    async def recorded(self: Attempt, field: str, value: bytes) -> bytes:
        asyncio.get_running_loop().call_later(0.001, at, "journal-sent")
        raw = await record(self, field, value)
        at("journal", f"{self.command.id} {field}")
        return raw

    Partition.take, Attempt._record = taken, recorded  # type: ignore[method-assign]
    for name in ("start", "commit"):
        setattr(Fence, name, _sent(getattr(Fence, name), name, at))
    for name, stage in (("acquire", "acquire-sent"), ("renew", "renewal-sent"), ("release", "release-sent")):
        setattr(lease, name, _asked(getattr(lease, name), stage, at))


def _sent(send: Callable[..., Any], name: str, at: Point) -> Callable[..., Any]:
    def sends(self: Fence, *args: Any, **more: Any) -> Any:
        at(name)
        answer = send(self, *args, **more)
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, at, f"{name}-sent")  # after the turn's bytes have been written
        answer.add_done_callback(lambda _: at(f"{name}-answered"))
        return answer

    return sends


def _asked(ask: Callable[..., Any], stage: str, at: Point) -> Callable[..., Any]:
    async def asks(*args: Any, **more: Any) -> Any:
        answer = asyncio.ensure_future(ask(*args, **more))
        for _ in range(3):
            await asyncio.sleep(0)
        at(stage)
        return await answer

    return asks


if VARIABLE in os.environ:
    _name, _n, _action = os.environ[VARIABLE].split(":")
    install(Point(_name, int(_n), _action))
