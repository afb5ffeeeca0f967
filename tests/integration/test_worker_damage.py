"""Keys of the engine damaged by hand (P20): one clear error, others go on, and what was halted goes on when the key is mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from statemq import Client, Failed, StatemqError, events
from statemq.client.client import Handle
from statemq.codec import encode
from statemq.config import OUTCOME_PERIOD_MS
from statemq.errors import ServerError
from statemq.keys import PartitionKeys, config, machines, partition_of, workers
from tests.integration import box
from tests.integration.box import Box, ran
from tests.waiting import wait_until
from tests.working import working

HOME = partition_of("a", 2)
NEAR = next(key for key in map(str, range(100)) if partition_of(key, 2) == HOME)
FAR = next(key for key in map(str, range(100)) if partition_of(key, 2) != HOME)
"""Other keys, in the partition of "a" and in the other one."""


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as opened:
        yield opened


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Box]) as opened:
        yield opened


@pytest.fixture
def part(namespace: str) -> PartitionKeys:
    return PartitionKeys(namespace, "box", HOME)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What operators were told."""
    texts: list[str] = []

    def tell(event: events.Event) -> None:
        if isinstance(event, events.Failing | events.Warned):
            texts.append(event.text)

    monkeypatch.setattr("statemq.worker.daemon.TROUBLE_S", 0.1)
    events.listeners.append(tell)
    yield texts
    events.listeners.remove(tell)


# -- keys of one instance or command: it alone suffers -----------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("kind", ["instance", "inbox"])
@pytest.mark.parametrize("cached", [False, True])
async def test_a_damaged_instance_fails_its_commands_and_no_others(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys, kind: str, cached: bool, told: list[str]
) -> None:
    name = part.instance("a") if kind == "instance" else part.inbox("a")
    async with working(url, namespace, Box):
        if cached:
            assert await client.call(Box.put("a"), timeout=20) == 1
            assert await client.call(Box.put(NEAR), timeout=20) == 1
        await redis.set(name, "by hand")
        handle = await client.send(Box.put("a"))
        if kind == "instance" or not cached:  # a cached instance's empty inbox is not looked at
            with pytest.raises(Failed, match="WRONGTYPE"):
                await handle.result(timeout=20)
        assert await client.call(Box.put(NEAR), timeout=20) == 1 + cached
        assert await client.call(Box.put(FAR), timeout=20) == 1
        await redis.delete(name)
        await client.call(Box.put("a"), timeout=20)


async def test_a_damaged_inbox_of_a_busy_key(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys, told: list[str]
) -> None:
    ran.clear()
    async with working(url, namespace, Box):
        await client.pause(Box, "a")
        await client.call(Box.put(NEAR), timeout=20)
        await redis.set(part.inbox("a"), "by hand")
        handle = await client.send(Box.put("a"))
        with pytest.raises(Failed, match="WRONGTYPE"):
            await handle.result(timeout=20)
        assert await client.call(Box.put(NEAR), timeout=20) == 2
        await redis.delete(part.inbox("a"))
        await client.resume(Box, "a")
        assert await client.call(Box.put("a"), timeout=20) == 1


async def test_a_damaged_journal_fails_its_command(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys, told: list[str]
) -> None:
    before, after = await client.send(Box.step("a")), await client.send(Box.put("a"))
    await redis.set(part.steps(before.id), "by hand")
    async with working(url, namespace, Box):
        with pytest.raises(Failed, match="WRONGTYPE"):
            await before.result(timeout=20)
        assert await after.result(timeout=20) == 1
        ran.clear()
        running = await client.send(Box.hold("a"))
        await wait_until(lambda: ran["a"])
        await redis.set(part.steps(running.id), "by hand")
        assert await client.call(Box.put(NEAR), timeout=20) == 1
        with pytest.raises(StatemqError):
            await running.cancel()  # what it waits for cannot be written; nothing else suffers
        await redis.delete(part.steps(running.id))
        assert await running.cancel() == "asked"
        assert await client.call(Box.put("a"), timeout=20) == 2


async def test_a_journal_with_nonsense_fails_its_command(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys, told: list[str]
) -> None:
    nonsense: list[dict[str | bytes, str | bytes]] = [{"@attempts": "many"}, {"@started": "noon"}, {b"\xff": "1"}, {"note": "no record"}]
    handles = []
    for row in nonsense:
        handles.append(await client.send(Box.step("a")))
        await redis.hset(part.steps(handles[-1].id), mapping=row)  # type: ignore[arg-type]
    async with working(url, namespace, Box):
        for handle in handles:
            assert (await handle.outcome(timeout=20)).outcome == "failed"
        assert await client.call(Box.put("a"), timeout=20) == 1


async def test_a_damaged_idempotency_record_fails_its_command(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys, told: list[str]
) -> None:
    handle, after = await client.send(Box.put("a"), idempotency_key="k"), await client.send(Box.put("a"))
    await redis.set(part.once("a", "k"), "by hand")
    async with working(url, namespace, Box):
        with pytest.raises(Failed, match="WRONGTYPE"):
            await handle.result(timeout=20)
        assert await after.result(timeout=20) == 1
        assert {e.id: e.outcome for e in await client.history(Box)} == {handle.id: "failed", after.id: "completed"}
        with pytest.raises(StatemqError, match="WRONGTYPE"):
            await client.send(Box.put("a"), idempotency_key="k")
    await redis.delete(part.once("a", "k"))


async def test_damaged_fields_of_an_instance(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys, told: list[str]
) -> None:
    await redis.hset(part.instance("a"), mapping={"state": "flying", "version": 1, "data": "{}"})
    await redis.hset(part.instance(NEAR), mapping={"state": "open", "version": 1, "data": "no json"})
    async with working(url, namespace, Box):
        # another version of the class may have written both, so nothing fails: they wait for it
        waiting = [await client.send(Box.put(key)) for key in ("a", NEAR)]
        for handle, why in zip(waiting, ("in state flying, which this version of box does not declare", "does not fit Data"), strict=True):

            async def said(handle: Handle[Any] = handle, why: str = why) -> bool:
                return why in (await handle.status()).error

            await wait_until(said)
    await redis.hset(part.instance("a"), "state", "shut")
    await redis.hset(part.instance(NEAR), "data", "{}")
    async with working(url, namespace, Box):
        for handle in waiting:
            await handle.result(timeout=20)
    for version in ("many", b"\xff"):
        await redis.hset(part.instance("a"), mapping={"version": version})
        async with working(url, namespace, Box):
            with pytest.raises(Failed, match="box/a cannot be read"):
                await client.call(Box.put("a"), timeout=20)
            await client.call(Box.put(FAR), timeout=20)


# -- keys that all commands of a partition share: it halts, loudly -----------------------------------

SHARED = ["commands", "accepted", "lease", "ready", "timers", "timers_data", "history", "failed", "outcomes", "in_state"]


@pytest.mark.parametrize("kind", SHARED)
async def test_a_damaged_shared_key_halts_its_partition_by_name_until_it_is_mended(
    client: Client, redis: Redis, url: str, namespace: str, part: PartitionKeys, kind: str, told: list[str]
) -> None:
    period = int((await redis.time())[0]) * 1000 // OUTCOME_PERIOD_MS
    names = {
        "outcomes": [part.outcomes(period), part.outcomes(period + 1)],
        "in_state": [part.in_state("open")],
    }.get(kind) or [getattr(part, kind)]
    box.gate = asyncio.Event()
    ran.clear()
    async with working(url, namespace, Box, suspend_after_s=0.001):
        assert await client.call(Box.put(NEAR), timeout=20) == 1
        then = "sleep" if kind in ("ready", "timers", "timers_data") else "fail" if kind == "failed" else ""
        handle = await client.send(Box.gated("a", then=then))
        await wait_until(lambda: ran["a"])
        kept = {name: await redis.dump(name) for name in names}
        for name in names:
            await redis.set(name, "by hand")
        box.gate.set()  # it meets the key in the middle of its way
        await wait_until(lambda: any("is halted" in text and f"{names[0]} is a string, not a" in text for text in told))
        assert await client.call(Box.put(FAR), timeout=20) == 1  # the other partition goes on
        for name, dump in kept.items():
            await redis.delete(name)
            if dump is not None:
                await redis.restore(name, 0, dump)
        assert (await handle.outcome(timeout=20)).outcome == ("failed" if kind == "failed" else "completed")
        assert await client.call(Box.put(NEAR), timeout=20) == 2
        assert len(await client.failed(Box)) == (kind == "failed")  # no innocent one was buried
        assert [e.outcome for e in await client.history(Box, "a")] == ["failed" if kind == "failed" else "completed"]
        for name in names:
            if "outcomes" in name:
                await redis.expire(name, 60)  # DUMP keeps no TTL


async def test_a_damaged_registry_is_said_and_the_work_goes_on(
    client: Client, redis: Redis, url: str, namespace: str, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with working(url, namespace, Box, beat_s=0.02):
        await redis.set(workers(namespace, "box"), "by hand")
        await wait_until(lambda: "registry of box's workers cannot be written" in caplog.text)
        assert await client.call(Box.put("a"), timeout=20) == 1
        await redis.delete(workers(namespace, "box"))

        async def known() -> bool:
            return bool(await redis.exists(workers(namespace, "box")))

        await wait_until(known)


@pytest.mark.parametrize("damage", ["type", "graph", "partitions"])
async def test_a_damaged_config_is_one_sentence_for_who_comes(redis: Redis, url: str, namespace: str, damage: str) -> None:
    async with Client(url, namespace=namespace, machines=[Box]):
        pass
    name = config(namespace, "box")
    if damage == "type":
        await redis.delete(name)
        await redis.set(name, "by hand")
    else:
        await redis.hset(name, damage, "{by hand")
    for classes in ([Box], []):
        with pytest.raises(ServerError, match="box}:config"):
            async with Client(url, namespace=namespace, machines=classes) as client:
                await client.get("box", "a")
    if damage != "graph":  # which a worker writes anew when it starts
        with pytest.raises(ServerError, match="box}:config"):
            async with working(url, namespace, Box):
                pass


async def test_a_damaged_list_of_machines(redis: Redis, url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace, machines=[Box]) as client:
        await redis.delete(machines(namespace))
        await redis.set(machines(namespace), "by hand")
        async with working(url, namespace, Box):
            assert await client.call(Box.put("a"), timeout=20) == 1
        with pytest.raises(StatemqError, match="WRONGTYPE"):
            await client.machines()


async def test_another_count_of_partitions_and_a_newer_schema_are_refused(redis: Redis, url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace, machines=[Box]):
        pass
    await redis.hset(config(namespace, "box"), "partitions", 3)
    with pytest.raises(StatemqError, match="box is declared with 2 partitions but was created with 3; declare partitions=3"):
        async with working(url, namespace, Box):
            pass
    await redis.hset(config(namespace, "box"), mapping={"partitions": 2, "schema": 99, "graph": encode({})})
    with pytest.raises(StatemqError, match="was written by a newer statemq"):
        async with working(url, namespace, Box):
            pass


@pytest.mark.parametrize("log", ["history", "failed"])
async def test_a_log_whose_ids_are_used_up_halts_its_partition_by_name(
    url: str, namespace: str, client: Client, redis: Redis, part: PartitionKeys, told: list[str], log: str
) -> None:
    """An entry of the far future, added by hand: the log takes no other."""
    name = getattr(part, log)
    box.gate = asyncio.Event()
    box.gate.set()
    async with working(url, namespace, Box):
        await redis.xadd(name, {"by": "hand"}, id="18446744073709551615-18446744073709551615")
        command = await client.send(Box.gated("a", then="fail"))
        await wait_until(lambda: any(f"is halted, a key of it is damaged: {name} has used up its entry ids" in text for text in told))
        await redis.rename(name, f"{namespace}-aside")
        assert (await command.outcome(timeout=20)).outcome == "failed"
    await redis.delete(f"{namespace}-aside")
