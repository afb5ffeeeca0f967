"""A machine whose bodies end their process, and a worker for it: ``python -m tests.integration.poison URL NAMESPACE SETTINGS-JSON``."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
    async def ends_the_process(self, code: int = 9) -> None:
        note("poison")
        os._exit(code)

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
    async def falls_after_each(self, ctx: Context, steps: int) -> int:
        """Its process dies as soon as the code hears that a step is recorded."""
        for n in range(steps):
            await ctx.step(f"step {n}", note, f"{ctx.key} {n}")
            fallen = Path(os.environ[FOLDER]) / f"fallen {ctx.key} {n}"
            if not fallen.exists():
                fallen.touch()
                os.kill(os.getpid(), signal.SIGKILL)
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
    async def forks(self, ctx: Context, how: str) -> str:
        return await ctx.step("fork", CHILDREN[how])

    @transition(source="idle")
    async def forks_and_kills(self, ctx: Context, how: str) -> None:
        """Its child outlives its process."""
        note(f"child {await ctx.step('fork', LASTING[how])}")
        os.kill(os.getpid(), signal.SIGKILL)

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


def nap(seconds: float = 60) -> None:
    time.sleep(seconds)


def forked() -> int:
    if (child := os.fork()) == 0:
        nap()
        os._exit(0)
    return child


async def forked_in_the_loop() -> int:
    return forked()


def multiprocessed() -> int:
    child = multiprocessing.get_context("fork").Process(target=nap)
    child.start()
    return child.pid or 0


def pooled() -> int:
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    KEPT.append(pool)
    return pool.submit(os.getpid).result()


def executed() -> int:
    """With all that it would inherit."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False).pid


KEPT: list[object] = []
LASTING = {f.__name__: f for f in (forked, forked_in_the_loop, multiprocessed, pooled, executed)}


def terminated(method: str) -> str:
    """At once, and when it has begun."""
    codes = []
    for after_s in (0.0, 0.3):
        child = multiprocessing.get_context(method).Process(target=nap)
        child.start()
        time.sleep(after_s)
        child.terminate()
        child.join(20)
        codes.append(child.exitcode)
        child.kill()
    return f"{codes}"


def ended(method: str) -> str:
    child = multiprocessing.get_context(method).Process(target=nap, args=(0,))
    child.start()
    child.join(20)
    return f"{child.exitcode}"


def came_back(how: str) -> str:
    """The child's way leads back into the worker's code."""
    child = os.fork()
    if child == 0:
        if how == "exits":
            sys.exit(7)
        if how == "raises":
            raise ValueError("in the child")
        return "child"
    return f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


async def came_back_in_the_loop(how: str) -> str:
    return came_back(how)


async def turns() -> str:
    """The child goes on in the loop."""
    child = os.fork()
    if child == 0:
        await asyncio.sleep(0.01)
        note("the loop turned in a child")
        os._exit(9)
    return f"{os.waitstatus_to_exitcode(await asyncio.to_thread(lambda: os.waitpid(child, 0)[1]))}"


CHILDREN: dict[str, Callable[[], Any]] = {
    "turns": turns,
    **{f"terminated {method}": functools.partial(terminated, method) for method in ("fork", "spawn", "forkserver")},
    **{f"ended {method}": functools.partial(ended, method) for method in ("fork", "spawn", "forkserver")},
    **{f"{how}": functools.partial(came_back, how) for how in ("returns", "exits", "raises")},
    **{f"{how} in the loop": functools.partial(came_back_in_the_loop, how) for how in ("returns", "exits", "raises")},
}


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
