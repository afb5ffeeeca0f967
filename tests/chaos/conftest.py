from __future__ import annotations

import functools
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from statemq import Client
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import NEVER_S, Ledger
from tests.spread import MEASURED

Report = Callable[[str], None]


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Says a measured value at the end of the run; as a property of the test it comes along from whichever process ran it."""
    return functools.partial(record_property, MEASURED)


@pytest.fixture(autouse=True)
def patient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients outwait each outage, unless a test says otherwise."""
    monkeypatch.setitem(Client.__init__.__kwdefaults__, "timeout", NEVER_S)


@pytest.fixture
def seed() -> int:
    """Of all that is random; ``CHAOS_SEED`` plays one again."""
    return int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Ledger]) as opened:
        yield opened


@pytest.fixture
def launch(client: Client, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """``launch(2, lease_ms=1000)``: a fleet of so many workers, on their way up."""
    fleets: list[Fleet] = []

    def begin(workers: int, *, lease_ms: int = 10_000) -> Fleet:
        fleet = Fleet(client, tmp_path, lease_ms=lease_ms)
        fleets.append(fleet)
        for _ in range(workers):
            fleet.start()
        return fleet

    yield begin
    for fleet in fleets:
        fleet.close()
