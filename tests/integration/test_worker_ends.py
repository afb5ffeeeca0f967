"""A worker ends when it is asked to, whatever it is doing and whatever Redis does not do; and not, nor lives on, for other reasons."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from statemq import Client, Machine, transition
from statemq.cli import run as cli_run
from statemq.config import WorkerSettings
from statemq.errors import UnsupportedServer
from statemq.http import listen
from statemq.keys import workers
from statemq.server import EmbeddedServer
from statemq.store import lease
from statemq.worker.daemon import Worker
from statemq.worker.signals import Signals, heeded
from tests.faulty import FaultyProxy
from tests.integration.box import Box
from tests.integration.poison import Poison
from tests.integration.test_worker_process import Processes, client, processes
from tests.waiting import wait_until

__all__ = ["client", "processes"]


seen: list[str] = []


class Tidy(Machine[None], initial="idle", partitions=2):
    @transition(source="idle")
    async def work(self) -> None:
        seen.append("begins")
        try:
            if len(seen) == 1:
                await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.2)
            seen.append("tidied")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that may be stopped."""
    with EmbeddedServer(tmp_path / "redis") as server:
        yield server


def lives() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "statemq-life"]


async def never(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


async def serving(worker: Worker) -> asyncio.Task[None]:
    """It runs, and holds all partitions."""
    running = asyncio.ensure_future(worker.run())
    await wait_until(lambda: running.done() or len(worker.partitions) == Box.spec.partitions)
    assert not running.done()
    return running


# -- it ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["daemon.lease.redis_now_ms", "daemon.declare", "life.Life._serve"])
async def test_asked_in_the_middle_of_its_start_while_redis_hangs(
    url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(f"statemq.worker.{where}", never)
    worker = Worker([Box], url, namespace=namespace)
    running = asyncio.ensure_future(worker.run())
    await asyncio.sleep(0.3)
    assert not running.done()
    worker.stop()
    await asyncio.wait_for(running, 30)
    assert not lives()


async def test_http_asked_in_the_middle_of_its_start_while_redis_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    async def close() -> None:
        said.append("closed")

    service: Any = SimpleNamespace(
        start=never, close=close, settings=SimpleNamespace(header_within_s=1, max_header_bytes=1, max_connections=9)
    )
    stop = asyncio.Event()
    address: Any = SimpleNamespace(ip="127.0.0.1", port=1)
    monkeypatch.setattr(listen, "build_app", lambda *_: None)
    listening = asyncio.ensure_future(listen.listen(service, None, address, stop=stop, started=lambda: None))  # type: ignore[arg-type]
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.wait_for(listening, 30)
    assert said == ["closed"]


async def test_asked_twice_while_redis_is_away_it_does_not_use_up_its_grace(own: EmbeddedServer, namespace: str) -> None:
    worker = Worker([Box], own.url, namespace=namespace, settings=WorkerSettings(grace_s=3600))
    running = await serving(worker)
    async with Client(own.url, namespace=namespace, machines=[Box]) as client:
        await client.send(Box.hold("a"))
        await wait_until(lambda: any(p.busy for p in worker.partitions.values()))
        own.pause()
        try:
            worker.stop()
            await asyncio.sleep(0.1)
            assert not running.done()  # what runs has its grace
            worker.kill()
            await asyncio.wait_for(running, 30)
        finally:
            own.cont()


async def test_cancelled_again_and_again_it_leaves_nothing(url: str, namespace: str) -> None:
    before = asyncio.all_tasks()
    worker = Worker([Box], url, namespace=namespace)
    running = await serving(worker)
    while not running.done():
        running.cancel()
        await asyncio.sleep(0)
    assert running.cancelled()
    assert not lives()
    await wait_until(lambda: asyncio.all_tasks() <= before)
    assert worker._turning is not None and worker._turning.cancelled()


async def test_a_body_that_was_closed_ends_before_the_next_owner_begins(url: str, namespace: str) -> None:
    """Also where it has something to do in its ``finally``."""
    seen.clear()
    first = Worker([Tidy], url, namespace=namespace, settings=WorkerSettings(grace_s=0))
    running = asyncio.ensure_future(first.run())
    async with Client(url, namespace=namespace, machines=[Tidy]) as client:
        handle = await client.send(Tidy.work("a"))
        await wait_until(lambda: seen)
        second = Worker([Tidy], url, namespace=namespace)
        follows = asyncio.ensure_future(second.run())
        first.stop()
        await asyncio.wait_for(running, 30)
        await handle.result(timeout=30)
        second.stop()
        await follows
    assert seen == ["begins", "tidied", "begins", "tidied"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_each_ending_signal_hands_over(client: Client, processes: Processes, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "hold").touch()
    process = processes.cli("--grace", "60s")
    handle = await client.send(Poison.holds("a"))
    await wait_until(lambda: "begin" in processes.lines, timeout_s=30)
    process.send_signal(number)
    await wait_until(lambda: "ending in good order" in processes.said)
    (tmp_path / "hold").unlink()
    assert await handle.result(timeout=30) == "done"
    await wait_until(lambda: process.poll() is not None, timeout_s=30)
    assert process.returncode == (130 if number == signal.SIGINT else 0)


@pytest.mark.quick
async def test_asked_while_it_takes_a_partition_it_gives_it_back(url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes when it is on its way out."""
    worker = Worker([Box], url, namespace=namespace, settings=WorkerSettings(lease_ms=120_000))
    acquire = lease.acquire

    async def late(*args: Any, **how: Any) -> Any:
        got = await acquire(*args, **how)
        worker.stop()
        await asyncio.sleep(0.1)
        return got

    monkeypatch.setattr(lease, "acquire", late)
    await asyncio.wait_for(worker.run(), 30)
    async with Client(url, namespace=namespace, machines=[Box]) as client:
        assert [p.owner for p in await client.partitions(Box)] == [""] * Box.spec.partitions


@pytest.mark.leaves_work
async def test_a_body_that_swallows_its_end_keeps_no_process(client: Client, processes: Processes) -> None:
    process = processes.cli("--grace", "100ms")
    await client.send(Poison.swallows("a"))
    await wait_until(lambda: "begin" in processes.lines, timeout_s=30)
    process.send_signal(signal.SIGTERM)
    await wait_until(lambda: process.poll() is not None, timeout_s=60)
    assert process.returncode == 0
    assert "ends without waiting for 1 cancelled body" in processes.said


def test_supervised_processes_have_their_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor kills none that is still within its own."""
    given: list[float] = []
    started: list[list[str]] = []

    def note(children: Any, *, say: Any, grace_s: float) -> int:
        given.append(grace_s)
        started.extend(list(child.argv) for child in children)
        return 0

    monkeypatch.setattr("statemq.worker.supervise.supervise", note)
    monkeypatch.setattr(cli_run, "_machines", lambda targets: [])
    from statemq.cli.app import main

    for words in ([], ["--grace", "90s", "--unknown-wait", "20m"]):
        assert main(["worker", "x", "--processes", "2", "--redis", "redis://localhost", *words]) == 0
    assert ["--unknown-wait" in words for words in started] == [False, False, True, True]
    assert given[0] > WorkerSettings().grace_s + 5
    assert given[1] > 95


def test_what_it_was_started_to_ignore_ends_it_not() -> None:
    """``nohup statemq worker``: its terminal may close."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert heeded() == [signal.SIGTERM, signal.SIGINT]
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received == []
    finally:
        signal.signal(signal.SIGHUP, former)
    assert signal.SIGHUP in heeded()


# -- it does not live on for nothing ------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["the blocking read", "the life sign", "all"])
async def test_a_connection_that_is_let_in_no_more_ends_the_worker(own: EmbeddedServer, namespace: str, which: str) -> None:
    """Else nobody would read what it holds, or see it die, while it renews the leases; and the process must not end from within."""
    worker = Worker([Box], own.url, namespace=namespace)
    running = await serving(worker)
    async with Redis.from_url(own.url) as redis:
        await wait_until(lambda: blocked(redis))
        await redis.config_set("requirepass", "secret")
        for one in await redis.client_list():
            reads, subscribed = one["cmd"] == "xread" and "b" in one["flags"], one["ssub"] != "0"
            if one["cmd"] != "client|list" and (which == "all" or (reads and which[4] == "b") or (subscribed and which[4] == "l")):
                await redis.client_kill_filter(_id=one["id"])
        with pytest.raises(UnsupportedServer, match="does not let us in"):
            await asyncio.wait_for(running, 60)
    assert not lives()


async def blocked(redis: Redis) -> bool:
    return any(one["cmd"] == "xread" and "b" in one["flags"] for one in await redis.client_list())


async def test_a_life_sign_that_meets_silence_comes_back(server: EmbeddedServer, url: str, namespace: str) -> None:
    """A network that swallows all for a while, also the greeting of the new connection."""
    async with FaultyProxy(server.port) as proxy, Redis.from_url(url) as redis:
        worker = Worker([Box], proxy.url, namespace=namespace)
        running = await serving(worker)

        async def seen() -> bool:
            return bool([c for c in await redis.execute_command("PUBSUB", "SHARDCHANNELS", f"{namespace}:*") if worker.id.encode() in c])

        await wait_until(seen)
        proxy.black_hole = True
        proxy.cut()
        await wait_until(lambda: proxy.connections)
        await asyncio.sleep(0.5)  # it greets, into silence
        proxy.black_hole = False
        await wait_until(seen, timeout_s=60)
        worker.stop()
        await running


# -- it lives on -----------------------------------------------------------------------------------------


async def test_garbage_in_the_registry_ends_no_worker(url: str, namespace: str) -> None:
    async with Redis.from_url(url) as redis, Client(url, namespace=namespace, machines=[Box]) as client:
        worker = Worker([Box], url, namespace=namespace, settings=WorkerSettings(beat_s=0.02))
        running = await serving(worker)
        await redis.zadd(workers(namespace, Box.spec.name), {b"\xff\xfe": 9e15})
        await asyncio.sleep(0.3)
        assert await client.call(Box.put("a", n=1), timeout=30) is not None
        worker.stop()
        await running
        await redis.delete(workers(namespace, Box.spec.name))
