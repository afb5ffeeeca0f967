"""A worker is stopped for longer than its lease, then goes on: whatever it does then, nothing of it counts (Show 5)."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from statemq import Client
from statemq.keys import partition_of
from tests.chaos.conftest import Report
from tests.chaos.evidence import gather, heard
from tests.chaos.fleet import Fleet
from tests.chaos.judge import Sent, faults
from tests.chaos.ledger import Ledger

Launch = Callable[..., Fleet]
LEASE_MS = 1000
PAUSE_MS = 600
ANSWERED_WITHIN_S = 60
ROUNDS = pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=[pytest.mark.chaos, pytest.mark.timeout(900)])])


@ROUNDS
async def test_stopped_half_way_through_a_handler(client: Client, launch: Launch, report: Report, rounds: int) -> None:
    """The other one commits; the first one ends its step after that, is fenced, and comes back for new work."""
    fleet = launch(2, lease_ms=LEASE_MS)
    sent: list[Sent] = []
    for number in range(rounds):
        await fleet.settled()
        key = f"k{number}"
        handle = await client.send(Ledger.apply_steps(key, number, pause_ms=PAUSE_MS))
        behind = await client.send(Ledger.apply(key, number))
        begun = await fleet.effect(handle.id, "second")
        owner = fleet.by_pid(begun.pid)
        token = await _token(client, key)
        fleet.stop(owner)
        for seq, (command, name) in enumerate([(handle, "apply_steps"), (behind, "apply")]):
            sent.append(heard(Sent(0, 2 * number + seq, key, name, number, command.id), await command.outcome(ANSWERED_WITHIN_S)))
        fleet.cont(owner)
        await _fenced(fleet, client, owner.pid, key, token)
    evidence = await gather(client, fleet, sent)
    assert not faults(evidence)
    assert len(evidence.history) == 2 * rounds, "one commit a command"
    assert [e.step for e in evidence.effects] == ["first", "second", "second"] * rounds
    report(f"stopped half way through a handler: {rounds} fenced, one commit a command, recorded steps not repeated")


@ROUNDS
async def test_stopped_in_a_blocking_read(client: Client, launch: Launch, report: Report, rounds: int) -> None:
    """Two commands of one key come meanwhile: they run in their order, once, though the first owner's read returns them too."""
    fleet = launch(2, lease_ms=LEASE_MS)
    sent: list[Sent] = []
    for number in range(rounds):
        owners = await fleet.settled()
        key = f"k{number}"
        owner = fleet.by_pid(owners[partition_of(key, Ledger.spec.partitions)])
        token = await _token(client, key)
        fleet.stop(owner)
        handles = await client.send_many([Ledger.apply(key, 1), Ledger.apply(key, 2)])
        for seq, handle in enumerate(handles):
            sent.append(heard(Sent(0, 2 * number + seq, key, "apply", seq + 1, handle.id), await handle.outcome(ANSWERED_WITHIN_S)))
        fleet.cont(owner)
        await _fenced(fleet, client, owner.pid, key, token)
    evidence = await gather(client, fleet, sent)
    assert not faults(evidence)
    assert len(evidence.history) == 2 * rounds, "one commit a command"
    report(f"stopped in a blocking read: {rounds} fenced, one commit a command, order kept")


@ROUNDS
async def test_stopped_while_a_handler_sleeps(client: Client, launch: Launch, report: Report, rounds: int) -> None:
    """Its sleep is over when it goes on; it asks whether the lease is still its own, and does not run the step behind the sleep."""
    fleet = launch(2, lease_ms=LEASE_MS)
    sent: list[Sent] = []
    for number in range(rounds):
        await fleet.settled()
        key = f"k{number}"
        handle = await client.send(Ledger.apply_slowly(key, number, sleep_ms=PAUSE_MS))
        begun = await fleet.effect(handle.id, "first")
        owner = fleet.by_pid(begun.pid)
        token = await _token(client, key)
        await fleet.until(lambda handle=handle: _sleeps(client, handle.id))  # type: ignore[misc]
        fleet.stop(owner)
        sent.append(heard(Sent(0, number, key, "apply_slowly", number, handle.id), await handle.outcome(ANSWERED_WITHIN_S)))
        fleet.cont(owner)
        await _fenced(fleet, client, owner.pid, key, token)
    evidence = await gather(client, fleet, sent)
    assert not faults(evidence)
    assert [e.step for e in evidence.effects] == ["first", "second"] * rounds
    report(f"stopped while a handler sleeps: {rounds} fenced, no step begun by the former owner")


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_stopped_for_about_its_lease(client: Client, launch: Launch, report: Report, seed: int) -> None:
    """Whether it is fenced or just in time: who goes on is the only one."""
    fleet = launch(2, lease_ms=LEASE_MS)
    dice = random.Random(seed)
    sent: list[Sent] = []
    for number in range(20):
        await fleet.settled()
        key = f"k{number}"
        handles = await client.send_many([Ledger.apply_steps(key, 1, pause_ms=PAUSE_MS)])
        begun = await fleet.effect(handles[0].id, "second")
        fleet.stop(fleet.by_pid(begun.pid))
        handles += await client.send_many([Ledger.apply(key, 2), Ledger.apply_steps(key, 3)])
        wait_ms = LEASE_MS * dice.uniform(0.5, 3.5)
        pulse = await client.send(Ledger.apply_slowly("pulse", 0, sleep_ms=1))
        await _redis_time(client, fleet, wait_ms)
        fleet.cont(fleet.by_pid(begun.pid))
        for seq, (handle, name) in enumerate(zip(handles, ("apply_steps", "apply", "apply_steps"), strict=True)):
            sent.append(heard(Sent(0, 3 * number + seq, key, name, seq + 1, handle.id), await handle.outcome(ANSWERED_WITHIN_S)))
        sent.append(heard(Sent(1, number, "pulse", "apply_slowly", 0, pulse.id), await pulse.outcome(ANSWERED_WITHIN_S)))
    evidence = await gather(client, fleet, sent)
    assert not faults(evidence)
    report(f"stopped for half to three and a half of its lease: 20 times, {len(fleet.lost())} tenures fenced (seed {seed})")


async def _token(client: Client, key: str) -> str:
    number = partition_of(key, Ledger.spec.partitions)
    return next(p.token for p in await client.partitions(Ledger) if p.number == number)


async def _sleeps(client: Client, id: str) -> bool:
    """The step before the sleep, and the sleep's end, are recorded."""
    return len((await client.show(id)).steps) == 2


async def _fenced(fleet: Fleet, client: Client, pid: int, key: str, token: str) -> None:
    """The process has said that it lost the key's partition, whose token is another's by now."""
    number = partition_of(key, Ledger.spec.partitions)
    assert await _token(client, key) != token
    before = fleet.by_pid(pid).lost_before
    await fleet.until(lambda: fleet.lost().count((pid, number)) > before.get(number, 0))
    before[number] = fleet.lost().count((pid, number))


async def _redis_time(client: Client, fleet: Fleet, ms: float) -> None:
    """Returns when so much time has passed for the server, whose clock leases go by."""
    import redis.asyncio as redis_py

    async with redis_py.Redis.from_url(client.url) as redis:
        began = await redis.time()

        async def passed() -> bool:
            now = await redis.time()
            return (now[0] - began[0]) * 1000 + (now[1] - began[1]) / 1000 >= ms

        await fleet.until(passed)
