"""Faults 1 to 3 at named points: processes end (or stop) just there, others go on, and what was recorded is not run again."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from statemq import Client
from tests.chaos.conftest import Report
from tests.chaos.evidence import gather, heard
from tests.chaos.fleet import Deed, Fleet, Member
from tests.chaos.judge import Sent, faults
from tests.chaos.ledger import Ledger
from tests.faults.crew import one_key_each
from tests.faults.points import POINTS, VARIABLE

HIT = re.compile(r"^point (\S+) (\d+) (\S+) ?(\S*) ?(\S*)$", re.MULTILINE)
LEASE_MS = 3_000
Batches = list[tuple[str, ...]]
ALL: Batches = [POINTS[::2], POINTS[1::2]]
FAST = ("read", "journal", "commit-sent", "commit-answered", "release-sent")
TARGET = "tests.faults.points:Ledger"
ANSWERED_WITHIN_S = 60
DIE_WITHIN_S = 60


@pytest.fixture
async def client(url: str, namespace: str) -> object:
    async with Client(url, namespace=namespace, machines=[Ledger]) as opened:
        yield opened


@pytest.fixture
def launch(client: Client, tmp_path: Path) -> Iterator[Callable[[], Fleet]]:
    fleets: list[Fleet] = []

    def begin() -> Fleet:
        fleets.append(Fleet(client, tmp_path, lease_ms=LEASE_MS))
        return fleets[-1]

    yield begin
    for fleet in fleets:
        fleet.close()


class Producer:
    """Sends to all partitions for as long as it goes on."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.keys = [f"{key}/{n}" for n in range(2) for key in one_key_each(Ledger)]
        self.sent: list[tuple[Sent, object]] = []
        self.handles: list[object] = []

    async def send(self, n: int) -> None:
        commands, rows = [], []
        for key in self.keys:
            x = len(self.handles) + len(commands)
            name = "apply_steps" if (x + n) % 3 else "apply"
            commands.append(Ledger.apply_steps(key, x) if name == "apply_steps" else Ledger.apply(key, x))
            rows.append((key, name, x))
        for handle, (key, name, x) in zip(await self.client.send_many(commands), rows, strict=True):
            self.sent.append((Sent(0, x, key, name, x, handle.id), handle))
            self.handles.append(handle)


async def judge(fleet: Fleet, client: Client, producer: Producer, victims: list[Member], what: str = "kill") -> None:
    recorded = []
    for victim in victims:
        (hit,) = HIT.findall(victim.said)
        fleet.deeds.append(Deed(victim.pid, what, float(hit[2])))
        if hit[0] == "journal":
            recorded.append((hit[3], hit[4]))
    rows = [heard(sent, await handle.outcome(ANSWERED_WITHIN_S)) for sent, handle in producer.sent]  # type: ignore[attr-defined]
    evidence = await gather(client, fleet, rows)
    found = faults(evidence)
    assert not found, found[:10]
    for id, step in recorded:
        runs = [e for e in evidence.effects if (e.id, e.step) == (id, step)]
        assert len(runs) == 1, f"step {step} of {id} was recorded and ran {len(runs)} times"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("batches", [[FAST], pytest.param(ALL * 10, marks=pytest.mark.chaos)], ids=["fast", "all"])
async def test_f01_a_process_ends_at_each_point(
    client: Client, launch: Callable[[], Fleet], seed: int, batches: Batches, report: Report
) -> None:
    """Several victims at a time, each at a point of its own; another process survives and takes over."""
    dice = random.Random(seed)
    fleet, producer, victims = launch(), Producer(client), list[Member]()
    fleet.start()
    for points in batches:
        these = [fleet.start(TARGET, **{VARIABLE: f"{point}:{at(point, dice)}:{dice.choice(['exit', 'kill'])}"}) for point in points]
        victims += these
        await fleet.until(lambda: up(client, these))  # noqa: B023 - awaited at once
        until_s = time.monotonic() + DIE_WITHIN_S
        while left := [victim for victim in these if victim.runs]:
            assert time.monotonic() < until_s, f"not hit: {[victim.point for victim in left]}"
            await producer.send(len(left))
            owners = set((await fleet.owners()).values())
            for victim in left:
                if victim.point.startswith("release") and victim.pid in owners:
                    victim.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
        for _ in range(3):
            await producer.send(0)
    await judge(fleet, client, producer, victims)
    report(
        f"processes ended at {len(victims)} points of {sum(map(len, batches[:2]))} kinds (seed {seed}): {len(producer.handles)} commands, "
        f"{fleet.taken('died')} partitions taken over from the dead; each once, recorded steps not repeated"
    )


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rounds", [2])
async def test_f02_a_process_stops_at_each_point(
    client: Client, launch: Callable[[], Fleet], seed: int, rounds: int, report: Report
) -> None:
    """For three times its lease, then it goes on: others have gone on meanwhile, and nothing that it still does counts."""
    dice = random.Random(seed)
    fleet, producer, victims = launch(), Producer(client), list[Member]()
    fleet.start()
    for points in ALL * rounds:
        points = tuple(point for point in points if point != "release-sent")
        these = [fleet.start(TARGET, **{VARIABLE: f"{point}:{at(point, dice)}:stop"}) for point in points]
        victims += these
        await fleet.until(lambda: up(client, these))  # noqa: B023 - awaited at once
        until_s = time.monotonic() + DIE_WITHIN_S
        while not all(HIT.search(victim.said) for victim in these):
            assert time.monotonic() < until_s, f"not hit: {[v.point for v in these if not HIT.search(v.said)]}"
            await producer.send(1)
            await asyncio.sleep(0.1)
        await asyncio.sleep(3 * LEASE_MS / 1000)
        await producer.send(1)
        for victim in these:
            fleet.cont(victim)
        await producer.send(1)
        await asyncio.gather(*(handle.outcome(ANSWERED_WITHIN_S) for handle in producer.handles))  # type: ignore[attr-defined]
        for victim in these:
            fleet.term(victim)
        await fleet.until(lambda: not any(victim.runs for victim in these))  # noqa: B023
        assert [victim.process.returncode for victim in these] == [0] * len(these)
    await judge(fleet, client, producer, victims, "stop")
    report(f"stopped for 3 leases at {len(victims)} points (seed {seed}): {len(producer.handles)} commands, {len(fleet.lost())} fenced")


async def up(client: Client, members: list[Member]) -> bool:
    """All of them have come, or ended by their point already."""
    pids = {worker.pid for worker in await client.workers(Ledger)}
    return all(member.pid in pids or not member.runs for member in members)


def at(point: str, dice: random.Random) -> int:
    """Which time it comes by; what comes once a partition, the first time."""
    return 1 if point in ("acquire-sent", "release-sent", "renewal-sent") else dice.randint(1, 3)
