"""Fault 16: ``kill -9`` of a server with an append-only file under load.

With ``appendfsync always`` nothing that was answered is lost. With ``everysec`` the server writes nothing while an fsync of the last
second is still in progress, and answers all the same (``flushAppendOnlyFile``, up to 2 s): what lies in its buffer then goes with it,
so a killed server loses the end of what it had answered, and nothing else.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from redis import Redis

from statemq import Client, Unknown
from tests.chaos.conftest import Report
from tests.faults.conftest import Serve
from tests.faults.crew import ENDS_WITHIN_S, Load, crew, goes_on, log_of, nothing_left
from tests.waiting import wait_until


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.chaos)])
async def test_a_killed_server_loses_nothing_that_was_accepted(serve: Serve, report: Report, kills: int) -> None:
    server = serve("--appendfsync", "always")
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


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.chaos)])
async def test_one_killed_in_the_middle_of_its_fsync_loses_an_end_and_nothing_is_mixed(serve: Serve, report: Report, kills: int) -> None:
    server = serve("--appendfsync", "everysec")
    sent_before: list[dict[str, int]] = []
    async with Client(server.url) as client, crew(server.url):
        async with Load(client) as load:
            for _ in range(kills):
                await load.more(5)
                await unwritten(server.port)
                server.kill()
                sent_before.append({key: len(handles) for key, handles in load.sent.items()})
                server.start()
                await goes_on(client, time.monotonic())
            await load.more(5)
        lost = 0
        for key, handles in load.sent.items():
            outcomes = await asyncio.gather(*(handle.outcome(timeout=ENDS_WITHIN_S) for handle in handles), return_exceptions=True)
            log = await log_of(client, key)
            assert log == sorted(set(log)), f"{key} is mixed: {log}"
            missing = set(range(len(handles))) - set(log)
            unknown = {n for n, outcome in enumerate(outcomes) if isinstance(outcome, Unknown)}
            assert unknown <= missing, f"{key}: applied, and nothing is known of it: {sorted(unknown - missing)}"
            assert missing <= ends(missing, [before[key] for before in sent_before]), f"{key} lost more than ends: {sorted(missing)}"
            lost += len(missing)
    await nothing_left(server.url)
    report(f"server killed {kills} times in the middle of its fsync: {lost} of {load.total} commands lost, each time the end of a queue")


async def unwritten(port: int) -> None:
    """Something was answered that is not in the file; on a fast disk that may not be seen for a while, and the kill is like any other."""
    with Redis(port=port) as redis:
        by_s = time.monotonic() + 5
        await wait_until(lambda: redis.info("persistence")["aof_buffer_length"] > 0 or time.monotonic() > by_s)


def ends(missing: set[int], kills: list[int]) -> set[int]:
    """Of the missing those that are the end of what was sent when a kill came; the last one's answer may have come after it."""
    found: set[int] = set()
    for sent in kills:
        last = sent if sent in missing else sent - 1
        while last in missing:
            found.add(last)
            last -= 1
    return found
