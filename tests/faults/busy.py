"""A machine whose steps compute in plain Python, so that a worker's threads take the interpreter from each other:
``python -m tests.faults.busy URL NAMESPACE Busy`` runs a worker of it, or of one that does nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from statemq import Context, Machine, transition
from statemq.config import WorkerSettings
from statemq.worker.daemon import Worker

LEASE_MS = 120_000
"""So long that nobody loses anything by its lease."""

FOLDER = "BUSY_FOLDER"
"""Environment: what began is written to its ``log``; steps compute until its ``end`` is there."""


def compute(key: str) -> int:
    folder = Path(os.environ[FOLDER])
    with (folder / "log").open("a") as file:
        file.write(f"{os.getpid()} {key}\n")
    n = 0
    while n % 100_000 or not (folder / "end").exists():
        n += 1
    return n


class Busy(Machine[None], initial="on", partitions=1):
    @transition(source="on")
    async def work(self, ctx: Context) -> str:
        await ctx.step("compute", compute, ctx.key)
        return "done"


class Quiet(Machine[None], initial="on", partitions=16):
    @transition(source="on")
    def pass_by(self) -> None: ...


if __name__ == "__main__":
    machine = {"Busy": Busy, "Quiet": Quiet}[sys.argv[3]]
    asyncio.run(Worker([machine], sys.argv[1], namespace=sys.argv[2], settings=WorkerSettings(lease_ms=LEASE_MS)).run())
