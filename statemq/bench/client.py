"""A client process: does one Job after another, so that rounds of several sides can take turns without starting anew."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from statemq.bench.figures import Ledger
from statemq.bench.http import HttpSide
from statemq.bench.jobs import Done, Job, Wiring, decode_job, decode_wiring, encode_line
from statemq.bench.load import Side, burst, check, closed, places
from statemq.bench.loops import run
from statemq.bench.machines import MACHINES, NOTE
from statemq.bench.raw import BareClient
from statemq.client.client import Client, Handle
from statemq.codec import short_id

CHUNK = 10_000
"""Commands made before they are sent, when a backlog is filled."""


class StatemqSide:
    def __init__(self, wiring: Wiring) -> None:
        self.client = Client(wiring.url, namespace=wiring.namespace, machines=MACHINES.values())
        self.sent: list[Handle[Any]] = []

    async def open(self) -> None:
        await self.client.connect()

    async def call(self, machine: str, transition: str, key: str, slot: int) -> int:
        count: int = await self.client.call(getattr(MACHINES[machine], transition)(key))
        return count

    async def stored(self, machine: str, keys: list[str]) -> list[int]:
        found: list[int] = []
        for some in chunks(keys, 128):
            instances = await asyncio.gather(*(self.client.get(MACHINES[machine], key) for key in some))
            found += [instance.data.count for instance in instances]
        return found

    async def tidy(self) -> None:
        """Retention does it."""

    async def close(self) -> None:
        await self.client.close()

    async def send(self, job: Job, prefix: str, ledger: Ledger) -> Done:
        """``count`` commands are queued, not awaited; the commands are made before the time begins."""
        instances, transition = places(job, prefix), getattr(MACHINES[job.machines[0]], job.transition)
        commands = [transition(instances[number % len(instances)][1]) for number in range(job.count)]
        began_s = time.monotonic()
        self.sent = await self.client.send_many(commands)
        ended_s = time.monotonic()
        for command in commands:
            ledger.note((job.machines[0], command.key))
        return Done(commands=job.count, seconds=ended_s - began_s, began_s=began_s, ended_s=ended_s)

    async def answers(self) -> Done:
        """All that was sent last has been answered to this client."""
        outcomes = await asyncio.gather(*(handle.outcome() for handle in self.sent))
        ended_s = time.monotonic()
        self.sent = []
        return Done(commands=sum(outcome.outcome == "completed" for outcome in outcomes), ended_s=ended_s)

    async def fill(self, job: Job) -> Done:
        """A backlog of one command for each of ``count`` instances whose keys have 20 characters."""
        machine, began_s = MACHINES[job.machines[0]], time.monotonic()
        end = job.first + job.count
        for first in range(job.first, end, CHUNK):
            numbers = range(first, min(first + CHUNK, end))
            await self.client.send_many([machine.fill(f"pile-{number:015d}", NOTE) for number in numbers])
        ended_s = time.monotonic()
        return Done(commands=job.count, seconds=ended_s - began_s, began_s=began_s, ended_s=ended_s)


def chunks(keys: list[str], size: int) -> list[list[str]]:
    return [keys[at : at + size] for at in range(0, len(keys), size)]


def open_side(wiring: Wiring) -> Side:
    match wiring.side:
        case "raw":
            return BareClient(wiring)
        case "http":
            return HttpSide(wiring)
    return StatemqSide(wiring)


async def do(side: Side, job: Job, prefix: str, ledger: Ledger) -> Done:
    match job.kind, side:
        case "closed", _:
            return await closed(side, job, prefix, ledger)
        case "burst", _:
            return await burst(side, job, prefix, ledger)
        case "check", _:
            return await check(side, ledger)
        case "send", StatemqSide():
            return await side.send(job, prefix, ledger)
        case "answers", StatemqSide():
            return await side.answers()
        case "fill", StatemqSide():
            return await side.fill(job)
    raise ValueError(f"{type(side).__name__} cannot {job.kind}")


async def serve(wiring: Wiring) -> None:
    """Until the bench closes our input."""
    side, ledger, loop = open_side(wiring), Ledger(), asyncio.get_running_loop()
    prefix = f"{wiring.side}-{short_id()}"  # instances of its own, whose counts begin at 0
    await side.open()
    say(b"ready")
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        done = await do(side, decode_job(line), prefix, ledger)
        await side.tidy()
        say(encode_line(done))
    await side.close()


def say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    run(serve(decode_wiring(sys.stdin.readline())))
