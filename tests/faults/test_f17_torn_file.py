"""Fault 17: the end of the append-only file is torn off, as power loss does. A suffix of what happened is gone, nothing else."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from statemq import Client, Unknown
from statemq.doctor.holes import kind_of
from statemq.doctor.server import TORN_FILES_MENDED
from statemq.keys import PartitionKeys
from statemq.server import EmbeddedServer
from tests.chaos.conftest import Report
from tests.faults.conftest import Serve
from tests.faults.crew import crew, goes_on, log_of, nothing_left
from tests.faults.tally import Tally
from tests.waiting import block_until

KEYS = [f"key {n}" for n in range(8)]
PARTS = [PartitionKeys("statemq", "tally", p) for p in range(Tally.spec.partitions)]
MOST = 2000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cuts", [4, pytest.param(60, marks=pytest.mark.chaos)])
async def test_what_survives_is_a_prefix_and_everybody_goes_on(serve: Serve, tmp_path: Path, report: Report, seed: int, cuts: int) -> None:
    """A copy of the torn file is judged as it lies there; then the server itself comes back with it, under workers and a client that
    remember more than it does."""
    dice = random.Random(seed)
    server = serve()
    sent: dict[str, list[int]] = {key: [] for key in KEYS}
    stood: dict[str, int] = {}
    lost = 0
    async with Client(server.url) as client, crew(server.url):
        for n in range(cuts):
            commands = [[Tally.add, Tally.step][(n + i) % 2](key, n=n) for i, key in enumerate(KEYS)]
            handles = await client.send_many(commands)
            for key in KEYS:
                sent[key].append(n)
            for handle in handles:
                await handle.outcome(timeout=30)
            with Redis.from_url(server.url) as redis:
                before = {part: redis.xrange(part.history) for part in PARTS}
            server.kill()
            tear(server.data_dir, dice.choice([1, 2, dice.randint(3, MOST), dice.randint(3, MOST)]))
            lost += judge(tmp_path / f"copy {n}", server.data_dir, before)
            server.start()
            forget_the_torn_end(server)
            await goes_on(client, time.monotonic())
            stood = {key: n for key in KEYS for n in (await log_of(client, key))[-1:]}
            assert all(last <= n for last in stood.values())
            for handle in handles:  # who asks again is told how it ended, or that nothing is known of it any more
                try:
                    assert (await client.handle(handle.id).outcome(timeout=30)).outcome == "completed"
                except Unknown:
                    continue
        for key in KEYS:
            log = await log_of(client, key)
            assert log == sorted(set(log)), f"{key} tore: {log}"
            assert set(log) <= set(sent[key])
    await nothing_left(server.url)
    assert lost, "the file was never torn where it hurt"
    report(f"append-only file torn {cuts} times (seed {seed}): {lost} commits lost, each time a suffix of its partition, nothing mixed")


def tear(folder: Path, size: int) -> None:
    (file,) = increments(folder)
    os.truncate(file, max(0, file.stat().st_size - size))


def forget_the_torn_end(server: EmbeddedServer) -> None:
    """Servers that leave the beginning of a torn script in the file would run it with the next script when they start again: the file is
    written anew from what they have."""
    with Redis.from_url(server.url, decode_responses=True) as redis:
        kind = kind_of(redis.info("server"))
        if kind.name in TORN_FILES_MENDED and kind.version >= TORN_FILES_MENDED[kind.name]:
            return
        redis.bgrewriteaof()
        waits = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
        block_until(lambda: not any(map(redis.info("persistence").get, waits)) and len(increments(server.data_dir)) == 1)


def increments(folder: Path) -> list[Path]:
    return [*(folder / "appendonlydir").glob("*.incr.aof")]


def judge(copy: Path, folder: Path, before: dict[PartitionKeys, list[Any]]) -> int:
    """How many outcomes are gone. Each partition's history is a prefix of what it was, and its instances, journals and accepted commands
    are those of that very moment."""
    shutil.copytree(folder / "appendonlydir", copy / "appendonlydir")
    lost = 0
    with EmbeddedServer(copy) as server, Redis.from_url(server.url) as redis:
        for part, entries in before.items():
            history = redis.xrange(part.history)
            assert history == entries[: len(history)], f"{part.number}: no prefix"
            lost += len(entries) - len(history)
            logs: dict[bytes, int] = defaultdict(int)
            for _, fields in history:
                if fields[b"transition"] in (b"add", b"step"):
                    logs[fields[b"key"]] += 1
            ended = {fields[b"id"] for _, fields in history}
            for key in KEYS:
                data = redis.hget(part.instance(key), "data")
                assert len(json.loads(data)["log"] if data else []) == logs[key.encode()], f"{key}: state and history are of two moments"
            accepted, queued = redis.hgetall(part.accepted), dict(redis.xrange(part.commands))
            assert not ended & set(accepted)
            assert set(accepted.values()) == set(queued), "accepted commands and entries are of two moments"
            journals = [name.rpartition(b":")[2] for name in redis.scan_iter(part.steps("*"), count=1000)]
            assert set(journals) <= set(accepted), "a journal without its command"
    return lost
