"""A process that queues many commands of one key, and prints their ids in the order in which they were sent.

python -m tests.chaos.filler URL NAMESPACE KEY COUNT
"""

from __future__ import annotations

import asyncio
import sys

from statemq import Client
from tests.chaos.ledger import NEVER_S, Ledger

CHUNK = 500


async def main(url: str, namespace: str, key: str, count: str) -> None:
    async with Client(url, namespace=namespace, machines=[Ledger], timeout=NEVER_S) as client:
        for at in range(0, int(count), CHUNK):
            commands = [Ledger.apply(key, x) for x in range(at, min(at + CHUNK, int(count)))]
            sys.stdout.writelines(f"{handle.id}\n" for handle in await client.send_many(commands))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
