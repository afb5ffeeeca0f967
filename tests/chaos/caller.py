"""One client process of the soak: random commands of all kinds, reads, cancels and resends; all of it goes into its diary.

python -m tests.chaos.caller URL NAMESPACE NAME SEED KEYS RATE OUT DURABILITY

The first line on stdin ends the random part: ``ROUNDS`` plain commands go to every key, then it prints ``done``. The second ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections import deque
from pathlib import Path
from typing import Any

from statemq import Client
from statemq.errors import StatemqError
from statemq.testing.evidence import Invoke
from tests import audit
from tests.chaos.diary import Diary
from tests.chaos.ledger import NEVER_S, Ledger

UNDER_WAY = 96
BURST = 5
ROUNDS = 6
ROUND_S = 1.0
REMEMBERED = 200

MIX = {
    "apply": 66,
    "apply_steps": 16,
    "apply_slowly": 4,
    "apply_branches": 4,
    "apply_forked": 1,
    "apply_noted": 3,
    "refuse": 3,
    "fail": 3,
}
ASIDE = {"read": 40, "delayed": 16, "twice": 20, "cancel": 12, "ask": 12}
"""What a client does beside its line of commands."""


class Caller:
    """``rate``: commands a second, about; a third as much goes on beside them."""

    def __init__(self, client: Client, diary: Diary, seed: str, keys: int, rate: float) -> None:
        self.client, self.diary, self.rate = client, diary, rate
        self.keys = [f"k{n}" for n in range(keys)]
        self.dice = random.Random(f"{seed}/{diary.client}")
        self.room = asyncio.Semaphore(UNDER_WAY)
        self.recent: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        """Key and id of what was sent."""
        self.last = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self.group = group
            await asyncio.gather(self._in_line(), self._aside())
        async with asyncio.TaskGroup() as group:
            for _ in range(ROUNDS):
                for key in self.keys:
                    group.create_task(self.diary.apply(self.client, key))
                await asyncio.sleep(ROUND_S)

    # -- commands in line --------------------------------------------------------------------------

    async def _in_line(self) -> None:
        """Bursts, each accepted before the next one is sent: the order of one client's commands is told by their numbers."""
        while not self.last.is_set():
            n = self.dice.randint(1, BURST)
            for _ in range(n):
                await self.room.acquire()
            drafts = [self._draft() for _ in range(n)]
            try:
                handles = await self.client.send_many([command for _, command in drafts])
            except StatemqError as error:
                for begun, _ in drafts:
                    self.diary.unknown(begun, error)
                    self.room.release()
                continue
            for (begun, _), handle in zip(drafts, handles, strict=True):
                self.recent.append((begun.key, handle.id))
                self._spawn(self.diary.hear(begun, handle))
            await self._pause(n)

    def _draft(self) -> tuple[Invoke, Any]:
        dice, x = self.dice, self.diary.ops + 1
        key, name = dice.choice(self.keys), dice.choices([*MIX], [*MIX.values()])[0]
        extra: dict[str, Any] = {
            "apply_steps": {"pause_ms": dice.choice([0, 0, 30, 200])},
            "apply_slowly": {"sleep_ms": dice.choice([1, 50, 200, 6000])},  # the last one leaves memory
            "apply_branches": {"sleep_ms": dice.choice([1, 50, 200, 7000])},
        }.get(name, {})
        return self.diary.begin("write", key, transition=name, x=x), getattr(Ledger, name)(key, x, **extra)

    # -- and beside it -----------------------------------------------------------------------------

    async def _aside(self) -> None:
        while not self.last.is_set():
            await self.room.acquire()
            what = self.dice.choices([*ASIDE], [*ASIDE.values()])[0]
            self._spawn(getattr(self, f"_{what}")(self.dice.choice(self.keys)))
            await self._pause(3)

    async def _read(self, key: str) -> None:
        begun = self.diary.begin("read", key)
        try:
            self.diary.saw(begun, await self.client.get(Ledger, key))
        except StatemqError as error:
            self.diary.unknown(begun, error)

    async def _delayed(self, key: str) -> None:
        begun = self.diary.begin("write", key, transition="apply", x=self.diary.ops, in_line=False)
        await self._send(begun, delay=self.dice.choice([0.05, 0.5, 3.0]))

    async def _twice(self, key: str) -> None:
        """One idempotency key, used again while the command is under way or after its end."""
        x = self.diary.ops
        word = f"{self.diary.client}-{x}"
        again = [self.diary.begin("write", key, transition="apply", x=x, in_line=False) for _ in range(2)]
        first = asyncio.ensure_future(self._send(again[0], idempotency_key=word))
        await asyncio.sleep(self.dice.choice([0, 0.01, 0.3]))
        await asyncio.gather(first, self._send(again[1], idempotency_key=word))

    async def _send(self, begun: Invoke, **how: Any) -> None:
        try:
            handle = await self.client.send(Ledger.apply(begun.key, begun.x), **how)
        except StatemqError as error:
            self.diary.unknown(begun, error)
            return
        self.recent.append((begun.key, handle.id))
        await self.diary.hear(begun, handle)

    async def _cancel(self, key: str) -> None:
        if self.recent:
            key, id = self.recent[-1] if self.dice.random() < 0.7 else self.dice.choice(self.recent)
            begun = self.diary.begin("cancel", key, id=id)
            try:
                await self.client.cancel(id)
                self.diary.done(begun)
            except StatemqError as error:
                self.diary.unknown(begun, error, id)

    async def _ask(self, key: str) -> None:
        if self.recent:
            key, id = self.dice.choice(self.recent)
            begun = self.diary.begin("ask", key, id=id)
            await self.diary.hear(begun, self.client.handle(id))

    def _spawn(self, work: Any) -> None:
        async def do() -> None:
            try:
                await work
            finally:
                self.room.release()

        self.group.create_task(do())

    async def _pause(self, n: int) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.last.wait(), n / self.rate * self.dice.uniform(0.5, 1.5))


async def main(url: str, namespace: str, name: str, seed: str, keys: str, rate: str, out: str, durability: str) -> None:
    audit.install()
    async with Client(url, namespace=namespace, machines=[Ledger], durability=durability or None, timeout=NEVER_S) as client:
        caller = Caller(client, Diary(Path(out), name, safe=bool(durability)), seed, int(keys), float(rate))
        running = asyncio.ensure_future(caller.run())
        loop = asyncio.get_running_loop()
        await asyncio.wait([running, loop.run_in_executor(None, sys.stdin.readline)], return_when=asyncio.FIRST_COMPLETED)
        caller.last.set()
        await running
        sys.stdout.write("done\n")
        sys.stdout.flush()
        await loop.run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
