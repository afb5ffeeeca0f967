"""A host name leads to a server though nobody answers at one of its addresses, and though the user's code has all threads."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, closing, suppress
from typing import Any

import pytest

from statemq import Client
from statemq.server import EmbeddedServer
from statemq.store import dial
from statemq.store.address import parse
from statemq.store.wire import Wire
from tests.waiting import wait_until

HOLE = "127.0.0.2"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Host names and their addresses; the others are looked up as always."""
    known: dict[str, list[str]] = {}
    look = socket.getaddrinfo

    def fake(host: Any, port: Any, *more: Any, **how: Any) -> Any:
        return [found for address in known.get(host, [host]) for found in look(address, port, *more, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return known


@pytest.fixture
def hole(server: EmbeddedServer) -> Iterator[None]:
    """Nobody takes what arrives there, and nobody refuses it."""
    with ExitStack() as held:
        listening = held.enter_context(closing(socket.socket()))
        listening.bind((HOLE, server.port))
        listening.listen(0)
        for _ in range(4):
            one = held.enter_context(closing(socket.socket()))
            one.setblocking(False)
            one.connect_ex((HOLE, server.port))
        yield


@pytest.mark.usefixtures("hole")
async def test_the_next_address_is_tried_beside_one_where_nobody_answers(
    server: EmbeddedServer, namespace: str, names: dict[str, list[str]]
) -> None:
    names["dual"] = [HOLE, "127.0.0.1"]
    async with Client(f"redis://dual:{server.port}", namespace=namespace) as client:
        assert await client.machines() == []
        wire = client._router.home
        assert wire._by == 1  # from then on it is the first
        await client._router.home.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
        assert await client.machines() == []


async def test_an_address_that_takes_connections_and_says_nothing_is_left_for_the_next(
    server: EmbeddedServer, names: dict[str, list[str]]
) -> None:
    names["dual"] = [HOLE, "127.0.0.1"]
    silent = await asyncio.start_server(lambda reader, writer: None, HOLE, server.port)
    async with silent:
        wire = Wire(parse(f"redis://dual:{server.port}"), timeout_s=0.5)
        await wire.connected(60)
        assert await asyncio.wait_for(wire.call("PING"), 60) == b"PONG"
        await wire.close()


@pytest.mark.parametrize("silent", [1, 2])
async def test_addresses_that_take_connections_and_say_nothing_do_not_use_up_the_time_to_connect(
    server: EmbeddedServer, namespace: str, names: dict[str, list[str]], silent: int
) -> None:
    """Each had all of it, so that a client gave up before the next was asked."""
    holes = [HOLE, "127.0.0.3"][:silent]
    names["many"] = [*holes, "127.0.0.1"]
    async with AsyncExitStack() as held:
        for hole in holes:
            await held.enter_async_context(await asyncio.start_server(lambda reader, writer: None, hole, server.port))
        async with Client(f"redis://many:{server.port}", namespace=namespace) as client:
            assert await client.machines() == []
            assert client._router.home._by == silent


async def test_a_server_that_is_slow_to_answer_is_not_left_again_and_again(names: dict[str, list[str]]) -> None:
    """Once each address has had its turn, the first answer may take as long as any."""
    names["dual"] = ["127.0.0.1", "127.0.0.1"]

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"PING\r\n")
            await asyncio.sleep(1.5)  # more than a share of the time-out, and less than all of it
            writer.write(b"+PONG\r\n")
            await reader.read()

    async with await asyncio.start_server(slow, "127.0.0.1", 0) as listening:
        wire = Wire(parse(f"redis://dual:{listening.sockets[0].getsockname()[1]}"), timeout_s=3)
        await wire.connected(60)
        await wire.close()


async def test_nobody_at_any_address_says_each(names: dict[str, list[str]]) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        names["dual"] = ["127.0.0.1", HOLE]
        with pytest.raises(OSError, match=r"127\.0\.0\.1.*127\.0\.0\.2"):
            await dial.dial("dual", port)


async def test_names_are_looked_up_though_all_threads_are_taken(server: EmbeddedServer, namespace: str) -> None:
    """Those of the loop's pool, which ``asyncio.to_thread`` fills."""
    pool, release = ThreadPoolExecutor(2), threading.Event()
    asyncio.get_running_loop().set_default_executor(pool)
    async with Client(f"redis://localhost:{server.port}", namespace=namespace) as client:
        busy = [asyncio.ensure_future(asyncio.to_thread(release.wait, 300)) for _ in range(4)]
        try:
            await asyncio.sleep(0.05)
            generation = client._router.home.generation
            client._router.home.drop()
            assert await asyncio.wait_for(client.machines(), 60) == []
            assert client._router.home.generation > generation
        finally:
            release.set()
            await asyncio.gather(*busy)


async def test_a_look_that_hangs_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often who connects gives up and tries again."""
    release, asked = threading.Event(), []

    def hangs(host: str, port: int, **how: Any) -> Any:
        asked.append(host)
        release.wait(300)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(dial._looks.look("slow", 1), 0.05)
    last = asyncio.ensure_future(dial._looks.look("slow", 1))
    await asyncio.sleep(0)
    release.set()
    assert [place[-1] for place in await asyncio.wait_for(last, 60)] == [("127.0.0.1", 1)]
    assert asked == ["slow"]
    await wait_until(lambda: not dial._looks._asked)


async def test_families_are_tried_in_turn() -> None:
    four, six = (socket.AF_INET, 1, 6, ""), (socket.AF_INET6, 1, 6, "")
    assert dial.in_turn([six, six, six, four]) == [six, four, six, six]
    assert dial.literal("::1", 1) == (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, ("::1", 1, 0, 0))
