"""Load on anything that can be called: so many callers, each sends its next command when its last was answered."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol

from statemq.bench.figures import Ledger, Place, percentile
from statemq.bench.jobs import Done, Job


class Side(Protocol):
    """What is measured, as its client sees it: statemq, the raw line, or HTTP."""

    async def open(self) -> None: ...

    async def call(self, machine: str, transition: str, key: str, slot: int) -> int:
        """The instance's count after the transition. ``slot``: which of the callers; no two use one at a time."""
        ...

    async def stored(self, machine: str, keys: list[str]) -> list[int]:
        """The count in each instance's data."""
        ...

    async def tidy(self) -> None: ...

    async def close(self) -> None: ...


def places(job: Job, prefix: str) -> list[Place]:
    """The instances of a job: its keys, spread over its machines."""
    return [(job.machines[number % len(job.machines)], f"{prefix}-{number}") for number in range(job.keys)]


async def closed(side: Side, job: Job, prefix: str, ledger: Ledger) -> Done:
    """Random instances, so that two commands may meet on one. An error is counted and its caller goes on."""
    instances, pick, clock = places(job, prefix), random.Random(job.keys).random, time.monotonic  # noqa: S311 - keeps no secret
    n, latencies_s, in_time, commands = len(instances), [0.0] * 0, 0, 0
    began_s = clock()
    end_s = began_s + job.seconds

    async def caller(slot: int) -> None:
        nonlocal in_time, commands
        sent_s = clock()
        while sent_s < end_s:
            place = instances[int(pick() * n)]
            try:
                await side.call(place[0], job.transition, place[1], slot)
            except Exception as error:  # noqa: BLE001 - it is counted, told in the balance, and ends the bench in an error
                ledger.note_error(error)
                await asyncio.sleep(0.01)
                sent_s = clock()
                continue
            ledger.note(place)
            answered_s = clock()
            commands += 1
            if answered_s <= end_s:
                in_time += 1
                latencies_s.append(answered_s - sent_s)
            sent_s = answered_s

    await asyncio.gather(*(caller(slot) for slot in range(job.inflight)))
    return Done(
        commands=commands,
        in_time=in_time,
        seconds=job.seconds,
        p50_ms=percentile(latencies_s, 0.5) * 1000,
        p99_ms=percentile(latencies_s, 0.99) * 1000,
        began_s=began_s,
        ended_s=clock(),
    )


async def burst(side: Side, job: Job, prefix: str, ledger: Ledger) -> Done:
    """One command for each instance, all at once; done when all are answered."""

    async def one(place: Place) -> None:
        await side.call(place[0], job.transition, place[1], 0)
        ledger.note(place)

    began_s = time.monotonic()
    instances = places(job, prefix)
    await asyncio.gather(*map(one, instances))
    ended_s = time.monotonic()
    return Done(commands=len(instances), seconds=ended_s - began_s, began_s=began_s, ended_s=ended_s)


async def check(side: Side, ledger: Ledger) -> Done:
    """What was answered is what is stored, instance by instance."""
    keys: dict[str, list[str]] = {}
    for machine, key in ledger.done:
        keys.setdefault(machine, []).append(key)
    stored: dict[Place, int] = {}
    for machine, names in keys.items():
        counts = await side.stored(machine, names)
        stored.update({(machine, key): count for key, count in zip(names, counts, strict=True)})
    return Done(balance=ledger.balance(stored))
