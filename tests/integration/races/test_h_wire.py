"""P2: a connection that is lost while it greets is no connection."""

from __future__ import annotations

import asyncio

import pytest

from statemq.store import address
from statemq.store.wire import Wire


@pytest.mark.parametrize("says_more", [False, True])
async def test_a_connection_lost_between_its_greeting_and_its_first_call(url: str, says_more: bool) -> None:
    """The server closes right behind its answer to the greeting, and the loop (uvloop does so) tells of the loss before the greeting has
    heard the answer. Such a connection must not count as up: calls written while the next one greets would shift all answers by one."""
    lost, up = 0, list[bool]()

    async def greet(wire: Wire) -> None:
        nonlocal lost
        up.append(wire.up)
        await wire.hello(("PING",))
        if lost < 2:
            lost += 1
            wire.drop()
            await asyncio.sleep(0.01)
            assert not says_more or await wire.hello(("PING",))
        else:
            await asyncio.sleep(0.05)
            assert await wire.hello(("ECHO", "hello")) == [b"hello"]

    wire = Wire(address.parse(url), greet=greet).open()
    try:
        async with asyncio.timeout(5):
            answers = []
            for n in range(60):
                answers.append(wire.call("ECHO", n))
                await asyncio.sleep(0.005)
            assert await asyncio.gather(*answers) == [b"%d" % n for n in range(60)]
            assert up == [False] * 3
    finally:
        await wire.close()
