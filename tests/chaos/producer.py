"""One client process of the storm: random commands, several under way at a time; what it sent and heard goes to a file.

python -m tests.chaos.producer URL NAMESPACE CLIENT SEED COUNT KEYS RATE OUT
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import msgspec

from statemq import Client, Command, Pending
from statemq.client.client import Handle
from tests.chaos.evidence import heard
from tests.chaos.judge import Sent
from tests.chaos.ledger import NEVER_S, Ledger, Link

UNDER_WAY = 64
BURST = 6
ASKS_AGAIN = 0.1
ANSWERED_WITHIN_S = 180.0
PATIENCE_S = 3.0

MIX = {"apply": 70, "apply_steps": 18, "apply_slowly": 4, "refuse": 4, "fail": 4}


class Producer:
    def __init__(self, client: Client, number: int, seed: int, keys: int) -> None:
        self.client, self.number, self.keys = client, number, keys
        self.dice = random.Random(f"{seed}/{number}")
        self.sent: list[Sent] = []
        self.room = asyncio.Semaphore(UNDER_WAY)

    async def run(self, count: int, rate: float) -> None:
        """Every command has its answer. ``rate``: commands a second, about."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as answers:
            seq = 0
            while seq < count:
                n = min(self.dice.randint(1, BURST), count - seq)
                for _ in range(n):
                    await self.room.acquire()
                drafts = [self._draft(seq + i) for i in range(n)]
                for draft, handle in zip(drafts, await self.client.send_many([command for _, command in drafts]), strict=True):
                    answers.create_task(self._answer(msgspec.structs.replace(draft[0], id=handle.id), handle))
                seq += n
                await asyncio.sleep(began + seq / rate - loop.time())

    def _draft(self, seq: int) -> tuple[Sent, Command[Link]]:
        dice, x = self.dice, seq
        key = f"k{dice.randrange(self.keys)}"
        name = dice.choices([*MIX], [*MIX.values()])[0]
        extra: dict[str, Any] = {
            "apply_steps": {"pause_ms": dice.choice([0, 0, 30])},
            "apply_slowly": {"sleep_ms": dice.randint(1, 200)},
        }.get(name, {})
        command: Command[Link] = getattr(Ledger, name)(key, x, **extra)
        return Sent(self.number, seq, key, name, x, ""), command

    async def _answer(self, sent: Sent, handle: Handle[Link]) -> None:
        deadline = asyncio.get_running_loop().time() + ANSWERED_WITHIN_S
        while asyncio.get_running_loop().time() < deadline:
            try:
                sent = heard(sent, await handle.outcome(PATIENCE_S))
                break
            except Pending:
                continue
        if sent.outcome and self.dice.random() < ASKS_AGAIN:
            again = await self.client.handle(sent.id).outcome(ANSWERED_WITHIN_S)
            sent = msgspec.structs.replace(sent, again=again.outcome)
        self.sent.append(sent)
        self.room.release()


async def main(url: str, namespace: str, number: str, seed: str, count: str, keys: str, rate: str, out: str) -> None:
    async with Client(url, namespace=namespace, machines=[Ledger], timeout=NEVER_S) as client:
        producer = Producer(client, int(number), int(seed), int(keys))
        try:
            await producer.run(int(count), float(rate))
        finally:
            Path(out).write_bytes(b"\n".join(msgspec.json.encode(s) for s in producer.sent))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
