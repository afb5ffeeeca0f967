"""Fault 16: ``kill -9`` of a server with an append-only file under load. Nothing that was accepted is lost."""

from __future__ import annotations

import time

import pytest

from statemq import Client
from tests.chaos.conftest import Report
from tests.faults.conftest import Serve
from tests.faults.crew import Load, crew, goes_on, nothing_left


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.chaos)])
async def test_a_killed_server_loses_nothing_that_was_accepted(serve: Serve, report: Report, kills: int) -> None:
    server = serve()
    took_s = []
    async with Client(server.url) as client, crew(server.url):
        async with Load(client) as load:
            for _ in range(kills):
                await load.more(5)
                server.kill()
                server.start()  # without its functions' cache, too: a function library lies in the append-only file
                took_s.append(await goes_on(client, time.monotonic()))
            await load.more(5)
        await load.judge(client)
    await nothing_left(server.url)
    report(f"server killed {kills} times under load: {load.total} commands, each once and in order; back within {max(took_s):.2f} s")
