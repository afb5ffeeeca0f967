"""One key with a long queue behind a sleep does not slow the other keys of its partition (Show 7)."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable

import msgspec
import pytest
import redis.asyncio as redis_py

from statemq import Client
from statemq.keys import PartitionKeys, partition_of
from tests.chaos.conftest import Report
from tests.chaos.evidence import gather, heard
from tests.chaos.fleet import ROOT, Fleet
from tests.chaos.judge import Sent
from tests.chaos.ledger import Ledger, Link

Launch = Callable[..., Fleet]
HOT = "hot"
SLEEP_MS = 60_000
NEIGHBOURS = 20
ANSWERED_WITHIN_S = 60
DRAINED_WITHIN_S = 300


class Size(msgspec.Struct, frozen=True):
    queued: int
    calls: int
    """Of the neighbours, before and while."""


FAST = Size(5_000, 300)
FULL = Size(100_000, 3_000)


@pytest.mark.parametrize("size", [FAST, pytest.param(FULL, marks=[pytest.mark.chaos, pytest.mark.timeout(900)])], ids=["fast", "full"])
async def test_a_long_queue_of_one_key(client: Client, launch: Launch, report: Report, size: Size) -> None:
    fleet = launch(1)
    await fleet.settled()
    others = _neighbours()
    part = PartitionKeys(client.namespace, "ledger", partition_of(HOT, Ledger.spec.partitions))
    sent: list[Sent] = []

    await _calls(client, others, size.calls // 4, sent)  # warm
    quiet = await _calls(client, others, size.calls, sent)

    sleeper = await client.send(Ledger.apply_slowly(HOT, 0, sleep_ms=SLEEP_MS))
    await fleet.effect(sleeper.id, "first")
    filling = asyncio.create_task(_fill(client, size.queued))
    meanwhile = await _calls(client, others, size.calls, sent)
    ids = await filling
    async with redis_py.Redis.from_url(client.url, decode_responses=True) as redis:

        async def parked() -> bool:
            return bool(await redis.llen(part.inbox(HOT)) == size.queued + 1 and await redis.xlen(part.commands) == 0)

        # what is there to see: the queue, in its order, outside the stream
        await fleet.until(parked, DRAINED_WITHIN_S)
        elements = await redis.lrange(part.inbox(HOT), 0, -1)
        assert [e.split(" ")[1] for e in elements] == [sleeper.id, *ids]
        assert await redis.zscore(part.ready, HOT) is None
    behind = await _calls(client, others, size.calls, sent)

    assert (await client.get(Ledger, HOT)).version == 0
    assert await client.cancel(sleeper.id) == "asked"
    began_s = time.monotonic()
    assert (await sleeper.outcome(ANSWERED_WITHIN_S)).outcome == "cancelled"
    draining = asyncio.create_task(client.handle(ids[-1]).outcome(DRAINED_WITHIN_S))
    while_draining = await _calls(client, others, size.calls, sent)
    await draining
    took_s = time.monotonic() - began_s

    evidence = await gather(client, fleet, [*sent, Sent(0, 0, HOT, "apply", 0, "")])
    # the chains bind the whole past, also what the capped history has forgotten: each command once, in order
    queued = [Sent(0, x, HOT, "apply", x, id) for x, id in enumerate(ids)]
    last: dict[str, Link] = {}
    for command in [*sent, *queued]:
        last[command.key] = last.get(command.key, Link()).next(command.id, command.x)
        assert command.result in (None, last[command.key]), command
    assert last == {key: link for key, (_, link) in evidence.finals.items()}
    assert evidence.finals[HOT][0] == size.queued
    ratios = {"while it fills": meanwhile, "behind the sleep": behind, "while it drains": while_draining}
    report(
        f"neighbours of a key with {size.queued} queued commands: "
        f"quiet p50 {_percentile(quiet, 50):.2f} ms, p99 {_percentile(quiet, 99):.2f} ms; "
        + "; ".join(
            f"{what} p99 {_percentile(took, 99):.2f} ms = {_percentile(took, 99) / _percentile(quiet, 99):.1f} x"
            for what, took in ratios.items()
        )
        + f"; the queue ran in {took_s:.1f} s"
    )


def _neighbours() -> list[str]:
    """Keys of the hot one's partition."""
    wanted, n = partition_of(HOT, Ledger.spec.partitions), Ledger.spec.partitions
    return [key for i in range(NEIGHBOURS * n * 3) if partition_of(key := f"n{i}", n) == wanted][:NEIGHBOURS]


async def _calls(client: Client, keys: list[str], calls: int, sent: list[Sent]) -> list[float]:
    """One call after another; ms each."""
    took = []
    for number in range(calls):
        key = keys[number % len(keys)]
        began_s = time.perf_counter()
        handle = await client.send(Ledger.apply(key, number))
        outcome = await handle.outcome(ANSWERED_WITHIN_S)
        took.append((time.perf_counter() - began_s) * 1000)
        sent.append(heard(Sent(0, len(sent), key, "apply", number, handle.id), outcome))
    return took


async def _fill(client: Client, queued: int) -> list[str]:
    """The ids of the hot key's commands, in their order. By a process of its own: what is measured here shall not wait for it."""
    words = ["-m", "tests.chaos.filler", client.url, client.namespace, HOT, str(queued)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().split()


def _percentile(took: list[float], percent: int) -> float:
    return sorted(took)[min(len(took) - 1, len(took) * percent // 100)]
