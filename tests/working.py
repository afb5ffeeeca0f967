"""A worker in this process, for as long as a test needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from statemq.config import WorkerSettings
from statemq.worker.daemon import Worker
from tests.waiting import wait_until


@asynccontextmanager
async def working(url: str, namespace: str, *machines: type[Any], **settings: Any) -> AsyncIterator[Worker]:
    """A worker that holds every partition of the machines; it ends in good order, and what it raised is raised here."""
    worker = Worker(list(machines), url, namespace=namespace, settings=WorkerSettings(**settings))
    running = asyncio.ensure_future(worker.run())
    wanted = sum(m.spec.partitions for m in machines)
    try:
        await wait_until(lambda: running.done() or len(worker.partitions) == wanted)
        yield worker
    finally:
        worker.stop()
        await running
