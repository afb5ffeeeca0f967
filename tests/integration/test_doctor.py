"""``statemq doctor`` against a real server: each line is made to say warn or bad by what really makes it so."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis

from statemq import Client
from statemq.config import Role, Safety
from statemq.doctor.examine import examine
from statemq.doctor.finding import Finding, Level
from statemq.doctor.holes import kind_of
from statemq.doctor.server import TORN_FILES_MENDED
from statemq.errors import StreamExhausted, UnknownMachine
from statemq.keys import PartitionKeys, partition_of
from statemq.server import EmbeddedServer
from statemq.store import acl
from tests.integration import box
from tests.integration.box import Box
from tests.waiting import wait_until
from tests.working import working

NAMESPACE = "statemq"
PARTS = [PartitionKeys(NAMESPACE, "box", p) for p in range(2)]
HERE = PARTS[partition_of("a", 2)]
THERE = PARTS[1 - partition_of("a", 2)]
USED_UP = "18446744073709551615-18446744073709551615"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server to configure."""
    folder = Path(tmp_path_factory.mktemp("own"))
    with EmbeddedServer(folder) as server:
        yield server


@pytest.fixture
def redis(own: EmbeddedServer) -> Iterator[Redis]:
    with Redis.from_url(own.url, decode_responses=True) as opened:
        opened.flushall()
        yield opened
        opened.config_set("maxmemory", 0)
        opened.config_set("maxmemory-policy", "noeviction")
        opened.config_set("appendfsync", "everysec")
        opened.config_set("appendonly", "yes")


@pytest.fixture
async def client(own: EmbeddedServer, redis: Redis) -> AsyncIterator[Client]:
    async with Client(own.url, machines=[Box]) as opened:
        yield opened


async def lines(own: EmbeddedServer, *machines: str, **how: object) -> dict[str, Finding]:
    """The findings by check; where a check has several, its worst."""
    found: dict[str, Finding] = {}
    order = list(Level)
    for finding in await examine(own.url, NAMESPACE, machines, **how):  # type: ignore[arg-type]
        before = found.get(finding.check)
        if before is None or order.index(finding.level) > order.index(before.level):
            found[finding.check] = finding
    return found


async def said(own: EmbeddedServer, check: str, level: Level, *words: str, **how: object) -> Finding:
    line = (await lines(own, **how))[check]
    assert line.level is level, line
    for word in words:
        assert word in f"{line.text} → {line.todo}", line
    assert bool(line.todo) == (level is not Level.ok)
    return line


@pytest.mark.quick
async def test_all_is_well(own: EmbeddedServer, client: Client) -> None:
    async with working(own.url, NAMESPACE, Box):
        await client.call(Box.put("a"), timeout=20)
        found = await lines(own, durability=Safety.everysec)
    assert {check for check, line in found.items() if line.level is not Level.ok} <= {
        "version",
        "torn file",
    }  # those of an older test server
    assert {"data", "workers", "leases", "backlog", "stuck", "damage", "streams", "failed", "paused", "states"} <= set(found)
    assert found["workers"].text == "1 live"
    assert found["leases"].text == "all 2 partitions are held by live workers"


async def test_nothing_is_declared(own: EmbeddedServer, redis: Redis) -> None:
    await said(own, "machines", Level.warn, "no machine is declared")
    with pytest.raises(UnknownMachine, match="nope"):
        await examine(own.url, NAMESPACE, ["nope"])
    assert redis.keys() == []


# -- the server ---------------------------------------------------------------------------------------


async def test_a_server_that_evicts_is_bad_and_still_examined(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    redis.config_set("maxmemory-policy", "allkeys-lru")
    await said(own, "eviction", Level.bad, "allkeys-lru", "noeviction")
    assert (await lines(own))["data"].level is Level.ok


async def test_a_torn_file(own: EmbeddedServer, redis: Redis) -> None:
    """What a server that does not mend it is told to set can be set, and is enough."""
    redis.config_set("aof-load-truncated", "no")
    try:
        assert "torn file" not in await lines(own)
    finally:
        redis.config_set("aof-load-truncated", "yes")
    kind = kind_of(redis.info("server"))
    if not (kind.name in TORN_FILES_MENDED and kind.version >= TORN_FILES_MENDED[kind.name]):
        await said(own, "torn file", Level.warn, "second restart", "aof-load-truncated no")


async def test_persistence(own: EmbeddedServer, redis: Redis) -> None:
    await said(own, "persistence", Level.ok, "appendfsync everysec")
    await said(own, "persistence", Level.warn, "appendfsync always", durability=Safety.always)
    redis.config_set("appendfsync", "always")
    await said(own, "persistence", Level.ok, durability=Safety.always)
    redis.config_set("appendfsync", "no")
    await said(own, "persistence", Level.bad, durability=Safety.everysec)
    redis.config_set("appendonly", "no")
    await said(own, "persistence", Level.bad, "appendonly", durability=Safety.everysec)
    await said(own, "persistence", Level.warn)
    await said(own, "persistence", Level.ok, durability=Safety.memory)


async def test_memory(own: EmbeddedServer, redis: Redis) -> None:
    redis.setrange(
        "ballast", 30_000_000, b"x"
    )  # beside it a connection more is nothing; a long value would lie in a buffer for a while, too
    used = redis.info("memory")["used_memory"]
    redis.config_set("maxmemory", int(used * 1.15))
    await said(own, "memory", Level.warn)
    redis.config_set("maxmemory", int(used * 0.9))
    await said(own, "memory", Level.bad, "refused")
    redis.config_set("maxmemory", 0)
    redis.delete("ballast")


async def test_replicas(own: EmbeddedServer, redis: Redis, tmp_path: Path) -> None:
    await said(own, "replicas", Level.bad, "no replica", durability=Safety.replicated)
    config = ("--replicaof", f"127.0.0.1 {own.port}")
    with EmbeddedServer(tmp_path, config=config) as replica:
        await wait_until(lambda: redis.info("replication").get("slave0", {}).get("state") == "online", timeout_s=30)
        await said(own, "replicas", Level.warn, "min-replicas-to-write", durability=Safety.replicated)
        redis.config_set("min-replicas-to-write", 1)
        try:
            await said(own, "replicas", Level.ok, "1 in step", durability=Safety.replicated)
        finally:
            redis.config_set("min-replicas-to-write", 0)
        await said(replica, "role", Level.bad, "replica")


# -- a machine ----------------------------------------------------------------------------------------


async def test_no_worker(own: EmbeddedServer, client: Client) -> None:
    await said(own, "workers", Level.warn, "no worker lives")
    await client.send(Box.put("a"))
    await said(own, "workers", Level.bad, "1 commands wait")
    await said(own, "backlog", Level.ok, f"1 of them in partition {HERE.number}")


async def test_a_killed_worker_s_leases_are_orphaned_then_overdue(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    worker = await killed(own, redis)
    await said(own, "leases", Level.warn, worker, "does not say that it lives")
    for part in PARTS:
        redis.hset(part.lease, "deadline", 1)
    await said(own, "leases", Level.warn, worker, "start a worker")
    # somebody else lives, and does not take over
    redis.zadd(f"{NAMESPACE}:{{box}}:workers", {"other": redis.time()[0] * 1000 + 60_000})
    await said(own, "leases", Level.bad, "partitions 0, 1", worker, "nobody takes over")


WORKER = """
import asyncio, sys
from statemq.config import WorkerSettings
from statemq.worker.daemon import Worker
from tests.integration.box import Box

asyncio.run(Worker([Box], sys.argv[1], settings=WorkerSettings(lease_ms=120_000)).run())
"""


async def killed(own: EmbeddedServer, redis: Redis) -> str:
    """The id of a worker that owned all when its process was killed, and whose last sign of life is long ago."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, own.url], cwd=Path(__file__).parents[2])
    try:
        await wait_until(lambda: all(redis.hget(part.lease, "owner") for part in PARTS), timeout_s=30)
    finally:
        process.kill()
        process.wait()
    owner = redis.hget(HERE.lease, "owner") or ""
    redis.zadd(f"{NAMESPACE}:{{box}}:workers", {owner: 1})
    return owner


async def test_a_free_partition_with_a_live_worker_is_named(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    redis.zadd(f"{NAMESPACE}:{{box}}:workers", {"other": redis.time()[0] * 1000 + 60_000})
    await said(own, "leases", Level.warn, "partitions 0, 1", "nobody's")


async def test_what_runs_long_waits_long_and_is_due_long(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    box.ran.clear()
    box.gate = asyncio.Event()
    async with working(own.url, NAMESPACE, Box):
        running = await client.send(Box.gated("a"))
        await wait_until(lambda: box.ran["a"])
        await wait_until(lambda: redis.xpending(HERE.commands, "workers")["pending"])
        await said(own, "stuck", Level.ok, "300 s")
        entry = (await client.show(running.id)).entry
        await said(own, "stuck", Level.warn, entry, "has been in progress", "statemq queue box", long_ms=0)
        box.gate.set()
        await running.result(timeout=20)
        await said(own, "stuck", Level.ok, long_ms=0)
    redis.zadd(THERE.ready, {"b": 1})
    await said(own, "stuck", Level.warn, "key b", f"partition {THERE.number}", "ready or busy")
    redis.delete(THERE.ready)
    redis.zadd(THERE.timers, {"x": 1})
    await said(own, "stuck", Level.warn, "a timer has been due")


async def test_damage_halts_by_name_and_goes_on_when_it_is_mended(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    async with working(own.url, NAMESPACE, Box):
        redis.set(THERE.ready, "mine")
        redis.set(HERE.in_state("open"), "mine")
        line = await said(own, "damage", Level.bad, f"{THERE.ready} is a string, not a zset", HERE.in_state("open"))
        assert "stuck" in await lines(own)  # what can be seen is still said
        redis.delete(THERE.ready, HERE.in_state("open"))
        assert line.where == "box"
    redis.set(f"{NAMESPACE}:{{box}}:workers", "mine")
    await said(own, "damage", Level.bad, ":workers is no sorted set")


@pytest.mark.parametrize("stream", ["history", "failed"])
async def test_a_used_up_log_is_named_and_goes_on_when_it_was_moved(own: EmbeddedServer, client: Client, redis: Redis, stream: str) -> None:
    name = getattr(HERE, stream)
    redis.xadd(name, {"by": "hand"}, id=USED_UP)
    await said(own, "damage", Level.bad, f"{name} has used up its entry ids", "RENAME")
    redis.rename(name, "aside")
    await said(own, "damage", Level.ok)


async def test_wiped_and_foreign_partitions(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    redis.hset(HERE.lease, "incarnation", "another")
    await said(own, "data", Level.bad, f"partition {HERE.number}: of another incarnation")
    redis.delete(HERE.lease)
    await said(own, "data", Level.bad, f"partition {HERE.number}: wiped", "--on-wipe reinit")


async def test_config_damaged_or_of_a_newer_version(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    config = f"{NAMESPACE}:{{box}}:config"
    redis.hset(config, "schema", 99)
    await said(own, "data", Level.bad, "newer statemq")
    redis.hset(config, "schema", "many")
    await said(own, "data", Level.bad, "damaged by hand")
    redis.delete(config)
    redis.set(config, "mine")
    await said(own, "data", Level.bad, "WRONGTYPE")
    redis.delete(f"{NAMESPACE}:machines")
    redis.set(f"{NAMESPACE}:machines", "mine")
    await said(own, "data", Level.bad, "WRONGTYPE")


async def test_dead_letters_and_pauses(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    box.ran.clear()
    box.gate = asyncio.Event()
    box.gate.set()
    async with working(own.url, NAMESPACE, Box):
        failed = await client.send(Box.gated("a", then="fail"))
        assert (await failed.outcome(timeout=20)).outcome == "failed"
        await said(own, "failed", Level.warn, "1 dead letters", "statemq failed list box")
        await client.failed_discard(Box)
        await said(own, "failed", Level.ok)
        await client.pause(Box, "k")
        await client.send(Box.put("k"))
        await wait_until(lambda: redis.llen(PARTS[partition_of("k", 2)].inbox("k")))
        await said(own, "paused", Level.warn, "are paused: k", "statemq resume box KEY")
        await said(own, "stuck", Level.ok, "nothing but what is paused has waited")
        await client.resume(Box, "k")
        await client.pause(Box)
        await said(own, "paused", Level.warn, "the machine is paused (2 of 2 partitions)", "statemq resume box")
        await client.resume(Box)
        await said(own, "paused", Level.ok)


# -- repair -------------------------------------------------------------------------------------------


async def test_a_used_up_stream_is_mended_when_it_is_drained(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    """P27: an entry of the far future lets no other in; its owner has read past all ids there will be. After the repair it reads on."""
    box.ran.clear()
    box.gate = asyncio.Event()
    async with working(own.url, NAMESPACE, Box):
        running = await client.send(Box.gated("a"))
        await wait_until(lambda: box.ran["a"])
        late = await client.send(Box.put("b" if partition_of("b", 2) == HERE.number else "a"), delay=3600)
        redis.xadd(HERE.commands, {"key": "a", "transition": "put"}, id=USED_UP)
        with pytest.raises(StreamExhausted):
            await client.send(Box.put("a"))
        await said(own, "streams", Level.bad, f"partition {HERE.number}", "statemq doctor box --repair")
        await said(own, "repair", Level.bad, "still holds commands", repair=True)
        with pytest.raises(StreamExhausted):
            await client.send(Box.put("a"))
        box.gate.set()
        await running.result(timeout=20)
        await wait_until(lambda: not redis.xlen(HERE.commands))
        await said(own, "streams", Level.bad)
        found = await lines(own, repair=True)
        assert found["repair"].level is Level.ok
        assert found["streams"].level is Level.ok
        assert await client.call(Box.put("a"), timeout=20) == 2  # 1 was the one by hand
        assert (await late.status()).status == "delayed"
        assert await client.cancel(late.id) == "cancelled"
        assert "repair" not in await lines(own, repair=True)


async def test_after_a_repair_entries_are_forwarded_again(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    """The entry that used up the ids was for another partition, which remembers the last one that came from here."""
    async with working(own.url, NAMESPACE, Box):
        wrong = {"key": "a", "transition": "put"}
        redis.xadd(THERE.commands, wrong, id=USED_UP)
        await wait_until(lambda: redis.hget(HERE.received, f"hand:{THERE.number}") == USED_UP and not redis.xlen(THERE.commands))
        assert (await lines(own, repair=True))["repair"].level is Level.ok
        redis.xadd(THERE.commands, wrong)

        async def twice() -> bool:
            return (await client.get(Box, "a")).version == 2

        await wait_until(twice)


async def test_parked_commands_of_the_far_future_have_to_end_first(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    """P8: a new entry would have a lower id than one that is parked, and overtake it."""
    async with working(own.url, NAMESPACE, Box):
        await client.pause(Box, "a")
        redis.xadd(HERE.commands, {"key": "a", "transition": "put"}, id=USED_UP)
        await wait_until(lambda: redis.llen(HERE.inbox("a")) and not redis.xlen(HERE.commands))
        await said(own, "repair", Level.bad, "still holds commands", "restart the worker", repair=True)
        await client.resume(Box, "a")  # of which the owner cannot hear through this stream (P11)
    async with working(own.url, NAMESPACE, Box):
        await wait_until(lambda: redis.hget(HERE.instance("a"), "version") == "1")
        await said(own, "repair", Level.ok, repair=True)


# -- as who may little ----------------------------------------------------------------------------------


def grant(own: EmbeddedServer, redis: Redis, *words: str) -> EmbeddedServer:
    redis.execute_command("ACL", "SETUSER", "guest", "reset", "on", ">secret", *words)

    class As:
        url = own.url.replace("redis://", "redis://guest:secret@")

    return As()  # type: ignore[return-value]


async def test_a_reader_sees_all_but_the_config(own: EmbeddedServer, client: Client, redis: Redis) -> None:
    guest = grant(own, redis, *acl.rule(Role.reader, NAMESPACE).split())
    async with working(own.url, NAMESPACE, Box):
        found = await lines(guest)
        assert "rights" not in found
        assert {check for check, line in found.items() if line.level is not Level.ok} <= {"version", "functions", "persistence"}
        assert "CONFIG GET is refused" in found["persistence"].text
        assert "FUNCTION, SCRIPT is refused" in found["functions"].text
        redis.xadd(HERE.commands, {"key": "a", "transition": "put"}, id=USED_UP)
        await wait_until(lambda: not redis.xlen(HERE.commands))
        await said(guest, "repair", Level.bad, "statemq acl operator", repair=True)
        await said(own, "repair", Level.ok, repair=True)


@pytest.mark.parametrize(
    ("rule", "unseen"),
    [
        (["~statemq:*", "+@all", "-info"], {"server": "INFO"}),
        (["~statemq:*", "+@all", "-xpending", "-xlen"], {"rights": "XPENDING"}),
        (["~other:*", "+@all"], {"rights": "machines"}),
        (["~statemq:machines", "+@all"], {"rights": "box"}),
        (["~statemq:*", "+@all", "-type", "-time"], {"clock": "TIME", "rights": "box"}),
        (["~statemq:*", "+@all", "-type"], {"rights": "TYPE"}),
    ],
)
async def test_what_is_not_seen_is_said(own: EmbeddedServer, client: Client, redis: Redis, rule: list[str], unseen: dict[str, str]) -> None:
    found = await lines(grant(own, redis, *rule))
    for check, what in unseen.items():
        assert found[check].level is Level.warn
        assert "not seen" in found[check].text
        assert what in found[check].text
    assert not [line for line in found.values() if line.level is Level.bad]
