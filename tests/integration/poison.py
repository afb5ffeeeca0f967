"""A machine whose bodies end their process, and a worker for it: ``python -m tests.integration.poison URL NAMESPACE SETTINGS-JSON``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from statemq import Context, Machine, log, transition
from statemq.config import WorkerSettings
from statemq.worker import suspects
from statemq.worker.daemon import Worker

FOLDER = "POISON_FOLDER"
"""Environment: where ``log`` is written and ``hold`` is looked for."""

ALONE_S = 0.3
"""How long these workers let a suspect run alone."""


def note(line: str) -> None:
    with (Path(os.environ[FOLDER]) / "log").open("a") as file:
        file.write(line + "\n")


class Poison(Machine[None], initial="idle", partitions=1):
    @transition(source="idle")
    async def good(self, ctx: Context, n: int) -> int:
        await ctx.step("note", note, f"good {n}")
        await asyncio.sleep(0)
        return n

    @transition(source="idle")
    async def ends_the_process(self) -> None:
        note("poison")
        os._exit(9)

    @transition(source="idle")
    async def never_returns(self) -> None:
        note("loop")
        while True:
            pass

    @transition(source="idle")
    async def holds(self, ctx: Context) -> str:
        await ctx.step("begin", note, "step")
        note("begin")
        while (Path(os.environ[FOLDER]) / "hold").exists():
            await asyncio.sleep(0.01)
        note("end")
        return "done"

    @transition(source="idle")
    async def swallows(self) -> None:
        note("begin")
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    @transition(source="idle")
    async def goes_on(self, ctx: Context, steps: int) -> int:
        for n in range(steps):
            await ctx.step(f"step {n}", note, f"{ctx.key} {n}")
            await asyncio.sleep(0.05)
        return steps

    @transition(source="idle")
    async def lasts(self, ctx: Context, seconds: float) -> None:
        """Nothing is recorded before its end."""
        await ctx.step("last", asyncio.sleep, seconds)

    @transition(source="idle")
    async def kills_late(self, ctx: Context, seconds: float) -> None:
        async def late() -> None:
            await asyncio.sleep(seconds)
            note(f"{ctx.key} kills")
            os._exit(9)

        await ctx.step("late", late)

    @transition(source="idle")
    async def blocks(self, ctx: Context) -> None:
        await ctx.step("block", block)

    @transition(source="idle")
    async def blocks_beside(self, ctx: Context) -> None:
        await ctx.step("block", block_beside)

    @transition(source="idle")
    async def blocks_elsewhere(self, ctx: Context) -> None:
        """In a pool of its own."""
        await ctx.step("block", block_elsewhere)


def block() -> None:
    """A call that may never return; where the folder's ``hold`` is gone it does."""
    note("begin")
    while (Path(os.environ[FOLDER]) / "hold").exists():
        time.sleep(0.01)


async def block_beside() -> None:
    await asyncio.to_thread(block)


async def block_elsewhere() -> None:
    await asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(1), block)


async def main(url: str, namespace: str, settings: bytes) -> None:
    log.listen()
    suspects.ALONE_S = ALONE_S
    worker = Worker([Poison], url, namespace=namespace, settings=msgspec.json.decode(settings, type=WorkerSettings))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3].encode()))
