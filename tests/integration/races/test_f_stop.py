"""What is on its way when a worker's connection is closed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from statemq.server import EmbeddedServer
from statemq.store.commands import Queued
from statemq.store.fence import Closed, Fence
from statemq.store.router import Router
from statemq.worker.partition import Partition
from tests.faulty import FaultyProxy
from tests.integration.races.stage import Stage


@pytest.mark.parametrize("check_accepted", [False, True])
async def test_journals_that_nobody_will_read(play: Stage, server: EmbeddedServer, check_accepted: bool) -> None:
    """Redis is away and the worker closes: the read of many journals fails once, and no future complains that nobody took its error."""
    async with FaultyProxy(server.port) as proxy:
        router = await Router(proxy.url).open()
        proxy.black_hole = True
        some = SimpleNamespace(keys=play.part, router=router, suspects={}, answer=Fence(router, play.part, "t", "w").answer)
        commands = [Queued(f"{n}-1", f"probe.0.{n}", "a", "note", b"") for n in range(1, 4)]
        peek = asyncio.ensure_future(Partition.peek(some, commands, check_accepted=check_accepted))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        unanswered: list[Any] = [call.answer for wire in router._wires.values() for call in wire._unanswered]
        await router.close()
        with pytest.raises(Closed):
            await peek
    assert len(unanswered) == 3 + check_accepted
    assert not any(future._log_traceback for future in unanswered)
