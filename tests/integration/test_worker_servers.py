"""Servers that cannot be used, or not now: one clear sentence at the start, and a full one drains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from statemq import Client, Pending
from statemq.errors import RedisAway, Refused, UnsupportedServer
from statemq.server import EmbeddedServer
from statemq.server.host import free_port
from statemq.worker.daemon import Worker
from tests.faulty import message_end
from tests.integration.box import Box
from tests.waiting import wait_until
from tests.working import working


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server to configure."""
    with EmbeddedServer(Path(tmp_path_factory.mktemp("own")), appendonly=False) as server:
        yield server


@pytest.fixture
async def redis(own: EmbeddedServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(own.url, decode_responses=True) as opened:
        await opened.flushall()
        yield opened
        await opened.config_set("maxmemory", 0)
        await opened.config_set("maxmemory-policy", "noeviction")


async def refusals(url: str) -> list[BaseException]:
    """What a worker and a client say of this server."""
    said = await asyncio.gather(Worker([Box], url).run(), Client(url, machines=[Box]).connect(), return_exceptions=True)
    return [error for error in said if isinstance(error, BaseException)]


async def test_no_server_is_one_sentence() -> None:
    port = free_port()
    errors = await refusals(f"redis://127.0.0.1:{port}")
    assert len(errors) == 2
    for error in errors:
        assert isinstance(error, RedisAway)
        assert f"no Redis answers at redis://127.0.0.1:{port}" in str(error)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused(own: EmbeddedServer, redis: Redis, policy: str) -> None:
    await redis.config_set("maxmemory-policy", policy)
    errors = await refusals(own.url)
    assert len(errors) == 2
    for error in errors:
        assert isinstance(error, UnsupportedServer)
        assert f"may evict keys (maxmemory-policy {policy})" in str(error)
        assert "set maxmemory-policy to noeviction" in str(error)
    assert await redis.keys() == []


@asynccontextmanager
async def fake_server(answers: dict[str, bytes]) -> AsyncIterator[str]:
    """A server that knows these commands and no others."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = b""
        while data := await reader.read(65536):
            buffer += data
            while (end := message_end(buffer)) is not None:
                request, buffer = buffer[:end], buffer[end:]
                name = request.split(b"\r\n", 3)[2].decode()
                writer.write(answers.get(name, f"-ERR unknown command `{name}`, with args beginning with: \r\n".encode()))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_an_old_server_is_refused() -> None:
    async with fake_server({"PING": b"+PONG\r\n", "INFO": b"$8\r\n# Memory\r\n"}) as url:
        errors = await refusals(url)
    assert len(errors) == 2
    for error in errors:
        assert isinstance(error, UnsupportedServer)
        assert "has no functions; statemq needs Redis 7.0 or Valkey 7.2 or newer" in str(error)


async def test_a_server_that_wants_a_password(own: EmbeddedServer, redis: Redis) -> None:
    await redis.acl_setuser("guest", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"], categories=["+@all"])
    place = own.url.removeprefix("redis://")
    errors = await refusals(f"redis://guest:wrong@{place}")
    assert [type(error) for error in errors] == [UnsupportedServer] * 2
    assert all("does not let us in" in str(error) and "wrong" not in str(error) for error in errors)
    async with Client(f"redis://guest:secret@{place}", machines=[Box]) as client:
        assert (await client.get(Box, "a")).state == "shut"


async def test_no_admin_command_is_needed(own: EmbeddedServer, redis: Redis) -> None:
    await redis.acl_setuser(
        "minimal", enabled=True, nopass=True, keys=["statemq:*"], channels=["statemq:*"], categories=["+@all", "-@dangerous", "-@admin"]
    )
    url = own.url.replace("redis://", "redis://minimal:x@")
    async with Client(url, machines=[Box]) as client, working(url, "statemq", Box, suspend_after_s=0.001):
        assert await client.call(Box.put("a"), timeout=20) == 1
        assert await client.call(Box.step("a", sleep=0.02), timeout=20)
        assert len(await client.history(Box)) == 2


@pytest.mark.quick
async def test_without_functions_the_scripts_run_by_hash(own: EmbeddedServer, redis: Redis) -> None:
    await redis.acl_setuser(
        "scripts", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"], commands=["-function", "-fcall"]
    )
    url = own.url.replace("redis://", "redis://scripts:x@")
    async with Client(url, machines=[Box]) as client, working(url, "statemq", Box, suspend_after_s=0.001):
        assert await client.call(Box.step("a", sleep=0.02), timeout=20)


async def test_without_scripts_it_is_one_sentence(own: EmbeddedServer, redis: Redis) -> None:
    await redis.acl_setuser(
        "mute", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"], commands=["-function", "-script", "-evalsha"]
    )
    for error in await refusals(own.url.replace("redis://", "redis://mute:x@")):
        assert isinstance(error, UnsupportedServer)
        assert "statemq needs FUNCTION LOAD and FCALL, or SCRIPT LOAD and EVALSHA" in str(error)


@pytest.mark.parametrize("library", ["loaded", "lost"])
async def test_a_full_server_refuses_new_commands_and_drains(own: EmbeddedServer, redis: Redis, library: str) -> None:
    async with Client(own.url, machines=[Box]) as client:
        values = list(range(10_000))
        handles = await client.send_many([Box.any_of(f"key {n}", values=values) for n in range(60)])
        sleeper = await client.send(Box.step("sleeper", sleep=0.05))
        if library == "lost":
            await redis.function_flush()
        # entries in the wrong partition, which a full server must forward as well
        for n in range(2):
            await redis.xadd(f"statemq:{{box:{n}}}:commands", {"key": "forwarded", "transition": "put"})
        await redis.config_set("maxmemory", (await redis.info("memory"))["used_memory"] - 100_000)
        # a library that is lost is loaded over a new connection, and what was sent before over the old one may count
        with pytest.raises(Refused if library == "loaded" else (Refused, Pending), match="has used up its memory"):
            await client.send(Box.put("a"))
        async with Client(own.url, machines=[Box]) as late:  # who comes now is let in
            assert (await late.get(Box, "a")).version == 0
        async with working(own.url, "statemq", Box, suspend_after_s=0.001):
            assert await sleeper.result(timeout=30)
            for handle in handles:
                assert (await handle.outcome(timeout=30)).outcome == "completed"

            async def accepted() -> bool:
                try:
                    await client.call(Box.put("a"), timeout=20)
                except Refused:
                    return False
                return True

            await redis.config_set("maxmemory", 0)
            await wait_until(accepted)
            assert (await client.get(Box, "forwarded")).version == 2
