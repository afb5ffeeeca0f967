"""Faults 19, 21, 30, 31 and 36: two primaries, a server that loads, that is full, whose disk is full, and certificates that are wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from statemq import Client, Pending, Unknown
from statemq.config import WorkerSettings
from statemq.errors import NamespaceLost, RedisAway, Refused, StatemqError
from statemq.server import EmbeddedServer
from statemq.store.router import Router
from statemq.worker.daemon import Worker
from statemq.worker.life import Life
from tests.chaos.conftest import Report
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Ledger
from tests.faults.conftest import Serve
from tests.faults.crew import Load, crew, goes_on, log_of, one_key_each
from tests.faults.tally import Tally
from tests.faulty import HOST, FaultyProxy
from tests.waiting import block_until, wait_until


@pytest.mark.chaos
@pytest.mark.parametrize("careful", [False, True])
async def test_f19_two_primaries(serve: Serve, careful: bool, report: Report) -> None:
    """One worker and one client still talk to the old primary while the others have the new one. When it is healed, what the old one took
    is gone and nothing is mixed; with ``min-replicas-to-write`` it took nothing, and nothing is gone but what was on its way."""
    lease_ms = 1_000
    replication = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
    guard = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "1") if careful else ()
    old = serve(*replication, *guard, name="old")
    new = serve(*replication, "--replicaof", HOST, str(old.port), name="new")
    async with (
        Redis.from_url(old.url) as at_old,
        Redis.from_url(new.url) as at_new,
        FaultyProxy(old.port) as left,
        FaultyProxy(old.port) as right,
    ):
        await wait_until(lambda: in_step(at_new), 30)
        async with (
            Client(left.url, machines=[Tally]) as one,
            Client(right.url, machines=[Tally]) as other,
            crew(left.url, workers=1, lease_ms=lease_ms) as workers,
        ):
            workers.start(right.url, "statemq", Tally, lease_ms=lease_ms)
            await wait_until(lambda: all(w.partitions for w in workers.workers) and workers.held == Tally.spec.partitions)
            async with Load(one, other, every_s=0.02) as load:
                await load.more(5)
                await at_new.replicaof("NO", "ONE")
                right._target = (HOST, new.port)
                right.cut()
                await asyncio.sleep(2.5)  # each side goes on alone, beyond the lease and the replica's lag
                await at_old.replicaof(HOST, str(new.port))
                left._target = (HOST, new.port)
                left.cut()
                since_s = time.monotonic()
                took_s = max(await goes_on(one, since_s), await goes_on(other, since_s))
                await load.more(5)
            lost = 0
            for key, handles in load.sent.items():
                await asyncio.gather(*(handle.outcome(timeout=30) for handle in handles), return_exceptions=True)
                log = await log_of(other, key)
                assert log == sorted(set(log)) and set(log) <= set(range(len(handles))), f"{key} is mixed: {log}"
                assert log[-4:] == list(range(len(handles)))[-4:], f"{key} does not go on: {log} of {len(handles)}"
                lost += len(handles) - len(log)
            assert careful or lost, "nothing happened on the losing side"
    report(f"two primaries{', min-replicas-to-write' if careful else ''}: {load.total} commands, {lost} of the loser gone; {took_s:.2f} s")


async def in_step(replica: Redis) -> bool:
    return bool((await replica.info("replication")).get("master_link_status") == "up")


@pytest.mark.chaos
async def test_f21_a_server_that_loads(serve: Serve, report: Report) -> None:
    """LOADING for seconds after a restart: everybody waits, nobody gives up."""
    server = serve("--appendfsync", "always")
    async with Client(server.url) as client, crew(server.url):
        async with Load(client, every_s=0.02) as load, Redis.from_url(server.url) as redis:
            await load.more(3)
            await redis.mset({f"ballast {n}": "x" for n in range(2_000)})
            await redis.execute_command("BGREWRITEAOF")
            await wait_until(lambda: rewritten(redis), 30)
            server.kill()
            server.config = (*server.config, "--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
            with kept_by_a_thread(server):
                await wait_until(lambda: is_loading(server), 20)
                async with Client(server.url, machines=[Tally]) as late:  # who comes now waits as well
                    took_s = await goes_on(client, time.monotonic())
                    assert (await late.get(Tally, "untouched")).version == 0
                await load.more(3)
        await load.judge(client)
    server.kill()
    report(f"LOADING after a restart: {load.total} commands, each once and in order; back within {took_s:.2f} s")


async def rewritten(redis: Redis) -> bool:
    info = await redis.info("persistence")
    return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"] and bool(info["aof_last_rewrite_time_sec"] >= 0)


async def is_loading(server: EmbeddedServer) -> bool:
    from redis.exceptions import BusyLoadingError, ConnectionError

    async with Redis.from_url(server.url) as redis:
        try:
            await redis.get("x")
        except BusyLoadingError:
            return True
        except ConnectionError:
            pass
    return False


@pytest.mark.parametrize("how", ["gone", pytest.param("silent", marks=pytest.mark.chaos)])
async def test_a_worker_that_is_asked_to_leave_while_the_server_is_away_leaves(serve: Serve, how: str) -> None:
    """Within its grace period: what it held is free when the lease ends, and nobody has to kill it."""
    server = serve()
    worker = Worker([Tally], server.url, settings=WorkerSettings(grace_s=0.2, lease_ms=2_000))
    running = asyncio.ensure_future(worker.run())
    await wait_until(lambda: len(worker.partitions) == Tally.spec.partitions)
    server.kill() if how == "gone" else server.pause()
    worker.stop()
    await asyncio.wait_for(running, 30)
    if how == "silent":
        server.cont()


async def test_a_worker_that_is_asked_to_leave_before_its_first_look_is_answered_leaves(
    url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server went away in the middle of the worker's start."""
    asked = asyncio.Event()

    async def never(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("statemq.store.lease.survey", never)
    worker = Worker([Tally], url, namespace=namespace)
    running = asyncio.ensure_future(worker.run())
    await asked.wait()
    worker.stop()
    await asyncio.wait_for(running, 30)


@pytest.mark.quick
@pytest.mark.parametrize(
    "when", ["its life thread begins", "its life thread has no connection yet", "its first life sign is sent", "it holds all"]
)
async def test_a_worker_whose_task_is_cancelled_leaves_no_life_behind(
    url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A life thread that outlives its loop would take it for stuck, and end the whole process half a minute later."""
    reached = threading.Event()

    async def stays(*_: object, **__: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    worker = Worker([Tally], url, namespace=namespace)
    match when:
        case "its life thread begins":
            begins = Life._live

            async def late(life: Life) -> None:
                reached.set()
                time.sleep(0.2)
                await begins(life)

            monkeypatch.setattr(Life, "_live", late)
        case "its life thread has no connection yet":
            opens = Router.open

            async def only_here(router: Router, timeout_s: float = 5.0) -> Router:
                if threading.current_thread().name == "statemq-life":
                    await stays()
                return await opens(router, timeout_s)

            monkeypatch.setattr(Router, "open", only_here)
        case "its first life sign is sent":
            monkeypatch.setattr("statemq.store.lease.beat", stays)
    running = asyncio.ensure_future(worker.run())
    await wait_until(reached.is_set if when != "it holds all" else lambda: len(worker.partitions) == Tally.spec.partitions)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert "statemq-life" not in {thread.name for thread in threading.enumerate()}
    assert not worker.partitions or all(p.closed for p in worker.partitions.values())


async def test_a_worker_leaves_though_all_threads_of_its_loop_are_taken(url: str, namespace: str) -> None:
    """By a handler's ``asyncio.to_thread``, say: nothing of the worker's own goes through them."""
    held = threading.Event()
    blocked = [asyncio.get_running_loop().run_in_executor(None, held.wait) for _ in range(64)]
    try:
        worker = Worker([Tally], url, namespace=namespace)
        running = asyncio.ensure_future(worker.run())
        await wait_until(lambda: len(worker.partitions) == Tally.spec.partitions)
        worker.stop()
        await asyncio.wait_for(running, 30)
    finally:
        held.set()
        await asyncio.gather(*blocked)


class kept_by_a_thread:
    """Starts a server beside this thread, which does not wait for it; the server ends with its thread."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server, self._over = server, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self._server.start()
        self._over.wait()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: Any) -> None:
        threading.Thread(target=self._end).start()

    def _end(self) -> None:
        block_until(lambda: not self._server.running, 60)
        self._over.set()


async def test_f26_everything_is_flushed_under_load(serve: Serve, report: Report) -> None:
    """With ``on_wipe="reinit"`` it begins anew by itself; nobody hangs: what was lost is unknown, refused, or said to be lost."""
    server = serve(appendonly=False)
    async with Client(server.url) as client, crew(server.url, on_wipe="reinit"), Redis.from_url(server.url) as redis:
        async with Load(client) as load:
            for _ in range(2):
                await load.more(5)
                await redis.flushall()
                await wait_until(lambda: back(client), 30)
                await load.more(5)
            await goes_on(client, time.monotonic())
        said = await asyncio.gather(*(h.outcome(timeout=60) for hs in load.sent.values() for h in hs), return_exceptions=True)
        wrong = [s for s in said if isinstance(s, BaseException) and not isinstance(s, Unknown | NamespaceLost | Pending)]
        assert not wrong, wrong[:3]
        for key, handles in load.sent.items():
            log = await log_of(client, key)
            assert log == list(range(len(handles)))[len(handles) - len(log) :], f"{key} is no suffix of what was sent: {log}"
    report(f"flushed twice under load: {load.total} commands, {load.counts['namespace_lost']} refused meanwhile; it began anew by itself")


async def back(client: Client) -> bool:
    try:
        return all([await client.call(Tally.ping(key), timeout=5) == key for key in one_key_each()])
    except (NamespaceLost, Unknown, Pending):
        return False


@pytest.mark.chaos
async def test_f30_a_process_dies_while_the_server_is_full(serve: Serve, tmp_path: Path) -> None:
    """Its partitions are acquired under ``maxmemory`` as well, and what was queued drains and makes room."""
    server = serve(appendonly=False)
    async with Client(server.url, machines=[Ledger]) as client, Redis.from_url(server.url) as redis:
        fleet = Fleet(client, tmp_path, lease_ms=1_000)
        try:
            fleet.start(), fleet.start()
            await fleet.settled()
            handles = [await client.send(Ledger.apply_steps(key, n, pause_ms=300)) for n in range(3) for key in one_key_each(Ledger)]
            await redis.config_set("maxmemory", (await redis.info("memory"))["used_memory"] - 100_000)
            with pytest.raises(Refused, match="has used up its memory"):
                await client.send(Ledger.apply("x", 1))
            fleet.kill(fleet.running[0])
            for handle in handles:
                assert (await handle.outcome(timeout=60)).outcome == "completed"
            await redis.config_set("maxmemory", 0)
            assert (await client.call(Ledger.apply("x", 1), timeout=30)).n == 1
        finally:
            fleet.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    said = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True)
    if said.returncode:
        pytest.skip(f"a small file system cannot be mounted here (root only): {said.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_f31_a_full_disk(small_disk: Path, report: Report) -> None:
    """MISCONF: writes are refused, reads work; everybody waits and goes on when there is room again."""
    with EmbeddedServer(small_disk / "redis") as server:
        async with (
            Client(server.url) as client,
            Client(server.url, machines=[Tally]) as reader,  # one's own reads wait behind one's own writes
            crew(server.url),
            Redis.from_url(server.url) as redis,
        ):
            async with Load(client, every_s=0.02) as load:
                await load.more(3)
                filler = small_disk / "filler"
                with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # the server may take the last block
                    while os.statvfs(small_disk).f_bavail:
                        file.write(b"x" * 4096)
                await wait_until(lambda: refuses(redis), 30)
                assert (await asyncio.wait_for(reader.get(Tally, "key 0"), 30)).exists
                await asyncio.sleep(1)
                filler.unlink()
                await wait_until(lambda: takes(redis), 30)
                took_s = await goes_on(client, time.monotonic())
                await load.more(3)
            await load.judge(client)
        await redis.aclose()
    report(f"disk full: {load.total} commands, each once and in order; back {took_s:.2f} s after there was room")


async def refuses(redis: Redis) -> bool:
    return not await takes(redis)


async def takes(redis: Redis) -> bool:
    try:
        await redis.set("probe", "x")
    except ResponseError as error:
        assert "MISCONF" in str(error) or "AOF" in str(error), error
        return False
    return True


# -- TLS -----------------------------------------------------------------------------------------------


class Certificates:
    """Made with the openssl program: a CA, another one, and a server's certificates by the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for ca in ("ca", "stranger"):
            kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
            usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
            self._run("req", "-x509", *kind, *usage, "-subj", f"/CN={ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem")
        self.good = self._made("good", "localhost", "2")
        self.expired = self._made("expired", "localhost", "0")
        self.elsewhere = self._made("elsewhere", "redis.example.org", "2")

    def _made(self, name: str, host: str, days: str) -> tuple[Path, Path]:
        self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={host}",
                  "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        (self.folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{host}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days,
                  "-extfile", f"{name}.ext", "-out", f"{name}.pem")  # fmt: skip
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


@asynccontextmanager
async def tls_front(port: int, certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """Speaks TLS and passes everything on to a server that does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(HOST, port)

        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
            except OSError:
                pass
            sink.close()

        await asyncio.gather(pipe(reader, server_writer), pipe(server_reader, writer))

    listening = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()


@pytest.mark.chaos
async def test_f36_certificates_are_checked(server: EmbeddedServer, namespace: str, tmp_path: Path) -> None:
    """A wrong CA, an expired certificate, another host's, none at all: refused, and never tried in plain text."""
    try:
        made = Certificates(tmp_path)
    except FileNotFoundError:
        pytest.skip("no openssl program to make certificates with")
    async with (
        tls_front(server.port, made.good) as good,
        tls_front(server.port, made.expired) as expired,
        tls_front(server.port, made.elsewhere) as elsewhere,
    ):
        ca, stranger = f"?ssl_ca_certs={tmp_path}/ca.pem", f"?ssl_ca_certs={tmp_path}/stranger.pem"
        url = f"rediss://localhost:{good}{ca}"
        async with Client(url, namespace=namespace, machines=[Tally]) as client, crew(url, namespace, workers=1):
            assert await client.call(Tally.add("a", n=1), timeout=30) == 1
        await asyncio.sleep(1.1)  # the expired one is so by now
        wrong = {
            f"rediss://localhost:{good}{stranger}": "certificate verify failed",
            f"rediss://localhost:{good}": "certificate verify failed",
            f"rediss://localhost:{expired}{ca}": "certificate has expired",
            f"rediss://localhost:{elsewhere}{ca}": "doesn't match|not valid for",
            f"rediss://localhost:{server.port}{ca}": "no Redis answers",  # a server that speaks no TLS
            f"redis://localhost:{good}": "no Redis answers",  # and plain text to one that does
        }
        said = await asyncio.gather(*(refusal(url, namespace) for url in wrong))
    for (url, words), error in zip(wrong.items(), said, strict=True):
        assert isinstance(error, RedisAway), (url, error)
        assert any(word in str(error) for word in words.split("|")), (url, error)


async def refusal(url: str, namespace: str) -> StatemqError | None:
    said = await asyncio.gather(
        Worker([Tally], url, namespace=namespace).run(), Client(url, namespace=namespace).connect(), return_exceptions=True
    )
    assert type(said[0]) is type(said[1]), said
    return said[0] if isinstance(said[0], StatemqError) else None
