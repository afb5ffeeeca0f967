"""P23: a client with durability= is told nothing that a failover could still lose, whichever way it hears of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from statemq import Client, Context, Machine, Pending, transition
from statemq.errors import UnsupportedServer
from statemq.keys import PartitionKeys
from statemq.server import EmbeddedServer
from statemq.store.durability import Durability, settled, stand
from statemq.store.router import Router
from statemq.store.wire import ReplyError, Wire, refused
from tests.other_server import takes_waitaof
from tests.waiting import wait_until
from tests.working import working

NS = "safe"


class Account(Machine[None], initial="on", partitions=1):
    @transition(source="on")
    def add(self, n: int = 1) -> int:
        return n

    @transition(source="on")
    async def slow(self, ctx: Context) -> None:
        await ctx.sleep(1000)


class Line:
    """Passes bytes between a replica and its primary, until it is ``cut``: then the replica hears nothing more on what was open."""

    def __init__(self, to: int) -> None:
        self._to, self.deaf = to, False
        self._open: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Line:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _accept(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        far, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._open += (near_writer, far_writer)
        await asyncio.gather(self._pump(near, far_writer), self._pump(far, near_writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not self.deaf:
                    sink.write(data)
        sink.transport.abort()


class Pair:
    """A primary and its replica, with the line between them."""

    def __init__(self, primary: EmbeddedServer, replica: EmbeddedServer, line: Line) -> None:
        self.url, self.line = primary.url, line
        self.primary = redis_py.Redis.from_url(primary.url, decode_responses=True)
        self.replica = redis_py.Redis.from_url(replica.url, decode_responses=True)

    @property
    def _linked(self) -> bool:
        return self.replica.info("replication")["master_link_status"] == "up"

    def away(self) -> None:
        """The replica's host hears and says nothing any more."""
        self.line.deaf = True

    async def back(self) -> None:
        self.line.deaf = False
        self.line.cut()
        await wait_until(lambda: self._linked, timeout_s=60)

    def waiting(self) -> list[str]:
        """The connections that stand in WAIT."""
        return [row["id"] for row in self.primary.client_list() if row["cmd"] == "wait"]


@contextlib.contextmanager
def _server(folder: Path, *config: str) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(folder, appendonly=False, config=config) as running:
        yield running


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    with _server(tmp_path / "primary", "--repl-diskless-sync-delay", "0", "--shutdown-timeout", "0") as primary:
        async with Line(primary.port) as line:
            with _server(tmp_path / "replica", "--replicaof", "127.0.0.1", str(line.port)) as replica:
                both = Pair(primary, replica, line)
                await both.back()
                yield both


def _careful(pair: Pair) -> Client:
    return Client(pair.url, namespace=NS, machines=[Account], durability="replicas=1")


async def test_a_result_that_is_heard_is_told_when_a_replica_has_it(pair: Pair) -> None:
    async with working(pair.url, NS, Account), _careful(pair) as client:
        assert await client.call(Account.add("a", n=1), timeout=60) == 1
        awaited = await client.send(Account.add("a", n=3), delay=0.2)
        waiting = asyncio.ensure_future(awaited.result(timeout=120))
        handle = await client.send(Account.add("a", n=2), delay=0.2)
        pair.away()
        await wait_until(lambda: handle.id in client._replies._early, timeout_s=30)
        await wait_until(lambda: pair.primary.xlen(PartitionKeys(NS, "account", 0).history) == 3, timeout_s=30)
        with pytest.raises(Pending):
            await handle.result(timeout=3)
        for asked in (handle.status, handle.cancel):
            with pytest.raises(Pending, match="not yet as safe"):
                await asked()
        assert not waiting.done()
        await pair.back()
        assert (await waiting, await handle.result(timeout=60)) == (3, 2)
        outcome = (await handle.status()).outcome
        assert outcome is not None and outcome.outcome == "completed"
        assert await handle.cancel() == "ended"


@pytest.mark.parametrize("cut", [False, True])
async def test_a_command_is_sent_when_a_replica_has_it(pair: Pair, cut: bool) -> None:
    """Also when the connection that waits is lost: the next one has written nothing that a WAIT on it would be for."""
    async with working(pair.url, NS, Account), _careful(pair) as client:
        await client.call(Account.add("a"), timeout=60)
        pair.away()
        sending = asyncio.ensure_future(client.send(Account.add("a", n=2)))
        await wait_until(pair.waiting)
        if cut:
            [waits] = pair.waiting()
            pair.primary.client_kill_filter(_id=waits)
            await wait_until(lambda: pair.waiting() not in ([], [waits]))
        done, _ = await asyncio.wait([sending], timeout=2.5)
        assert not done
        await pair.back()
        handle = await asyncio.wait_for(sending, 60)
        assert pair.replica.hlen(PartitionKeys(NS, "account", 0).instance("a")) >= 0
        assert await handle.result(timeout=60) == 2


async def test_a_repeated_request_is_told_when_a_replica_has_its_command(pair: Pair) -> None:
    """It writes nothing itself, so a WAIT would be for nothing; whoever sent the first one did not care."""
    async with working(pair.url, NS, Account), _careful(pair) as client, Client(pair.url, namespace=NS, machines=[Account]) as other:
        await client.call(Account.add("a"), timeout=60)
        pair.away()
        first = await other.send(Account.slow("a"), idempotency_key="job")
        ended = await other.call(Account.add("b", n=7), idempotency_key="done")
        repeats = [
            asyncio.ensure_future(client.send(Account.slow("a"), idempotency_key="job")),
            asyncio.ensure_future(client.call(Account.add("b", n=7), idempotency_key="done")),
        ]
        done, _ = await asyncio.wait(repeats, timeout=3)
        assert not done
        await pair.back()
        handle, result = await asyncio.wait_for(asyncio.gather(*repeats), 60)
        assert (handle.id, result) == (first.id, ended)
        assert await client.cancel(first.id) in ("asked", "cancelled")
        await wait_until(lambda: not pair.primary.hlen(PartitionKeys(NS, "account", 0).accepted))


async def test_what_another_connection_was_told_is_not_settled_by_this_one(pair: Pair) -> None:
    """A failover lies between: the new server may be safe, and have lost what the old one told."""
    router = await Router(pair.url).open()
    part, wanted = PartitionKeys(NS, "account", 0), Durability(replicas=1)
    since = stand(router, part)
    assert await settled(router, part, wanted, since)
    router.home.drop()
    await wait_until(lambda: router.home.up and router.home.generation != since.generation)
    assert not await settled(router, part, wanted, since)
    assert await settled(router, part, wanted, stand(router, part))
    await router.close()


async def test_a_server_that_cannot_wait_is_refused_before_anything_is_sent(pair: Pair) -> None:
    with pytest.raises(UnsupportedServer, match=r"cannot give this durability: fsync takes (appendonly yes|WAITAOF, which came with)"):
        async with Client(pair.url, namespace=NS, machines=[Account], durability="fsync"):
            pass


@pytest.mark.parametrize(
    ("durability", "said", "why"),
    [
        (
            "fsync",
            "ERR unknown command 'WAITAOF', with args beginning with: '1' '0' '1' ",
            "WAITAOF, which came with Redis and Valkey 7.2; use such",
        ),
        (
            "fsync",
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
            "appendonly yes, and a user who may WAITAOF",
        ),
        ("fsync", "NOPERM User u has no permissions to run the 'waitaof' command", "appendonly yes, and a user who may WAITAOF"),
        ("replicas=1", "NOPERM User u has no permissions to run the 'wait' command", "a user who may WAIT "),
    ],
)
async def test_the_refusal_says_what_it_takes(url: str, monkeypatch: pytest.MonkeyPatch, durability: str, said: str, why: str) -> None:
    call = Wire.call

    def answering(wire: Wire, *args: bytes | str | int | float) -> asyncio.Future[Any]:
        return refused(ReplyError(said)) if str(args[0]).startswith("WAIT") else call(wire, *args)

    monkeypatch.setattr(Wire, "call", answering)
    with pytest.raises(UnsupportedServer, match=f"cannot give this durability: {durability.partition('=')[0]}(=N)? takes {why}"):
        await Client(url, namespace=NS, machines=[Account], durability=durability).connect()


async def test_a_command_sent_while_the_disk_is_no_more_written_to_can_be_asked_for(tmp_path: Path) -> None:
    """It is queued all the same: who was told of a wrong use would send it once more."""
    with EmbeddedServer(tmp_path, appendonly=True) as server:
        takes_waitaof(server.url)
        async with working(server.url, NS, Account), Client(server.url, namespace=NS, machines=[Account], durability="fsync") as client:
            assert await client.call(Account.add("a", n=1), timeout=60) == 1
            redis = redis_py.Redis(port=server.port)
            redis.config_set("appendonly", "no")
            with pytest.raises(Pending, match=r"may have been queued, but the server at .* cannot give this durability") as pending:
                await client.call(Account.add("a", n=2), timeout=60)
            redis.config_set("appendonly", "yes")
            assert await client.handle(pending.value.id).result(timeout=60) == 2
