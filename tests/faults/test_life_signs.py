"""P5, P14: nobody is held to be dead, or counted as crashed, who lives: life signs that are cut while their process has no time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from redis import Redis

from statemq import Client, Handle
from statemq.keys import PartitionKeys
from statemq.server.host import end_with_parent
from statemq.worker.daemon import Worker
from statemq.worker.process import Fate
from tests.chaos.conftest import Report
from tests.faults.busy import FOLDER, Busy
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
THREADS = 16
ENOUGH_S = 60.0


class Owner:
    """A worker process that has the one partition of ``Busy``, and what is seen of it."""

    def __init__(self, url: str, namespace: str, folder: Path) -> None:
        env = os.environ | {"PYTHONPATH": str(ROOT), FOLDER: str(folder)}
        words = [sys.executable, "-m", "tests.faults.busy", url, namespace, "Busy"]
        self.process = subprocess.Popen(words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent())
        self.folder, self.redis, self.part = folder, Redis.from_url(url, decode_responses=True), PartitionKeys(namespace, "busy", 0)

    @property
    def id(self) -> str:
        return self.redis.hget(self.part.lease, "owner") or ""

    @property
    def token(self) -> str | None:
        return self.redis.hget(self.part.lease, "token")

    @property
    def signs(self) -> int:
        """How many connections give its life sign."""
        return int(self.redis.pubsub_shardnumsub(self.part.alive_channel(self.id))[0][1])

    @property
    def is_slow(self) -> bool:
        """It says of itself that it is."""
        said = self.redis.hget(f"{self.part.namespace}:{{busy}}:workers:about", self.id) or "{}"
        return bool(msgspec.json.decode(said).get("lag_ms"))

    def cut(self, but: Worker | None = None) -> None:
        """All life signs at once, of everybody, or of everybody but one."""
        kept = set()
        if but is not None and but._life is not None:
            wires = [wire for signs in but._life._signs.values() for wire in signs if wire._transport is not None]
            kept = {"{}:{}".format(*wire._transport.get_extra_info("sockname")) for wire in wires if wire._transport is not None}
        for row in self.redis.client_list():
            if int(row.get("ssub", 0)) > 0 and row["addr"] not in kept:
                self.redis.client_kill_filter(_id=row["id"])

    def crashes(self) -> list[int]:
        """What is in progress was so at so many crashes."""
        rows = self.redis.xpending_range(self.part.commands, "workers", "-", "+", 100)
        return [row["times_delivered"] for row in rows]

    def begun(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Busy]) as opened:
        yield opened


@pytest.fixture
def owner(url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    owner = Owner(url, namespace, tmp_path)
    yield owner
    (tmp_path / "end").touch()
    owner.process.kill()
    owner.process.wait()
    owner.redis.close()


async def computes(client: Client, owner: Owner, n: int) -> list[Handle[Any]]:
    """So many commands whose steps compute in it."""
    await wait_until(lambda: owner.id, ENOUGH_S)
    handles = [await client.send(Busy.work(f"key {i}")) for i in range(n)]
    await wait_until(lambda: len(owner.begun()) == n, ENOUGH_S)
    return handles


class Watching:
    """A worker in this process that may begin when the other one owns everything."""

    def __init__(self, url: str, namespace: str) -> None:
        self._worker, self._run = Worker([Busy], url, namespace=namespace), asyncio.ensure_future(asyncio.sleep(0))

    def start(self) -> Worker:
        self._run = asyncio.ensure_future(self._worker.run())
        return self._worker

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._worker.stop()
        await self._run


async def is_seen(watcher: Worker, owner: Owner) -> None:
    """The watcher has heard its life sign and would notice its silence."""

    def seen() -> bool:
        return watcher._life is not None and owner.id in {seen for _, seen in watcher._life.looks.seen_alive}

    await wait_until(seen, ENOUGH_S)


@pytest.fixture(params=["here", "elsewhere"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a peer runs: on this host, or on one of whose processes nothing is known."""
    if request.param == "elsewhere":
        monkeypatch.setattr("statemq.worker.peers.fate_of", lambda name: Fate.unknown)
    return str(request.param)


@pytest.mark.parametrize("cuts", [5, pytest.param(100, marks=[pytest.mark.chaos, pytest.mark.timeout(1500)])])
@pytest.mark.timeout(300)
async def test_who_computes_and_loses_all_life_signs_lives(
    client: Client, owner: Owner, report: Report, namespace: str, url: str, where: str, cuts: int
) -> None:
    """All are cut at once, again and again, while sixteen threads hold the interpreter: it takes a second or more until they are back.
    On its host it is known to live; elsewhere it has said how slow it is, and is waited for so long."""
    async with Watching(url, namespace) as watch:
        handles = await computes(client, owner, THREADS)
        token, watcher = owner.token, watch.start()
        await wait_until(lambda: owner.is_slow, ENOUGH_S)
        for n in range(cuts):
            await is_seen(watcher, owner)
            owner.cut(but=watcher if n % 5 else None)
            await wait_until(lambda: owner.signs == 2, ENOUGH_S)
        assert owner.token == token
        assert owner.crashes() == [0] * THREADS
        assert len(owner.begun()) == THREADS, "a step runs in two processes"
        (owner.folder / "end").touch()
        assert [await handle.result(timeout=ENOUGH_S) for handle in handles] == ["done"] * THREADS
    report(f"{cuts} times all life signs of a worker with {THREADS} computing threads were cut, a watcher {where}: nobody died")


@pytest.mark.timeout(180)
async def test_who_is_killed_is_found_out_by_its_silence_and_counted(
    client: Client, owner: Owner, namespace: str, url: str, where: str
) -> None:
    """Its lease would last for two minutes."""
    async with Watching(url, namespace) as watch:
        await computes(client, owner, 1)
        watcher = watch.start()
        await is_seen(watcher, owner)
        owner.process.kill()
        await wait_until(lambda: watcher.partitions, ENOUGH_S)
        await wait_until(lambda: len(owner.begun()) == 2, ENOUGH_S)
        assert owner.crashes() == [1]
        (owner.folder / "end").touch()


async def test_who_lives_keeps_its_partition_however_long_it_is_silent(client: Client, owner: Owner, namespace: str, url: str) -> None:
    """It stands still when its connections are cut, so it cannot come back; on its host everybody sees that it is there. Then it is killed,
    still silent: that is its death."""
    async with Watching(url, namespace) as watch:
        await computes(client, owner, 1)
        watcher = watch.start()
        await is_seen(watcher, owner)
        token = owner.token
        owner.process.send_signal(signal.SIGSTOP)
        owner.cut(but=watcher)
        await wait_until(lambda: watcher._peers._silent)
        assert owner.signs == 0
        await asyncio.sleep(1)
        assert owner.token == token
        owner.process.kill()
        await wait_until(lambda: watcher.partitions, ENOUGH_S)
        await wait_until(lambda: owner.crashes() == [1], ENOUGH_S)
        (owner.folder / "end").touch()
