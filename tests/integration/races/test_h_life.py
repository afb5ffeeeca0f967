"""P5, P7 in a cluster: one node's trouble is not the others', and a slot that moves is nobody's death."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from statemq.config import WorkerSettings
from statemq.keys import PartitionKeys
from statemq.store import lease
from statemq.store.fence import Fence
from statemq.worker.life import Life

HERE, THERE = PartitionKeys("n", "m", 0), PartitionKeys("n", "m", 1)


class Hears:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.told.append((name, *args))


class Node:
    """A wire whose PUBSUB answers as it is told."""

    def __init__(self, subscribers: int) -> None:
        self.generation, self.subscribers, self.asked, self.address = 1, subscribers, 0, None

    async def call(self, *args: str) -> list[Any]:
        self.asked += 1
        return [x for channel in args[2:] for x in (channel, self.subscribers)]


def life(hears: Hears) -> Life:
    settings = WorkerSettings(lease_ms=150, look_s=0.01)
    return Life("redis://nowhere", "n", "w1", {"m": [HERE, THERE]}, settings, {}, hears)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running(work: Any) -> Any:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()


async def test_a_node_that_is_away_does_not_stop_the_renewals_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster's node answers no more, and calls to it wait until it is back. The leases on all other nodes are renewed meanwhile, each
    by one call at a time."""
    asked: list[PartitionKeys] = []

    async def renew(router: Any, tenures: Sequence[Fence], lease_ms: int) -> list[bool]:
        (keys,) = [fence.keys for fence in tenures]
        asked.append(keys)
        if keys is THERE:
            await asyncio.Event().wait()
        return [False]

    monkeypatch.setattr(lease, "renew", renew)
    one, router = life(Hears()), SimpleNamespace(cluster=True)
    one.tenures = [Fence(router, keys, "t", "w") for keys in (HERE, THERE)]  # type: ignore[arg-type]
    async with running(one._renewals(router)):  # type: ignore[arg-type]
        await asyncio.sleep(0.5)
    assert asked.count(HERE) >= 5
    assert asked.count(THERE) == 1


async def test_an_owner_whose_slot_moved_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: it was seen alive over the connection to the old node. On the new one, whose connections are counted alike, it was never seen."""
    hears = Hears()
    one = life(hears)
    old, new = Node(1), Node(0)
    for node in (old, new, new):
        await one.looks.look(_Single(), node, [(HERE, "w2")])  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    assert hears.told == []
    old.subscribers = 0
    await one.looks.look(_Single(), old, [(HERE, "w2")])  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    assert hears.told == [] or hears.told == [("heard_silent", HERE, "w2")]


async def test_a_node_that_is_away_does_not_stop_the_looks_at_the_others() -> None:
    class Away(Node):
        async def call(self, *args: str) -> list[Any]:
            self.asked += 1
            await asyncio.Event().wait()
            return []

    away, there = Away(1), Node(1)

    class Nodes(_Single):
        def wire_for(self, key: str) -> Any:
            return away if key == HERE.lease else there

    one = life(Hears())
    one.looks.owners = {HERE: "w2", THERE: "w2"}
    async with running(one.looks.go_on(Nodes())):  # type: ignore[arg-type]
        await asyncio.sleep(0.3)
    assert there.asked >= 5
    assert away.asked == 1


class _Single:
    cluster = False

    async def is_current(self, server: object) -> bool:
        return True
