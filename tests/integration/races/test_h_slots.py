"""P14, P17: suspects wait for their turn, and hold up nobody for nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from statemq.worker import suspects as suspects_module
from statemq.worker.slots import Slots
from tests.waiting import wait_until


class Partition:
    starting, closed = True, False
    shop = SimpleNamespace(worker="w1")
    batches = SimpleNamespace(record=lambda *args: asyncio.get_running_loop().create_future())


class Lane:
    """As Slots sees one: it has always something to run, and is its own job."""

    claims = ()

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.partition, self.offered = name, log, Partition(), False
        self.lane, self.task, self.suspected, self.among, self.crowd = self, None, None, -1, 0

    def prepare(self, suspect: bool = False) -> Any:
        self.suspected = SimpleNamespace(crashes=2, crowd=0, fell=0, claimed=False, journal={}) if suspect else None
        return self

    def run(self, job: Any) -> None:
        self.log.append(self.name)


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(suspects_module, "ALONE_WITHIN_S", 0.3)
    return 0.3


async def test_the_second_suspect_does_not_wait_for_somebody_to_come_by(within: float) -> None:
    """P14: two suspects; the first ran alone and ended. A command that had slept goes on, for long: the second one waits until the time
    is over and then runs in company, though nothing else happens in this process."""
    log: list[str] = []
    slots = Slots(4)
    first, second, other = Lane("first", log), Lane("second", log), Lane("other", log)
    slots.suspect(first)  # type: ignore[arg-type]
    slots.suspect(second)  # type: ignore[arg-type]
    await wait_until(lambda: log == ["first"])
    returning = asyncio.ensure_future(slots.take())
    await asyncio.sleep(within * 0.8)
    slots.end(first)  # type: ignore[arg-type]
    await returning
    slots.offer(other)  # type: ignore[arg-type]
    await wait_until(lambda: len(log) == 3, timeout_s=5 * within)
    assert log == ["first", "second", "other"]


async def test_a_suspect_of_a_lost_partition_holds_up_nobody(within: float) -> None:
    """P14: a suspect waits for what runs to end; its partition is lost meanwhile. Others of this process need not wait for it."""
    log: list[str] = []
    slots = Slots(4)
    await slots.take()  # somebody runs
    suspect, other = Lane("suspect", log), Lane("other", log)
    slots.suspect(suspect)  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    suspect.partition.starting = False
    slots.offer(other)  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    assert log == ["other"]
