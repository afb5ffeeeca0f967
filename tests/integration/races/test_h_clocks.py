"""A tenure that was not confirmed within its lease asks before it acts, whichever clock stood still, and before each try of a step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from statemq import Retry
from statemq.store import lease
from statemq.worker import partition as partition_module
from statemq.worker.clock import Moment, moment, passed_s
from statemq.worker.daemon import Worker
from tests.integration.races.stage import Stage
from tests.waiting import wait_until

LEASE_MS = 60_000
"""So long that no renewal tells this worker in time that it owns nothing any more."""

SLEPT_S = 100.0


async def monotonic(monkeypatch: pytest.MonkeyPatch, worker: Worker) -> None:
    monkeypatch.setattr(partition_module, "moment", lambda: later(monotonic_s=SLEPT_S))


async def boot(monkeypatch: pytest.MonkeyPatch, worker: Worker) -> None:
    monkeypatch.setattr(partition_module, "moment", lambda: later(boot_s=SLEPT_S))


async def wall(monkeypatch: pytest.MonkeyPatch, worker: Worker) -> None:
    monkeypatch.setattr(partition_module, "moment", lambda: later(wall_s=SLEPT_S, monotonic_s=-1, boot_s=-1))


async def redis(monkeypatch: pytest.MonkeyPatch, worker: Worker) -> None:
    """A guest was paused: none of its own clocks says so."""
    ask = lease.redis_now_ms

    async def ahead(*args: Any) -> int:
        return await ask(*args) + int(SLEPT_S * 1000)

    monkeypatch.setattr(lease, "redis_now_ms", ahead)
    await worker._set_clock()


def later(**by_s: float) -> Moment:
    return Moment(*(now + by_s.get(clock, 0) for clock, now in moment()._asdict().items()))


@pytest.mark.leaves_work
@pytest.mark.parametrize("clock", [monotonic, boot, wall, redis], ids=lambda clock: clock.__name__)
@pytest.mark.parametrize("where", ["before a step", "before a second try", "when it gets a thread"])
async def test_who_stood_still_asks_before_it_acts(
    play: Stage, hooks: dict[str, Any], monkeypatch: pytest.MonkeyPatch, clock: Callable[..., Any], where: str
) -> None:
    """w1 runs a body; its process stands still for longer than its lease, and another owner takes over. Then it comes to its next effect:
    a step, the next try of one, one that has waited for a thread. It finds out that it owns nothing, and does not do it."""
    effects: list[str] = []
    tried, go_on = asyncio.Event(), asyncio.Event()

    async def effect() -> None:
        effects.append("effect")

    async def fails_first() -> None:
        if tried.is_set():
            effects.append("effect")
        else:
            tried.set()
            raise ConnectionError("the first try fails")

    async def work(self: Any, ctx: Any, n: int) -> None:
        if where == "before a step":
            tried.set()
            await go_on.wait()
            await ctx.step("effect", effect)
        elif where == "when it gets a thread":
            tried.set()
            await ctx.step("effect", lambda: effects.append("effect"))
        else:
            await ctx.step("effect", fails_first, retry=Retry(attempts=3, first=0.3, jitter=0))

    hooks["work"] = work
    async with play.worker(
        lease_ms=LEASE_MS,
    ) as worker:
        taken = []
        if where == "when it gets a thread":
            taken = [await worker._threads.take("held") for _ in range(worker._threads.free)]
        await play.send("a", 1, transition="work")
        await tried.wait()
        await asyncio.sleep(0.05)
        play.abandon()
        await play.own("w2", 1, play.token, lease_ms=10 * LEASE_MS)
        await clock(monkeypatch, worker)
        [tenure] = worker.partitions.values()
        go_on.set()
        for place in taken:
            place.give()
        await wait_until(lambda: tenure.closed)
        await asyncio.sleep(0.4)
        assert effects == []
        worker.kill()


def test_whichever_clock_says_more_is_believed() -> None:
    now = moment()
    assert passed_s(now, now) == 0
    assert passed_s(now, Moment(now[0] + 1, now[1] + 7, now[2] - 3600)) == pytest.approx(7)
