"""Workers that are killed and started again on their host go on at once: nobody waits for a lease, a survey or a life sign that is old."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis

from statemq.keys import PartitionKeys, workers, workers_about
from statemq.server.host import end_with_parent
from statemq.worker import daemon
from statemq.worker.daemon import Worker
from tests.faults.busy import Quiet
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
PARTITIONS = Quiet.spec.partitions
ENOUGH_S = 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="that a process has ended is found out by /proc")


class Crew:
    """Worker processes that share all partitions, whose leases would last for two minutes."""

    def __init__(self, redis: Redis, url: str, namespace: str) -> None:
        self._redis, self._url, self._namespace = redis, url, namespace
        self._processes: list[subprocess.Popen[bytes]] = []
        self._parts = [PartitionKeys(namespace, "quiet", n) for n in range(PARTITIONS)]

    def start(self, n: int) -> None:
        words = [sys.executable, "-m", "tests.faults.busy", self._url, self._namespace, "Quiet"]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        self._processes += [
            subprocess.Popen(words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent()) for _ in range(n)
        ]

    def share(self) -> bool:
        """Each has its part."""
        owners = {self._redis.hget(part.lease, "owner") for part in self._parts}
        return len(owners - {None, ""}) == len(self._processes)

    def leave_the_registry(self) -> None:
        """As those do first who are asked to end; they may be killed before they have handed over."""
        self._redis.delete(workers(self._namespace, "quiet"), workers_about(self._namespace, "quiet"))

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()


@pytest.fixture
def crew(url: str, namespace: str) -> Iterator[Crew]:
    with Redis.from_url(url, decode_responses=True) as redis:
        crew = Crew(redis, url, namespace)
        yield crew
        crew.kill()


@contextlib.asynccontextmanager
async def started(url: str, namespace: str) -> AsyncIterator[Worker]:
    """A worker in this process, whatever it comes to hold."""
    worker = Worker([Quiet], url, namespace=namespace)
    running = asyncio.ensure_future(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await running


def share_all(workers: list[Worker]) -> bool:
    return all(worker.partitions for worker in workers) and sum(len(worker.partitions) for worker in workers) == PARTITIONS


@pytest.mark.parametrize("many", [1, 4])
@pytest.mark.parametrize("registry", ["knows them", "knows nothing"])
@pytest.mark.timeout(300)
async def test_who_is_started_again_waits_for_nothing(
    crew: Crew, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, many: int, registry: str
) -> None:
    """All are killed, and as many start at the same time. Each finds by itself that all former owners have ended, whoever of the others has
    been faster: there is no second survey that would help it."""
    monkeypatch.setattr(daemon, "SURVEY_S", 600.0)
    for _ in range(2):
        crew.start(many)
        await wait_until(crew.share, ENOUGH_S)
        if registry == "knows nothing":
            crew.leave_the_registry()
        crew.kill()
        async with contextlib.AsyncExitStack() as stack:
            together = [await stack.enter_async_context(started(url, namespace)) for _ in range(many)]
            await wait_until(functools.partial(share_all, together), 20)
