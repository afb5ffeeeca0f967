"""Verdicts on a tenure come from fenced scripts alone; and tenures that end at once, one after the other, are paced."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from statemq import Context, events
from statemq.store.fence import Closed, Fenced, Rewound, ScriptFailed, TenureOver
from statemq.worker.partition import Partition
from tests.integration.races.probe import HOOKS, Probe
from tests.integration.races.stage import Stage
from tests.waiting import wait_until

WORDS = ["fenced", "rewound", "seen", "gone", "conflict", "lost", "done", "-1"]


@pytest.fixture
def lost() -> Iterator[list[events.Fenced]]:
    """Tenures that ended by themselves."""
    found: list[events.Fenced] = []

    def hear(event: Any) -> None:
        if isinstance(event, events.Fenced):
            found.append(event)

    events.listeners.append(hear)
    yield found
    events.listeners.remove(hear)


async def _value(word: str) -> str:
    return word


@pytest.mark.parametrize("word", WORDS)
async def test_words_of_verdicts_are_data_like_any_other(play: Stage, word: str, lost: list[events.Fenced]) -> None:
    """A step, a key, an id, a value and an element of an inbox that are called as a script's verdict end no tenure."""

    async def work(instance: Probe, ctx: Context, n: int) -> None:
        assert await ctx.step(word, _value, word) == word
        if n and ctx.attempt == 1:
            raise ConnectionError(word)

    HOOKS["work"] = work
    async with play.worker() as worker:
        tried = await play.send(word, 1, transition="work")  # its second attempt reads the journal
        assert await play.outcome(tried[0]) == "completed"
        play.redis.xadd(play.part.commands, {"key": word, "transition": "work", "id": word})  # garbage: nobody has accepted it
        play.redis.zadd(play.part.timers, {word: 1})  # a timer of nobody
        await play.client.send(Probe.note(word, n=2), delay=0.01)  # so that timers are looked at
        [last] = await play.send(word, 3)
        assert await play.outcome(last) == "completed"
        await wait_until(lambda: not play.redis.exists(play.part.timers) and not play.redis.xlen(play.part.commands))
        await wait_until(lambda: play.log(word) in ([1, 2, 3], [1, 3, 2]))
        [before] = worker.partitions.values()
    assert not lost
    # after a take-over the ready keys and their inboxes are read
    fence = await play.own("w9", 1, play.token)
    ids = await play.send(word, 4, 5)
    await fence.answer(fence.park({word: play.queued()}, {word: True}))
    play.redis.lpush(play.part.inbox(word), word)
    play.abandon()
    async with play.worker():
        assert [await play.outcome(id) for id in ids] == ["completed"] * 2
    assert not lost and before.closed


@pytest.mark.parametrize("over", [Rewound(), Fenced(), ScriptFailed("ERR something"), Closed()], ids=lambda over: type(over).__name__)
async def test_tenures_that_end_at_once_are_begun_again_ever_more_slowly(
    play: Stage, over: TenureOver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends them, and however often: the partition does not take its worker's, and the server's, whole time."""
    began: list[float] = []
    monkeypatch.setattr(Partition, "catch_up", lambda p: began.append(time.monotonic()) or p.lose(over))
    async with play.worker(wait=False):
        await wait_until(lambda: len(began) == 7, timeout_s=60)
        assert began[-1] - began[0] > 0.7  # 50, 100, 200 and 400 ms
        monkeypatch.undo()
        [id] = await play.send("a", 1)  # and goes on as soon as the cause is gone
        assert await play.outcome(id) == "completed"


async def test_one_tenure_that_ends_is_begun_again_at_once(play: Stage) -> None:
    async with play.worker() as worker:
        for _ in range(2):
            [p] = worker.partitions.values()
            p.lose(Rewound())
            await wait_until(lambda p=p: [other for other in worker.partitions.values() if other is not p and other.caught_up])
        assert not worker._pacing.wait_s(p.keys, time.monotonic())
