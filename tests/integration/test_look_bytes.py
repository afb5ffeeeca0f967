"""What a look reads of long arguments: few at a time, and no more than a bound in bytes, however much lies there."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from statemq import Client
from statemq.keys import PartitionKeys
from statemq.store.commands import Queued, to_element
from statemq.store.glance import LOOK_BYTES, journal_steps, parked_element
from statemq.store.router import Router
from tests.fake_worker import FakeWorker
from tests.integration.door import Door

pytestmark = pytest.mark.leaves_work

N = 100
ARGS = b'{"width":"%b"}' % (b"9" * 120_000)
BOUND = 2 * LOOK_BYTES
"""One look, and the pages that were on their way when it had read enough."""


async def sent(router: Router) -> int:
    """The bytes that the server has given in all."""
    stats = await router.home.call("INFO", "stats")
    return int(stats.partition(b"total_net_output_bytes:")[2].split()[0])


async def park(router: Router, part: PartitionKeys, key: str, ids: list[str]) -> None:
    for place, id in enumerate(ids, start=1):
        await router.call(part.lease, "RPUSH", part.inbox(key), to_element(Queued(f"{place}-0", id, key, "open", ARGS)))
        await router.call(part.lease, "HSET", part.accepted, id, f"@{place}-0 {key}")


async def test_of_one_keys_parked_commands(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    ids = [f"door.{part.number}.{i}" for i in range(N)]
    await park(router, part, "a", ids)
    before = await sent(router)
    rows = await client.queue(Door, "a")
    assert await sent(router) - before < BOUND
    assert [row.id for row in rows] == ids[: len(rows)] != []
    assert (await client.show(ids[0])).transition == "open"
    assert await sent(router) - before < 2 * BOUND
    for deep in (1, N // 3, N - 2, N - 1):
        before = await sent(router)
        assert (await client.show(ids[deep])).transition == "open"
        assert await sent(router) - before < BOUND, deep


async def test_a_parked_command_is_found_wherever_it_lies(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    for many in range(1, 20):
        await router.call(part.lease, "DEL", part.inbox("a"))
        ids = [f"door.{part.number}.{many}-{i}" for i in range(many)]
        await park(router, part, "a", ids)
        for place, id in enumerate(ids, start=1):
            found = await parked_element(router, part, "a", f"{place}-0", id)
            assert found is not None, (many, id)
            assert id.encode() in found
        for nowhere in ("0-1", "1-1", f"{many}-1", "x"):
            assert await parked_element(router, part, "a", nowhere, ids[0]) is None


async def test_a_parked_command_is_found_among_what_was_pushed_by_hand(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    ids = [f"door.{part.number}.{i}" for i in range(9)]
    await park(router, part, "a", ids)
    for garbage in ("garbage", "999999-0 x {}", "3-0 - ", ""):
        await router.call(part.lease, "LPUSH", part.inbox("a"), garbage)
    for place, id in enumerate(ids, start=1):
        assert await parked_element(router, part, "a", f"{place}-0", id) is not None, id


async def test_of_many_keys_parked_commands(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    for i in range(N):
        await park(router, part, f"k{i}", [f"door.{part.number}.{i}"])
    before = await sent(router)
    assert await client.queue(Door) != []
    assert await sent(router) - before < BOUND


async def test_of_a_stream(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    for i in range(N):
        id = f"door.{part.number}.{i}"
        await router.call(part.lease, "XADD", part.commands, "*", "id", id, "key", "a", "transition", "open", "args", ARGS)
    for key in (None, "a"):
        before = await sent(router)
        rows = await client.queue(Door, key)
        assert await sent(router) - before < BOUND
        assert [row.id for row in rows] == [f"door.{part.number}.{i}" for i in range(len(rows))] != []


async def test_of_delayed_commands(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    for i in range(N):
        id = f"door.{part.number}.{i}"
        kept = msgspec.json.encode(["id", id, "key", "a", "transition", "open", "args", ARGS.decode()])
        await router.call(part.lease, "ZADD", part.timers, 10**14 + i, id)
        await router.call(part.lease, "HSET", part.timers_data, id, kept)
        await router.call(part.lease, "HSET", part.accepted, id, "timer")
    before = await sent(router)
    rows = await client.queue(Door, "a")
    assert await sent(router) - before < BOUND
    assert [row.id for row in rows] == [f"door.{part.number}.{i}" for i in range(len(rows))] != []


async def test_short_ones_are_all_seen(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    for i in range(N):
        id = f"door.{part.number}.{i}"
        await router.call(part.lease, "XADD", part.commands, "*", "id", id, "key", "a", "transition", "open", "args", b"{}")
    assert len(await client.queue(Door, "a", limit=N)) == N


async def test_of_a_journal(client: Client, fake: FakeWorker, router: Router) -> None:
    handle = await client.send(Door.open("a"))
    steps = (await fake.part("a")).steps(handle.id)
    for i in range(N):
        await router.call(steps, "HSET", steps, f"step{i}", b'{"result":"%b"}' % (b"9" * 120_000))
    await router.call(steps, "HSET", steps, "@attempts", 2, "@error", "ValueError: boom", "@cancel", "1", "now@step0", "1")
    before = await sent(router)
    status = await handle.status()
    assert await sent(router) - before < BOUND
    assert (status.attempts, status.error, status.cancel_asked) == (2, "ValueError: boom", True)
    assert {step.name for step in status.steps} < {f"step{i}" for i in range(N)}
    assert status.steps != []


async def test_pages_with_nothing_in_them_make_the_next_no_longer() -> None:
    read = 0

    class Sparse:
        async def call(self, key: str, command: str, steps: str, cursor: bytes, word: str, count: int) -> list[Any]:
            nonlocal read
            page = int(cursor) + 1
            flat = [b"step", b"9" * 120_000] * count if page % 8 == 0 else []
            read += sum(map(len, flat))
            return [b"%d" % page, flat]

    await journal_steps(cast(Router, Sparse()), PartitionKeys("ns", "door", 0), "door.0.x")
    assert LOOK_BYTES <= read < BOUND


async def test_of_a_long_journal_of_short_steps_all_are_seen(client: Client, fake: FakeWorker, router: Router) -> None:
    handle = await client.send(Door.open("a"))
    steps = (await fake.part("a")).steps(handle.id)
    for i in range(1000):
        await router.call(steps, "HSET", steps, f"step{i}", b'{"result":1}')
    assert sorted(step.name for step in (await handle.status()).steps) == sorted(f"step{i}" for i in range(1000))


async def test_of_dead_letters(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    for i in range(N):
        id = f"door.{part.number}.{i}"
        await router.call(part.lease, "XADD", part.failed, "*", "id", id, "key", "a", "transition", "open", "args", ARGS, "at", i)
    before = await sent(router)
    found = await client.failed(Door, limit=2)
    assert await sent(router) - before < BOUND
    assert [letter.args for letter in found] == [ARGS.decode()] * 2
    assert len(await client.failed(Door, limit=N)) == N


async def test_of_behind_what_a_command_waits(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    await park(router, part, "a", [f"door.{part.number}.{i}" for i in range(N)])
    for key in ("b", "a"):
        for i in range(N):
            await router.call(part.lease, "XADD", part.commands, "*", "id", f"{key}{i}", "key", key, "transition", "open", "args", ARGS)
    before = await sent(router)
    assert (await client.can(Door, "a", "shut")).behind.startswith("open, which waits, too")
    assert await sent(router) - before < LOOK_BYTES
