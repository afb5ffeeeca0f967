"""A worker dies or leaves in the middle of a transition; another goes on with it."""

from __future__ import annotations

import statistics
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
ANSWERED_WITHIN_S = 60
ROUNDS = pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=[pytest.mark.chaos, pytest.mark.timeout(900)])])
PAUSE_MS = 400


@ROUNDS
async def test_kill_in_the_middle(client: Client, launch: Launch, report: Report, rounds: int) -> None:
    """The step that was under way runs again in the other process, the recorded one does not."""
    fleet = launch(2)
    sent: list[Sent] = []
    took_s: list[float] = []
    for number in range(rounds):
        await fleet.settled()
        key = f"k{number}"
        handle = await client.send(Ledger.apply_steps(key, number, pause_ms=PAUSE_MS))
        begun = await fleet.effect(handle.id, "second")
        killed_s = fleet.kill(fleet.by_pid(begun.pid))
        goes_on = await fleet.effect(handle.id, "second", unlike=lambda e, first=begun: e.pid == first.pid)  # type: ignore[misc]
        took_s.append(goes_on.at_s - killed_s)
        fleet.start()
        outcome = await handle.outcome(ANSWERED_WITHIN_S)
        sent.append(heard(Sent(0, number, key, "apply_steps", number, handle.id), outcome))
    evidence = await gather(client, fleet, sent)
    assert not faults(evidence)
    assert [e.step for e in evidence.effects].count("first") == rounds
    report(_line("takeover after kill -9", took_s))


@ROUNDS
async def test_term_hands_over(client: Client, launch: Launch, report: Report, rounds: int) -> None:
    """What can end soon ends, what sleeps goes on with what is left of its sleep, and a new command starts at once, elsewhere."""
    fleet = launch(2)
    sent: list[Sent] = []
    took_s: list[float] = []
    done = 0
    while done < rounds or not took_s:  # on a busy machine the leaving one may have read each new command before the signal came
        assert done < 10 * rounds, "no command came to the next owner"
        number, done = done, done + 1
        owners = await fleet.settled()
        leaving = fleet.running[0]
        running, asleep, idle = _keys_of(leaving.pid, owners, number)
        runs = await client.send(Ledger.apply_steps(running, number, pause_ms=PAUSE_MS))
        sleeps = await client.send(Ledger.apply_slowly(asleep, number, sleep_ms=3 * PAUSE_MS))
        assert (await fleet.effect(runs.id, "second")).pid == leaving.pid
        await fleet.effect(sleeps.id, "first")
        asked_s = fleet.term(leaving)
        new = await client.send(Ledger.apply_steps(idle, number))
        begins = await fleet.effect(new.id, "first")
        if begins.pid != leaving.pid:
            took_s.append(begins.at_s - asked_s)
        fleet.start()
        for at, (handle, key, name) in enumerate(
            [(runs, running, "apply_steps"), (sleeps, asleep, "apply_slowly"), (new, idle, "apply_steps")]
        ):
            outcome = await handle.outcome(ANSWERED_WITHIN_S)
            sent.append(heard(Sent(0, 3 * number + at, key, name, number, handle.id), outcome))
        await fleet.until(lambda member=leaving: not member.runs)  # type: ignore[misc]
        assert leaving.process.returncode == 0, leaving.said
    evidence = await gather(client, fleet, sent)
    assert not faults(evidence)
    assert len(evidence.effects) == 6 * done, "a step that had ended ran again"
    report(_line("hand-over after SIGTERM", took_s))


def _keys_of(pid: int, owners: dict[int, int], number: int) -> list[str]:
    """Three keys in three partitions of this process."""
    found: dict[int, str] = {}
    for i in range(10_000):
        partition = partition_of(key := f"t{number}-{i}", Ledger.spec.partitions)
        if owners[partition] == pid:
            found.setdefault(partition, key)
    return list(found.values())[:3]


def _line(what: str, took_s: list[float]) -> str:
    return f"{what}: median {statistics.median(took_s):.3f} s, max {max(took_s):.3f} s over {len(took_s)}"
