"""Faults 27, 28, 37 to 49: what lies in Redis is not what the engine put there, or there is very much of it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from statemq import ANY, Client, Context, Failed, Machine, Pending, Retry, StatemqError, Unknown, transition
from statemq.config import LIMITS, OUTCOME_PERIOD_MS
from statemq.errors import IdempotencyConflict, InvalidArguments, StreamExhausted, TooLarge
from statemq.keys import PartitionKeys, partition_of
from statemq.store.draft import Draft
from statemq.worker import sweep
from tests.chaos.conftest import Report
from tests.faults.crew import Load, crew, goes_on, log_of
from tests.faults.tally import Log, Tally
from tests.waiting import wait_until

PARTITIONS = Tally.spec.partitions


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as opened:
        yield opened


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Tally]) as opened:
        yield opened


def part_of(namespace: str, key: str, machine: str = "tally", partitions: int = PARTITIONS) -> PartitionKeys:
    return PartitionKeys(namespace, machine, partition_of(key, partitions))


@pytest.mark.parametrize("how", ["destroy", "setid", "delconsumer"])
async def test_f27_the_group_is_changed_by_hand_under_load(client: Client, redis: Redis, url: str, namespace: str, how: str) -> None:
    parts = [PartitionKeys(namespace, "tally", p) for p in range(PARTITIONS)]
    async with crew(url, namespace) as workers:
        async with Load(client) as load:
            for _ in range(10):
                await load.more()
                for part in parts:
                    if not await redis.exists(part.commands):
                        continue
                    if how == "destroy":
                        await redis.xgroup_destroy(part.commands, "workers")
                    elif how == "setid" and await redis.xinfo_groups(part.commands):
                        await redis.xgroup_setid(part.commands, "workers", "0")
                    elif how == "delconsumer" and await redis.xinfo_groups(part.commands):
                        for worker in workers.workers:
                            await redis.xgroup_delconsumer(part.commands, "workers", worker.id)
        await load.judge(client)
        await goes_on(client, time.monotonic())


@pytest.mark.parametrize("how", ["XDEL", "XTRIM", "DEL"])
async def test_f28_entries_are_removed_by_hand_before_they_are_read(
    client: Client, redis: Redis, url: str, namespace: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both clients get an answer: the one whose entry is gone hears that, the next command runs."""
    monkeypatch.setattr(sweep, "EVERY_S", 0.2)
    part = part_of(namespace, "a")
    gone = await client.send(Tally.add("a", n=1))
    if how == "XDEL":
        await redis.xdel(part.commands, (await redis.hget(part.accepted, gone.id)).decode())
    elif how == "XTRIM":
        await redis.xtrim(part.commands, maxlen=0, approximate=False)
    else:
        await redis.delete(part.commands)
    follows = await client.send(Tally.add("a", n=2))
    async with crew(url, namespace, workers=1):
        assert await follows.result(timeout=30) == 2
        with pytest.raises(Failed, match="its entry was removed from the stream by hand"):
            await gone.result(timeout=30)
        assert await log_of(client, "a") == [2]
        await goes_on(client, time.monotonic())


NAMES = st.sampled_from(["id", "key", "transition", "args", "reply", "once", "trace", "chain", "if_state", "if_version", "v", "x"])
VALUES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda s: s.encode("utf-8", "surrogatepass")),
    st.sampled_from([b"a", b"add", b"step", b"@look", b"{}", b'{"n": 1}', b'{"n": 1e400}', b"[]", b"tally.0.x", b"0", b"-1", b"open"]),
)
ENTRIES = st.dictionaries(st.one_of(NAMES.map(str.encode), st.binary(max_size=12)), VALUES, min_size=1, max_size=8)
LIKELY = st.builds(
    lambda extra, key, name, args: {b"key": key, b"transition": name, b"args": args, **extra},
    ENTRIES, st.sampled_from([b"a", b"b", b"\xff", b""]), st.sampled_from([b"add", b"step", b"@look", b"fly"]), VALUES,
)  # fmt: skip


@pytest.mark.parametrize("entries", [300, pytest.param(10_000, marks=[pytest.mark.chaos, pytest.mark.timeout(600)])])
async def test_f37_generated_garbage(client: Client, redis: Redis, url: str, namespace: str, entries: int, report: Report) -> None:
    """Each entry becomes a command or a dead letter; none stays, none stops the worker, and the commands between them run."""
    parts = [PartitionKeys(namespace, "tally", p) for p in range(PARTITIONS)]
    made: list[dict[bytes, bytes]] = []

    @settings(max_examples=entries, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(ENTRIES, LIKELY))
    def generate(entry: dict[bytes, bytes]) -> None:
        made.append(entry)

    await asyncio.to_thread(generate)
    async with crew(url, namespace, unknown_wait_s=0) as workers:
        handles = []
        for n, entry in enumerate(made):
            await redis.xadd(parts[n % PARTITIONS].commands, entry)  # type: ignore[arg-type]
            if n % 10 == 0:
                handles.append(await client.send(Tally.add("sane", n=n)))
        assert [await handle.result(timeout=60) for handle in handles] == list(range(0, len(made), 10))

        async def drained() -> bool:
            return all([not await redis.xlen(part.commands) for part in parts])

        await wait_until(drained, 60)
        await goes_on(client, time.monotonic())
        assert await log_of(client, "sane") == list(range(0, len(made), 10))
        letters = [await redis.xlen(part.failed) for part in parts]
        assert workers.fine()
    report(f"{len(made)} generated entries by hand: {sum(letters)} dead letters, {len(handles)} commands between them completed in order")


async def test_f38_a_used_up_stream_is_said_and_made_anew(
    client: Client, redis: Redis, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids order, they are no clock: an entry of the far future runs like any other; after the last possible one nothing can be added.
    XSETID does not go back behind an id that was deleted, so the drained stream is deleted; nobody has to be restarted."""
    monkeypatch.setattr(sweep, "EVERY_S", 0.3)
    part = part_of(namespace, "a")
    async with crew(url, namespace):
        await redis.xadd(part.commands, {"key": "a", "transition": "add", "args": '{"n": 1}'}, id="9000000000000-0")
        await wait_until(lambda: has(client, "a", [1]))
        await client.call(Tally.add("a", n=2), timeout=30)
        await redis.xadd(part.commands, {"key": "a", "transition": "add", "args": '{"n": 3}'}, id=f"{2**64 - 1}-{2**64 - 1}")
        await wait_until(lambda: has(client, "a", [1, 2, 3]))
        with pytest.raises(StreamExhausted, match="doctor tally --repair"):
            await client.send(Tally.add("a", n=4))
        far = next(key for key in map(str, range(100)) if partition_of(key, PARTITIONS) != part.number)
        assert await client.call(Tally.add(far, n=1), timeout=30) == 1
        await wait_until(lambda: empty(redis, part))
        await redis.delete(part.commands)
        await client.call(Tally.add("a", n=4), timeout=30)  # its owner notices that what it gets now is older than what it has read
        assert await log_of(client, "a") == [1, 2, 3, 4]
        await goes_on(client, time.monotonic())


async def empty(redis: Redis, part: PartitionKeys) -> bool:
    return not await redis.xlen(part.commands)


async def has(client: Client, key: str, log: list[int]) -> bool:
    return await log_of(client, key) == log


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ODD = [
    float("nan"), float("inf"), -0.0, 9007199254740993, 2**64, -(2**64), 10**400, "\ud800", "\x00", "😀", [], {}, [[]] * 3, {"": {}}, 1e308,
    {str(n): n for n in range(10_000)},
]  # fmt: skip


class Echo(Machine[Log], initial="open", partitions=1, retry=Retry(attempts=1)):
    @transition(source=ANY)
    async def back(self, ctx: Context, value: Any) -> Any:
        return await ctx.step("one", lambda: value)


@pytest.mark.parametrize("values", [150, pytest.param(3_000, marks=[pytest.mark.chaos, pytest.mark.timeout(600)])])
async def test_f40_what_is_accepted_comes_back_equal(url: str, namespace: str, values: int) -> None:
    """Sent by names only, so that the schema checks it; through stream, journal and outcome. All else is refused by a typed error, at once
    or as the command's outcome."""
    made: list[Any] = list(ODD)
    deep: Any = 0
    for _ in range(10_000):
        deep = [deep]
    made.append(deep)

    @settings(max_examples=values, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(JSON)
    def generate(value: Any) -> None:
        made.append(value)

    await asyncio.to_thread(generate)
    async with crew(url, namespace, workers=1, machine=Echo), Client(url, namespace=namespace) as client:
        back = refused = 0
        for value in made:
            try:
                got = await client.call("echo", "a", "back", {"value": value}, timeout=30)
            except (InvalidArguments, Failed, StatemqError):
                refused += 1
                continue
            assert got == value and repr(got) == repr(value)
            back += 1
        assert back > values / 2
        assert refused >= 4
        assert await client.call("echo", "a", "back", {"value": 1}, timeout=30) == 1


async def test_f41_a_hostile_producer_is_refused_by_the_script(client: Client, redis: Redis, url: str, namespace: str) -> None:
    """Sizes are checked again by the append script, at the limit and one above."""
    await client.get(Tally, "a")
    appender, part = client._appender, part_of(namespace, "a")
    async with crew(url, namespace, workers=1):
        for size, fits in ((LIMITS.arguments - 1, True), (LIMITS.arguments, True), (LIMITS.arguments + 1, False)):
            args = b'{"n":1}' + b" " * (size - 7)
            draft = Draft(part, "a", "add", args, [], PARTITIONS)
            if fits:
                await client.handle((await appender.append(draft)).id).outcome(timeout=30)
            else:
                with pytest.raises(TooLarge, match="arguments"):
                    await appender.append(draft)
        long = next(
            key for n in range(1000) if partition_of(key := "k" * (LIMITS.key + 1 - len(str(n))) + str(n), PARTITIONS) == part.number
        )
        with pytest.raises(TooLarge, match="key"):
            await appender.append(Draft(part, long, "add", b'{"n":1}', [], PARTITIONS))


async def test_f42_f43_the_same_idempotency_key_in_every_state(client: Client, redis: Redis, url: str, namespace: str) -> None:
    """While it waits, after it completed, after it failed, after it was forgotten; and never for another request."""
    first = await client.send(Tally.add("a", n=1), idempotency_key="k")
    again = await client.send(Tally.add("a", n=1), idempotency_key="k")
    assert again.id == first.id
    with pytest.raises(IdempotencyConflict):
        await client.send(Tally.add("a", n=2), idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        await client.send(Tally.step("a", n=1), idempotency_key="k")
    async with crew(url, namespace, workers=1):
        assert await again.result(timeout=30) == 1
        stored = await client.send(Tally.add("a", n=1), idempotency_key="k")
        assert stored.id == first.id
        assert await stored.result(timeout=30) == 1
        with pytest.raises(IdempotencyConflict):
            await client.send(Tally.add("a", n=2), idempotency_key="k")
        bad = await client.send("tally", "a", "add", {"n": 10**6}, idempotency_key="bad")
        await bad.outcome(timeout=30)
        part = part_of(namespace, "a")
        assert await redis.ttl(part.once("a", "k")) > 23 * 3600
        await redis.delete(part.once("a", "k"))  # as after its 24 hours
        anew = await client.send(Tally.add("a", n=1), idempotency_key="k")
        assert anew.id != first.id
        assert await anew.result(timeout=30) == 1
        assert await log_of(client, "a") == [1, 10**6, 1]


class Fails(Machine[Log], initial="open", partitions=1, retry=Retry(attempts=1)):
    @transition(source=ANY)
    def fail(self, n: int) -> None:
        raise RuntimeError(f"number {n}")

    @transition(source=ANY)
    def ping(self) -> str:
        return self.key


@pytest.mark.quick
async def test_f43_the_same_command_again_after_it_failed_has_its_error(url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace, machines=[Fails]) as client, crew(url, namespace, workers=1, machine=Fails):
        for _ in range(2):
            with pytest.raises(Failed, match="number 7"):
                await client.call(Fails.fail("a", n=7), timeout=30, idempotency_key="k")
        assert len(await client.history(Fails)) == 1
        assert len(await client.failed(Fails)) == 1


async def test_f43_an_id_that_nobody_knows_is_unknown(client: Client) -> None:
    with pytest.raises(Unknown):
        await client.handle(f"tally.0.{uuid.uuid4().hex}").outcome(timeout=10)


@pytest.mark.quick
async def test_f44_a_command_of_a_transition_that_new_code_has_no_more(url: str, namespace: str) -> None:
    """Another version of the class, without ``old``: the command waits in its place, other keys go on; a worker with the old code runs it.
    Where nobody is to wait for one, it ends with an error that says so, and what follows it runs."""

    def version(with_old: bool) -> type[Any]:
        class Shop(Machine[Log], initial="open", partitions=1):
            if with_old:

                @transition(source=ANY)
                def old(self, n: int) -> int:
                    return n

            @transition(source=ANY)
            def ping(self) -> str:
                return self.key

        return Shop

    before, after = version(True), version(False)
    async with Client(url, namespace=namespace, machines=[before]) as client:
        old, next_ = await client.send(before.old("a", n=1)), await client.send(before.ping("a"))
        async with crew(url, namespace, workers=1, machine=after):
            assert await client.call(before.ping("b"), timeout=30) == "b"
            with pytest.raises(Pending):
                await next_.result(timeout=0.1)
        async with crew(url, namespace, workers=1, machine=before):
            assert (await old.result(timeout=30), await next_.result(timeout=30)) == (1, "a")
        old, next_ = await client.send(before.old("a", n=1)), await client.send(before.ping("a"))
        async with crew(url, namespace, workers=1, machine=after, unknown_wait_s=0):
            assert await next_.result(timeout=30) == "a"
            with pytest.raises(Failed, match='shop has no transition "old"'):
                await old.result(timeout=30)
            assert [letter.id for letter in await client.failed("shop")] == [old.id]  # an operator can retry it with the old code


class Stubborn(Machine[Log], initial="open", partitions=1, retry=Retry(attempts=1000, first=3600, jitter=0)):
    @transition(source=ANY)
    async def never(self, n: int) -> None:
        raise OSError("not now")

    @transition(source=ANY)
    def add(self, n: int) -> int:
        self.data.log.append(n)
        return n

    @transition(source=ANY)
    def ping(self) -> str:
        return self.key


@pytest.mark.leaves_work
async def test_f48_a_key_in_back_off_for_an_hour_holds_up_nobody(url: str, namespace: str) -> None:
    """What waits behind it leaves the window."""
    async with (
        Client(url, namespace=namespace, machines=[Stubborn]) as client,
        crew(url, namespace, workers=1, machine=Stubborn, window=64, read_ahead=8) as workers,
    ):
        await client.send(Stubborn.never("hot", n=0))
        behind = await client.send_many([Stubborn.add("hot", n=n) for n in range(2_000)])
        for n in range(50):
            assert await client.call(Stubborn.add("other", n=n), timeout=30) == n
        (partition,) = workers.workers[0].partitions.values()
        await wait_until(lambda: partition.held <= 64)
        await wait_until(lambda: partition.held <= 1 + 8)
        assert (await behind[-1].status()).status == "queued"


async def test_f45_a_backlog_is_worked_off_through_a_window(client: Client, url: str, namespace: str, report: Report) -> None:
    """However much waits, a worker holds its window of it and no more."""
    for _ in range(5):
        handles = await client.send_many([Tally.add(f"key {n % 500}", n=n) for n in range(1_000)])
    most = 0
    async with crew(url, namespace, workers=1, window=100) as workers:
        asking = asyncio.ensure_future(handles[-1].outcome(timeout=60))

        def looked() -> bool:
            nonlocal most
            most = max([most, *(p.held for p in workers.workers[0].partitions.values())])
            return asking.done()

        await wait_until(looked, 60)
        for handle in handles:
            assert (await handle.outcome(timeout=60)).outcome == "completed"
    assert most <= 100 + 128, most  # a read may bring a few more than there is room for
    report(f"a backlog of 5000: at most {most} in a window of 100")


@pytest.mark.parametrize("instances", [4_000, pytest.param(20_000, marks=pytest.mark.chaos)])
async def test_f46_a_takeover_asks_nothing_of_idle_instances(
    client: Client, redis: Redis, url: str, namespace: str, instances: int, report: Report
) -> None:
    """The calls of a worker's start do not grow with the number of instances, and an idle one is a small hash."""

    async def calls_of_a_start() -> int:
        before = (await redis.info("stats"))["total_commands_processed"]
        async with crew(url, namespace, workers=1):
            pass
        return int((await redis.info("stats"))["total_commands_processed"] - before)

    empty = await calls_of_a_start()
    async with redis.pipeline(transaction=False) as pipe:
        for n in range(instances):
            part = part_of(namespace, f"idle {n}")
            row = {"state": "open", "version": 1, "entered": 1, "data": '{"log":[1]}', "updated": 1_700_000_000_000}
            pipe.hset(part.instance(f"idle {n}"), mapping=row)  # type: ignore[arg-type]
            pipe.zadd(part.in_state("open"), {f"idle {n}": 1_700_000_000_000})
        await pipe.execute()
    full = await calls_of_a_start()
    size = await redis.memory_usage(part.instance(f"idle {instances - 1}"))
    assert full < empty + 200, f"{empty} calls without, {full} with {instances} instances"
    assert size < 400
    report(f"a worker's start: {empty} calls, with {instances} idle instances {full}; {size} B an instance")


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_f49_everything_of_a_busy_key_stays_bounded(client: Client, redis: Redis, url: str, namespace: str, report: Report) -> None:
    """20,000 commands of one key: what is kept of them is capped or has a TTL, and no more after the second half than after the first."""
    sizes = []
    async with crew(url, namespace, workers=1):
        for half in range(2):
            for _ in range(10):
                handles = await client.send_many([Tally.step("hot", n=0) for n in range(1_000)])
                await handles[-1].outcome(timeout=120)
            part = part_of(namespace, "hot")
            kinds: dict[str, int] = {}
            async for name in redis.scan_iter(f"{part.tag}:*", count=1000):
                kind = name.decode().removeprefix(part.tag).split(":")[1]
                if kind not in ("instance", "outcomes"):
                    kinds[kind] = kinds.get(kind, 0) + await redis.memory_usage(name)
                if kind == "outcomes":
                    assert 0 < await redis.pttl(name) <= 3 * OUTCOME_PERIOD_MS
            sizes.append(kinds)
            assert await redis.xlen(part.history) <= 10_000 + 200, half
    assert sum(sizes[1].values()) < 1.2 * sum(sizes[0].values()), sizes
    report(f"20000 commands of one key: {sizes[1]} B")


async def test_f14_workers_come_and_go(client: Client, redis: Redis, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing piles up: not in the registry, not in the groups, not among the leases."""
    monkeypatch.setattr(sweep, "EVERY_S", 0.3)
    monkeypatch.setattr(sweep, "GONE_MS", 100)
    parts = [PartitionKeys(namespace, "tally", p) for p in range(PARTITIONS)]
    async with crew(url, namespace, workers=1) as workers:
        async with Load(client) as load:
            for n in range(12):
                guest = workers.start(url, namespace, Tally)
                await wait_until(lambda guest=guest: guest.partitions, 30)  # type: ignore[misc]
                await load.more(6)
                wait = workers.tasks[-1]
                guest.kill() if n % 2 else guest.stop()
                await wait
                workers.workers.remove(guest)
                workers.tasks.remove(wait)
        await load.judge(client)

        async def bounded() -> bool:
            for part in parts:
                for group in await redis.xinfo_groups(part.commands) if await redis.exists(part.commands) else []:
                    if group["consumers"] > 2:
                        return False
            return len(await client.workers(Tally)) == 1

        await wait_until(bounded, 30)
        leases = [name async for name in redis.scan_iter(f"{namespace}:*:lease")]
        assert len(leases) == PARTITIONS
        await wait_until(lambda: workers.held == PARTITIONS)
