"""The raw line: the same Redis work with nothing around it, as an upper bound to compare with.

A command is an entry in one of 16 streams; the worker reads them all by one XREADGROUP, keeps states in memory, and writes each
batch (states, results, acknowledgements) in one MULTI/EXEC. A recorded step is a field of a hash, one round trip a step for all
commands of the batch. No fence, no recovery, no retries, no checks, no history, no index: nothing that makes it safe.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from statemq.bench.jobs import Wiring, decode_wiring
from statemq.bench.loops import run
from statemq.bench.pipe import Pipe, Words
from statemq.keys import partition_of

PARTITIONS = 16
READ_COUNT = 64
BLOCK_MS = 2000
STEPS = (b"one", b"two", b"three")
GROUP, CONSUMER = b"workers", b"bare"


class Names:
    """Its keys, under the prefix of the run so that they go with it."""

    def __init__(self, namespace: str) -> None:
        self.tag = f"{namespace}:raw:".encode()
        self.streams = [self.tag + b"commands:%d" % number for number in range(PARTITIONS)]

    def instance(self, key: bytes) -> bytes:
        return self.tag + b"instance:" + key

    def steps(self, key: bytes) -> bytes:
        return self.tag + b"steps:" + key

    def results(self, client: bytes) -> bytes:
        return self.tag + b"results:" + client


class Command:
    """An entry as read."""

    __slots__ = ("client", "key", "number", "transition")

    def __init__(self, fields: list[bytes]) -> None:
        self.transition, self.key, self.number, self.client = fields[1], fields[3], fields[5], fields[7]


class BareWorker:
    """Runs until its process ends."""

    def __init__(self, wiring: Wiring) -> None:
        self.names = Names(wiring.namespace)
        self.reader, self.writer = Pipe(wiring.url), Pipe(wiring.url)
        self.counts: dict[bytes, int] = {}

    async def run(self) -> None:
        await self.reader.open()
        await self.writer.open()
        await self.writer.many([("DEL", *self.names.streams)])  # those of a work before
        await self.writer.many([("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM") for stream in self.names.streams])
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        streams = [*self.names.streams, *[b">"] * PARTITIONS]
        read: Words = ("XREADGROUP", "GROUP", GROUP, CONSUMER, "COUNT", READ_COUNT, "BLOCK", BLOCK_MS, "STREAMS", *streams)
        while True:
            if (found := (await self.reader.many([read]))[0]) is not None:
                await self.batch(found)

    async def batch(self, found: list[Any]) -> None:
        acks: list[Words] = []
        turns: list[list[Command]] = []  # a key's second command is in the second turn
        seen: dict[bytes, int] = {}
        for stream, entries in found:
            acks.append(("XACK", stream, GROUP, *[entry for entry, _ in entries]))
            for _, fields in entries:
                command = Command(fields)
                turn = seen[command.key] = seen.get(command.key, -1) + 1
                if turn == len(turns):
                    turns.append([])
                turns[turn].append(command)
        await self.load([key for key in seen if key not in self.counts])
        writes: list[Words] = []
        for commands in turns:
            writes += await self.record_steps([command for command in commands if command.transition == b"work"])
            for command in commands:
                count = self.counts[command.key] = self.counts[command.key] + 1
                writes.append(("XADD", self.names.results(command.client), "*", "number", command.number, "count", b"%d" % count))
        for key in seen:
            count = self.counts[key]
            writes.append(("HSET", self.names.instance(key), "state", b"ON" if count % 2 else b"OFF", "data", b'{"count":%d}' % count))
        await self.writer.many([("MULTI",), *writes, *acks, ("EXEC",)])

    async def load(self, keys: list[bytes]) -> None:
        if keys:
            stored = await self.writer.many([("HGET", self.names.instance(key), "data") for key in keys])
            for key, data in zip(keys, stored, strict=True):
                self.counts[key] = count_of(data)

    async def record_steps(self, commands: list[Command]) -> list[Words]:
        """Each step is stored before the next begins; what is left to do is to remove them."""
        if commands:
            for step in STEPS:
                await self.writer.many([("HSET", self.names.steps(command.key), step, b"1") for command in commands])
        return [("DEL", self.names.steps(command.key)) for command in commands]


class BareClient:
    """Sends what one turn of the loop brings together, hears results by a blocking read of its own stream."""

    def __init__(self, wiring: Wiring) -> None:
        self.names, self.id = Names(wiring.namespace), os.urandom(4).hex().encode()
        self.sender, self.hearer, self.asker = Pipe(wiring.url), Pipe(wiring.url), Pipe(wiring.url)
        self.waiting: dict[bytes, asyncio.Future[int]] = {}
        self.unsent: list[Words] = []
        self.number = 0
        self.kick = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        for pipe in (self.sender, self.hearer, self.asker):
            await pipe.open()
        self.tasks = [asyncio.ensure_future(self.send()), asyncio.ensure_future(self.hear())]

    async def call(self, machine: str, transition: str, key: str, slot: int) -> int:
        self.number += 1
        number = b"%d" % self.number
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting[number] = answer
        stream = self.names.streams[partition_of(key, PARTITIONS)]
        self.unsent.append(("XADD", stream, "*", "transition", transition, "key", key, "number", number, "client", self.id))
        self.kick.set()
        return await answer

    async def send(self) -> None:
        while True:
            await self.kick.wait()
            self.kick.clear()
            while self.unsent:
                calls, self.unsent = self.unsent, []
                await self.sender.many(calls)

    async def hear(self) -> None:
        last = b"0"
        while True:
            read: Words = ("XREAD", "COUNT", 256, "BLOCK", BLOCK_MS, "STREAMS", self.names.results(self.id), last)
            found = (await self.hearer.many([read]))[0]
            for entry, fields in found[0][1] if found else ():
                last = entry
                self.waiting.pop(fields[1]).set_result(int(fields[3]))

    async def tidy(self) -> None:
        """What was answered is removed from the streams, between two measurements."""
        await self.asker.many([("XTRIM", stream, "MAXLEN", 0) for stream in [*self.names.streams, self.names.results(self.id)]])

    async def stored(self, machine: str, keys: list[str]) -> list[int]:
        return [count_of(data) for data in await self.asker.many([("HGET", self.names.instance(key.encode()), "data") for key in keys])]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()


def count_of(data: bytes | None) -> int:
    return int(data.removeprefix(b'{"count":').removesuffix(b"}")) if data else 0


def main() -> None:
    run(BareWorker(decode_wiring(sys.stdin.readline())).run())


if __name__ == "__main__":
    main()
