"""What a worker makes of what it hears of its peers: nobody is left out for longer than it is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from statemq.config import WorkerSettings
from statemq.errors import UsageError
from statemq.keys import PartitionKeys
from statemq.store import lease
from statemq.store.declare import Config
from statemq.store.lease import About, Held
from statemq.worker.peers import Peers, Served
from statemq.worker.process import Fate
from tests.chaos.ledger import Ledger
from tests.waiting import wait_until

PARTS = [PartitionKeys("n", "ledger", n) for n in range(4)]


class Others:
    """Peers as one sees them, and what is known of their processes."""

    def __init__(self) -> None:
        self.fates: dict[str, Fate] = {}
        self.lag_ms = 0
        self.changes = 0
        view = [Held(f"{n}.w{n}.1", f"w{n}", 0, process=f"w{n}") for n in range(4)]
        self.served = Served(Ledger.spec, Config("ledger", 1, "i", 4, {}), PARTS, {"w0", "w1", "w2", "w3"}, view, True)
        self._tasks: set[asyncio.Task[None]] = set()
        self.peers = Peers(None, "n", WorkerSettings(), {"ledger": self.served}, self._spawn, self._changed)  # type: ignore[arg-type]

    def _spawn(self, work: Any) -> None:
        self._tasks.add(asyncio.ensure_future(work))

    def _changed(self) -> None:
        self.changes += 1

    @property
    def gone(self) -> set[str]:
        return self.peers.gone(self.served)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def others(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Others]:
    others = Others()

    async def abouts(router: Any, namespace: str, machine: str, workers: Sequence[str]) -> dict[str, About]:
        return {worker: About(worker, others.lag_ms) for worker in workers}

    monkeypatch.setattr(lease, "abouts", abouts)
    monkeypatch.setattr("statemq.worker.peers.fate_of", lambda name: others.fates.get(name, Fate.unknown))
    yield others
    await others.end()


async def test_who_was_silent_for_a_moment_is_back_as_soon_as_it_is_heard(others: Others) -> None:
    others.peers.heard_silent(PARTS[0], "w0")
    await wait_until(lambda: others.gone == {"w0"})
    assert others.peers.is_dead(PARTS[0], "w0")
    changes = others.changes
    others.peers.heard_again(PARTS[0], "w0")
    assert others.gone == set()
    assert others.changes > changes


async def test_who_was_silent_in_what_it_holds_no_more_has_its_share(others: Others) -> None:
    """Another one took that partition; nobody will look for this life sign there again."""
    others.peers.heard_silent(PARTS[0], "w0")
    await wait_until(lambda: others.gone == {"w0"})
    others.served.view[0] = Held("9.w1.1", "w1")
    assert others.gone == set()
    await others.peers.look(others.served)
    assert not others.peers._silent
    assert not others.peers._dead


async def test_the_silence_of_who_lives_means_nothing_until_it_ends(others: Others) -> None:
    others.fates["w0"] = Fate.lives
    others.peers.heard_silent(PARTS[0], "w0")
    await asyncio.sleep(0.3)
    assert others.gone == set()
    others.fates["w0"] = Fate.ended
    await wait_until(lambda: others.gone == {"w0"})


async def test_who_says_that_it_is_slow_is_waited_for(others: Others) -> None:
    others.lag_ms = 60_000
    others.peers.heard_silent(PARTS[0], "w0")
    await asyncio.sleep(0.3)
    assert others.gone == set()
    others.peers.heard_again(PARTS[0], "w0")
    await wait_until(lambda: not others.peers._weighed)
    assert others.gone == set()


async def test_all_that_have_ended_are_found_at_one_look(others: Others) -> None:
    others.fates = dict.fromkeys(("w1", "w2", "w3"), Fate.ended)
    await others.peers.look(others.served)
    assert others.gone == {"w1", "w2", "w3"}


async def test_what_is_kept_is_of_those_that_are_there(others: Others) -> None:
    others.fates["w1"] = Fate.ended
    await others.peers.look(others.served)
    others.served.view[1], others.served.live = Held(), {"w0"}
    await others.peers.look(others.served)
    assert others.gone == set()
    assert set(others.peers._processes) == {"w0", "w2", "w3"}


def test_a_lease_has_an_upper_limit() -> None:
    WorkerSettings(lease_ms=120_000)
    with pytest.raises(UsageError, match="a lease of 120001 ms is too long; the most is 120000 ms"):
        WorkerSettings(lease_ms=120_001)
