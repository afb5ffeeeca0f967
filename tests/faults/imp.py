"""A machine whose bodies hold the interpreter's lock, eat memory or never end; its workers are processes."""

from __future__ import annotations

import asyncio
import os
import resource

from statemq import Context, Machine, Retry, transition

MEMORY = "IMP_MEMORY_MB"
"""Environment: how much more memory than at its start a worker may take."""


class Imp(Machine[None], initial="idle", partitions=2, retry=Retry(attempts=1)):
    @transition(source="idle")
    async def good(self, ctx: Context, n: int) -> int:
        return await ctx.step("one", lambda: n)

    @transition(source="idle")
    async def holds_the_lock(self, rounds: int) -> int:
        """A call into C that lets no other thread run, the one that renews included."""
        return sum(range(rounds))

    @transition(source="idle")
    async def eats(self) -> int:
        eaten = []
        while True:
            eaten.append(bytearray(8 * 1024 * 1024))

    @transition(source="idle")
    async def spins(self) -> None:
        """Lets others run, and never ends by itself."""
        while True:
            await asyncio.sleep(0)

    @transition(source="idle")
    def ping(self) -> str:
        return self.key


if MEMORY in os.environ:
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    most = now + int(os.environ[MEMORY]) * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))  # its children may set their own
