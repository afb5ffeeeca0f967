"""What is on its way when a worker leaves, and when its connection is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from statemq.keys import news_channel
from statemq.server import EmbeddedServer
from statemq.store.commands import Queued
from statemq.store.fence import Closed
from statemq.store.router import Router
from statemq.worker.journal import peek
from statemq.worker.partition import Partition
from tests.faulty import FaultyProxy
from tests.integration.races.probe import Probe
from tests.integration.races.stage import Stage
from tests.waiting import wait_until


async def test_a_worker_that_leaves_is_not_back_while_it_still_runs_something(play: Stage, hooks: dict[str, Callable[..., Any]]) -> None:
    """It says that it is gone and goes on with what runs; its next life sign must not bring it back into the shares, or what it has let
    go of waits for it until that sign is old."""
    held = asyncio.Event()
    hooks["work"] = lambda *_: held.wait()
    async with play.worker(beat_s=0.02) as worker:
        await play.client.send(Probe.work("a", 1))
        (partition,) = worker.partitions.values()
        await wait_until(lambda: "a" in partition.lanes and partition.lanes["a"].attempt)
        with play.redis.pubsub(ignore_subscribe_messages=True) as heard:
            heard.subscribe(news_channel(play.namespace, Probe.spec.name))
            said: list[str] = []

            def signs() -> int:
                while (message := heard.get_message(timeout=0)) is not None:
                    said.append(message["data"])
                return sum(worker.id in words for words in said)

            worker.stop()
            try:
                await wait_until(lambda: signs() >= 4 or f"joined {worker.id}" in said)
            finally:
                held.set()
    assert f"joined {worker.id}" not in said


@pytest.mark.parametrize("check_accepted", [False, True])
async def test_journals_that_nobody_will_read(play: Stage, server: EmbeddedServer, check_accepted: bool) -> None:
    """Redis is away and the worker closes: the read of many journals fails once, and no future complains that nobody took its error."""
    async with FaultyProxy(server.port) as proxy:
        router = await Router(proxy.url).open()
        proxy.black_hole = True
        some = SimpleNamespace(keys=play.part, router=router, suspects={}, closed=False)
        some.told = partial(Partition.told, cast(Any, some))
        commands = [Queued(f"{n}-1", f"probe.0.{n}", "a", "note", b"") for n in range(1, 4)]
        read = asyncio.ensure_future(peek(cast(Any, some), commands, check_accepted=check_accepted))

        def unanswered() -> list[Any]:
            return [call.answer for wire in router._wires.values() for call in wire._unanswered]

        held = await wait_until(lambda: len(unanswered()) == 3 + check_accepted and unanswered())
        await router.close()
        with pytest.raises(Closed):
            await read
    assert not any(future._log_traceback for future in held)
