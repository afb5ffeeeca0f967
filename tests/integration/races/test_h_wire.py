"""P2: a connection that is lost while it greets is no connection; one that is never made is left when the server is another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from statemq.server import EmbeddedServer
from statemq.store import address
from statemq.store.wire import Wire
from tests.faulty import FaultyProxy
from tests.waiting import wait_until


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


async def test_a_host_that_does_not_even_refuse_is_left_at_once_when_the_server_is_another(url: str) -> None:
    """After a failover the old primary's host may be gone: no answer to a SYN, for as long as the time-out. Nobody waits for that."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # whoever comes when its queue is full gets no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        there = address.parse(url)
        wire = Wire(there.at("127.0.0.1", deaf.getsockname()[1]), timeout_s=60).open()
        try:
            answer = wire.call("ECHO", "hello")
            await asyncio.sleep(0.2)
            assert not wire.up and wire.trouble is None  # it is still dialling
            wire.move(there)
            assert await asyncio.wait_for(answer, 20) == b"hello"
        finally:
            await wire.close()


async def test_a_move_in_the_turns_in_which_a_connection_comes_about_counts(url: str, tmp_path: Path) -> None:
    """It found no transport to drop, and the dial was over: the wire stayed at the old server, beside others at the new one (P2)."""
    new, stuck = address.parse(url), list[int]()
    with EmbeddedServer(tmp_path / "old") as old:
        for turns in [*range(20)] * 5:
            wire = Wire(new.at("127.0.0.1", old.port)).open()
            for _ in range(turns):
                await asyncio.sleep(0)
            wire.move(new)
            await wire.connected(20)
            if new.port != int((await wire.call("CONFIG", "GET", "port"))[1]):
                stuck.append(turns)
            await wire.close()
    assert not stuck


async def test_what_a_former_connection_tells_late_is_not_of_the_present_one(url: str) -> None:
    """Its end may be told when the next one greets already, as to who is moved in the turns in which a connection comes about: a third
    one came about beside the second, and the answers of both were taken for one row (P2)."""
    losses = list[int]()
    wire = Wire(address.parse(url), on_lost=lambda: losses.append(wire.generation)).open()
    try:
        await wire.connected(20)
        assert wire._transport is not None
        former = wire._transport.get_protocol()
        wire.drop()
        await wait_until(lambda: wire.generation == 2)
        answer = wire.call("ECHO", "mine")
        former.data_received(b"$4\r\nelse\r\n")  # type: ignore[union-attr]
        former.connection_lost(None)
        assert wire.up and losses == [1]
        assert await answer == b"mine"
        assert wire.generation == 2
    finally:
        await wire.close()


async def test_a_subscription_that_hears_nothing_says_something(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands between cuts connections that carry nothing for a while; and one that is dead and says so to nobody is made anew."""
    monkeypatch.setattr("statemq.store.wire.PING_S", 0.05)
    monkeypatch.setattr("statemq.store.wire.PONG_S", 0.3)

    async def greet(wire: Wire) -> None:
        await wire.hello(("SUBSCRIBE", "news"))

    wire = Wire(address.parse(proxy.url), timeout_s=0.4, greet=greet, on_push=lambda message: None).open()
    try:
        await wire.connected(5)
        await wait_until(lambda: proxy.seen["PING"] > 5)
        assert wire.generation == 1
        proxy.black_hole = True
        await wait_until(lambda: not wire.up)
        proxy.black_hole = False
        await wait_until(lambda: wire.generation == 2)
    finally:
        await wire.close()
