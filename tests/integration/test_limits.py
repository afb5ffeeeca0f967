"""Each limit at one less, itself, and one more: refused by the library, by the append script, or buried by the worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from statemq import Client, Context, Machine, Retry, transition
from statemq.codec import command_id, encode, parse_command_id
from statemq.config import LIMITS, check_namespace, is_name
from statemq.errors import BacklogFull, InvalidArguments, InvalidKey, TooLarge, UsageError
from statemq.keys import PartitionKeys
from statemq.records import Outcome
from statemq.store.router import Router
from statemq.store.wire import ReplyError
from tests.waiting import wait_until
from tests.working import working

AROUND = [-1, 0, 1]


class Data(msgspec.Struct):
    kept: Any = None


class Jar(Machine[Data], initial="shut", retry=Retry(attempts=1), partitions=1):
    @transition(source="shut")
    def give(self, what: Any = None) -> int:
        return 1

    @transition(source="shut")
    def back(self, what: str) -> str:
        return what

    @transition(source="shut")
    def text_of(self, size: int) -> str:
        return "x" * (size - 2)

    @transition(source="shut")
    def nest(self, depth: int) -> Any:
        return nested(depth)

    @transition(source="shut")
    def keep(self, size: int = 0, depth: int = 0) -> int:
        self.data.kept = nested(depth) if depth else "x" * (size - len('{"kept":""}'))
        return 1

    @transition(source="shut")
    async def named(self, ctx: Context, name: str) -> int:
        return await ctx.step(name, len, name)

    @transition(source="shut")
    async def step_of(self, ctx: Context, size: int = 0, depth: int = 0) -> int:
        await ctx.step("big", lambda: nested(depth) if depth else "x" * (size - 2))
        return 1

    @transition(source="shut")
    async def steps(self, ctx: Context, count: int, size: int = 0) -> int:
        for n in range(count):
            await ctx.step(f"s{n}", lambda: "x" * size)
        return count

    @transition(source="shut")
    async def sleeps(self, ctx: Context, count: int) -> int:
        for _ in range(count):
            await ctx.sleep(0.001)
        return count


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Jar]) as opened:
        yield opened


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as opened:
        yield opened


@pytest.fixture
def part(client: Client, namespace: str) -> PartitionKeys:
    return PartitionKeys(namespace, "jar", 0)


# -- the library, before anything is sent ----------------------------------------------------------


@pytest.mark.parametrize("letter", ["k", "é"])
@pytest.mark.parametrize("by", AROUND)
def test_key(by: int, letter: str) -> None:
    size = LIMITS.key + by
    key = letter * (size // len(letter.encode())) + "k" * (size % len(letter.encode()))
    if by > 0:
        with pytest.raises(InvalidKey, match=f"a key has at most {LIMITS.key} bytes in UTF-8; this one has {size}"):
            Jar.give(key)
    else:
        assert Jar.give(key).key == key


@pytest.mark.parametrize("by", AROUND)
def test_names(by: int) -> None:
    assert is_name("n" * (LIMITS.name + by)) == (by <= 0)
    if by > 0:
        with pytest.raises(UsageError):
            check_namespace("n" * (LIMITS.name + by))
    else:
        check_namespace("n" * (LIMITS.name + by))


@pytest.mark.quick
@pytest.mark.leaves_work
@pytest.mark.parametrize("by", AROUND)
async def test_arguments(client: Client, by: int) -> None:
    what = "x" * (LIMITS.arguments + by - len('{"what":""}'))
    if by > 0:
        with pytest.raises(TooLarge, match=f"arguments has {LIMITS.arguments + by} bytes; the limit is {LIMITS.arguments}"):
            await client.send(Jar.give("a", what))
    else:
        await client.send(Jar.give("a", what))


@pytest.mark.leaves_work
@pytest.mark.parametrize("by", AROUND)
async def test_idempotency_key_and_trace(client: Client, by: int) -> None:
    own, traced = "i" * (LIMITS.idempotency_key + by), "t" * (LIMITS.field + by)
    if by > 0:
        with pytest.raises(TooLarge, match=f"idempotency key has {LIMITS.idempotency_key + by} bytes"):
            await client.send(Jar.give("a"), idempotency_key=own)
        with pytest.raises(TooLarge, match=f"trace has {LIMITS.field + by} bytes; the limit is {LIMITS.field}"):
            await client.send(Jar.give("a"), trace=traced)
    else:
        await client.send(Jar.give("a"), idempotency_key=own, trace=traced)


@pytest.mark.leaves_work
@pytest.mark.parametrize("by", AROUND)
async def test_delay(client: Client, by: int) -> None:
    delay = f"{LIMITS.delay_ms + by}ms"
    if by > 0:
        with pytest.raises(TooLarge, match=f"delay has {LIMITS.delay_ms + by} ms; the limit is {LIMITS.delay_ms}"):
            await client.send(Jar.give("a"), delay=delay)
    else:
        handle = await client.send(Jar.give("a"), delay=delay)
        assert (await handle.status()).due > LIMITS.delay_ms


@pytest.mark.parametrize("by", AROUND)
async def test_id_that_is_asked_for(client: Client, by: int) -> None:
    id = "jar.0." + "x" * (LIMITS.id + by - 6)
    if by > 0:
        with pytest.raises(UsageError, match="is no command id"):
            client.handle(id)
    else:
        assert parse_command_id(id) == ("jar", 0)
        assert client.handle(id).id == id


@pytest.mark.leaves_work
async def test_texts_that_are_no_unicode(client: Client) -> None:
    """One lone surrogate must not stop those that are sent with it."""
    with pytest.raises(UsageError, match="valid Unicode"):
        await client.send(Jar.give("a"), idempotency_key="\ud800")
    first = await client.send(Jar.give("a"), trace="\ud800")
    assert (await first.status()).status == "queued"


@pytest.mark.leaves_work
@pytest.mark.parametrize("by", AROUND)
async def test_depth_of_arguments(client: Client, by: int) -> None:
    what = nested(LIMITS.depth - 1 + by)  # one level is the object of the arguments
    if by > 0:
        with pytest.raises(InvalidArguments, match=f"nests {LIMITS.depth + by} levels deep; the limit is {LIMITS.depth}"):
            await client.send(Jar.give("a", what))
    else:
        await client.send(Jar.give("a", what))


@pytest.mark.leaves_work
async def test_depth_counts_no_brackets_in_texts_and_no_neighbours(client: Client) -> None:
    await client.send(Jar.give("a", ["[" * 500, '"[' * 500, "\\", [[] for _ in range(500)], {"{" * 200: '\\"['}]))


@pytest.mark.leaves_work
async def test_depth_without_the_class(client: Client, url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace) as stranger:
        await stranger.send("jar", "a", "give", {"what": nested(LIMITS.depth - 1)})
        with pytest.raises(InvalidArguments, match="levels deep"):
            await stranger.send("jar", "a", "give", {"what": nested(LIMITS.depth)})


@pytest.mark.leaves_work
@pytest.mark.parametrize("limit", [3])
async def test_backlog(client: Client, part: PartitionKeys, redis: Redis, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    small = msgspec.structs.replace(LIMITS, backlog=limit)
    monkeypatch.setattr("statemq.store.append.LIMITS", small)
    monkeypatch.setattr("statemq.store.draft.LIMITS", small)
    for _ in range(limit):
        await client.send(Jar.give("a"))
    for _ in range(2):
        with pytest.raises(BacklogFull, match=f"jar has {limit} commands waiting in partition 0"):
            await client.send(Jar.give("a"))
    assert await redis.xlen(part.commands) == limit


# -- the append script, for who skips the library --------------------------------------------------


class Hostile:
    """Calls the append script with what no library would send."""

    def __init__(self, router: Router, part: PartitionKeys, incarnation: str) -> None:
        self.router, self.part, self.incarnation = router, part, incarnation

    async def append(self, *commands: dict[str, Any], reply: str = "", once: tuple[str, ...] = (), limits: int = 10**9, n: int = -1) -> Any:
        p = self.part
        names = [p.commands, p.accepted, p.lease, p.outcomes_, p.timers, p.timers_data, *once]
        args = [self.incarnation, 10**9, 10**15, limits, limits, reply, len(commands) if n < 0 else n]
        args += [c["id"] for c in commands]
        args += [c[field] for c in commands for field in ("key", "transition", "args")]
        for place, c in enumerate(commands, 1):
            if c["delay"] != "" or c["digest"] or c["extras"]:
                args += [place, c["delay"], c["digest"], len(c["extras"]) // 2, *c["extras"]]
        said = await self.router.run("append", names, *args)
        return ["accepted"] * len(commands) if said == b"accepted" else [answer.decode() for answer in said]

    def command(self, **given: Any) -> dict[str, Any]:
        plain = {"id": command_id("jar", 0, 0), "key": "a", "transition": "give", "args": "{}"}
        return plain | {"delay": "", "digest": "", "extras": []} | given


@pytest.fixture
async def hostile(client: Client, router: Router, part: PartitionKeys, redis: Redis) -> Hostile:
    incarnation = await redis.hget(part.lease, "incarnation")
    assert incarnation is not None
    return Hostile(router, part, incarnation.decode())


FIELDS = [
    ("key", LIMITS.key),
    ("transition", LIMITS.name),
    ("args", LIMITS.arguments),
    ("id", LIMITS.id),
    ("if_state", LIMITS.field),
    ("trace", LIMITS.field),
    ("if_version", LIMITS.field),
    ("chain", LIMITS.field),
]


@pytest.mark.leaves_work
@pytest.mark.parametrize("by", AROUND)
@pytest.mark.parametrize(("field", "limit"), FIELDS)
async def test_fields_at_the_script(hostile: Hostile, redis: Redis, part: PartitionKeys, field: str, limit: int, by: int) -> None:
    text = "x" * (limit + by)
    given: dict[str, Any] = {field: text} if field in ("id", "key", "transition", "args") else {"extras": [field, text]}
    (said,) = await hostile.append(hostile.command(**given))
    if by > 0:
        assert said == f"large {'arguments' if field == 'args' else field} {limit + by}"
        assert (await redis.xlen(part.commands), await redis.hlen(part.accepted)) == (0, 0)
    else:
        assert said.startswith("accepted")


@pytest.mark.leaves_work
@pytest.mark.parametrize(
    ("delay", "said"),
    [
        (LIMITS.delay_ms - 1, "delayed"),
        (LIMITS.delay_ms, "delayed"),
        (LIMITS.delay_ms + 1, f"large delay {LIMITS.delay_ms + 1}"),
        ("1e300", "large delay"),
        ("inf", "large delay"),
        ("nan", "unfit delay"),
        ("-1", "unfit delay"),
        ("0.5", "unfit delay"),
        ("soon", "unfit delay"),
        ("0x10", "delayed"),
    ],
)
async def test_delays_at_the_script(hostile: Hostile, redis: Redis, part: PartitionKeys, delay: Any, said: str) -> None:
    good, odd = hostile.command(), hostile.command(delay=delay)
    answers = await hostile.append(good, odd)
    assert answers[0].startswith("accepted") and answers[1].startswith(said)
    assert await redis.hlen(part.accepted) == 2 + (said == "delayed") - (said != "delayed")  # a delay adds a look


@pytest.mark.parametrize("name", ["id", "key", "transition", "args", "reply", "once", "", "anything"])
async def test_a_further_field_is_one_of_those_known(hostile: Hostile, redis: Redis, part: PartitionKeys, name: str) -> None:
    """A second key or id in an entry would be read instead of the first one, which was checked."""
    assert await hostile.append(hostile.command(extras=[name, "x"])) == ["unfit field"]
    assert (await redis.xlen(part.commands), await redis.hlen(part.accepted)) == (0, 0)


@pytest.mark.parametrize("given", [{"id": ""}, {"key": ""}, {"transition": ""}, {"transition": "@look"}])
async def test_what_is_no_command_at_the_script(hostile: Hostile, redis: Redis, part: PartitionKeys, given: dict[str, str]) -> None:
    assert await hostile.append(hostile.command(**given)) == ["unfit command"]
    assert (await redis.xlen(part.commands), await redis.hlen(part.accepted)) == (0, 0)


async def test_digests_replies_and_idempotency_keys_at_the_script(hostile: Hostile, redis: Redis, part: PartitionKeys) -> None:
    once = part.once("a", "k")
    assert await hostile.append(hostile.command(digest="d" * (LIMITS.name + 1)), once=(once,)) == [f"large digest {LIMITS.name + 1}"]
    with pytest.raises(ReplyError, match="idempotency key is too long"):
        await hostile.append(hostile.command(digest="d"), once=(part.once_ + "x" * LIMITS.field,))
    with pytest.raises(ReplyError, match="a short reply"):
        await hostile.append(hostile.command(), reply="r" * (LIMITS.field + 1))
    assert (await redis.xlen(part.commands), await redis.hlen(part.accepted), await redis.exists(once)) == (0, 0, 0)


@pytest.mark.leaves_work
@pytest.mark.parametrize("by", AROUND)
async def test_batches_at_the_script(hostile: Hostile, redis: Redis, part: PartitionKeys, by: int) -> None:
    commands = [hostile.command() for _ in range(LIMITS.batch + by)]
    if by > 0:
        with pytest.raises(ReplyError, match=f"at most {LIMITS.batch} commands"):
            await hostile.append(*commands)
        assert await redis.xlen(part.commands) == 0
    else:
        assert len(await hostile.append(*commands)) == LIMITS.batch + by


@pytest.mark.parametrize("n", [0, 1, 3, 4, 128])
async def test_a_miscounted_batch_is_refused_whole(hostile: Hostile, redis: Redis, part: PartitionKeys, n: int) -> None:
    with pytest.raises(ReplyError):
        await hostile.append(hostile.command(), hostile.command(), n=n)
    assert (await redis.xlen(part.commands), await redis.hlen(part.accepted)) == (0, 0)


@pytest.mark.parametrize(
    "rest",
    [(1, "", "", -1), (1, "", "", -2), (1, "", "", -3), (1, "", "", 1), (1, "", "", "x"), (1, "", ""), ("x", "", "", 0), (1,), ("",)],
)
async def test_what_follows_a_batch_and_is_none_of_it(hostile: Hostile, redis: Redis, part: PartitionKeys, rest: tuple[Any, ...]) -> None:
    """Neither a torn batch nor a script that never ends."""
    whole = hostile.router.run

    def more(name: str, names: list[str], *args: Any) -> Any:
        return whole(name, names, *args, *rest)

    hostile.router.run = more  # type: ignore[method-assign]
    with pytest.raises(ReplyError):
        await hostile.append(hostile.command(), hostile.command())
    assert (await redis.xlen(part.commands), await redis.hlen(part.accepted)) == (0, 0)


@pytest.mark.leaves_work
async def test_the_caller_s_own_limits_lower_those_of_the_script(hostile: Hostile) -> None:
    assert await hostile.append(hostile.command(key="abcd"), limits=3) == ["large key 4"]


# -- the worker ------------------------------------------------------------------------------------


async def how(client: Client, command: Any) -> Outcome:
    return await (await client.send(command)).outcome(timeout=20)


@pytest.mark.parametrize("by", AROUND)
async def test_what_a_body_gives(client: Client, url: str, namespace: str, by: int) -> None:
    async with working(url, namespace, Jar):
        ended = [
            await how(client, Jar.text_of("a", LIMITS.result + by)),
            await how(client, Jar.keep("b", LIMITS.data + by)),
            await how(client, Jar.step_of("c", LIMITS.step + by)),
            await how(client, Jar.nest("d", LIMITS.depth + by)),
            await how(client, Jar.keep("e", depth=LIMITS.depth - 1 + by)),
            await how(client, Jar.step_of("f", depth=LIMITS.depth + by)),
            await how(client, Jar.named("g", "n" * (LIMITS.step_name + by))),
        ]
        if by <= 0:
            assert [outcome.outcome for outcome in ended] == ["completed"] * len(ended)
        else:
            assert [(outcome.outcome, outcome.code) for outcome in ended] == [
                ("failed", "too_large"),
                ("failed", "too_large"),
                ("failed", "too_large"),
                ("failed", "result"),
                ("failed", "data"),
                ("failed", "step_failed"),
                ("failed", "name"),
            ]
            assert f"has {LIMITS.result + by} bytes; the limit is {LIMITS.result}" in ended[0].reason
            assert f"has {LIMITS.data + by} bytes; the limit is {LIMITS.data}" in ended[1].reason
            assert f"has {LIMITS.step + by} bytes; the limit is {LIMITS.step}" in ended[2].reason
            assert all(f"nests {LIMITS.depth + by} levels deep" in outcome.reason for outcome in ended[3:6])
            assert f"1 to {LIMITS.step_name} bytes" in ended[6].reason
            assert (await client.get(Jar, "b")).version == 0


@pytest.mark.parametrize("by", AROUND)
async def test_records_of_a_journal(client: Client, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, by: int) -> None:
    limit = 8
    monkeypatch.setattr("statemq.worker.execute.LIMITS", msgspec.structs.replace(LIMITS, steps=limit))
    async with working(url, namespace, Jar):
        for command in (Jar.steps("a", limit + by), Jar.sleeps("b", limit + by)):
            outcome = await how(client, command)
            if by > 0:
                assert (outcome.outcome, outcome.code) == ("failed", "too_large")
                assert outcome.reason == f"the journal of {command.transition} has {limit + 1} records; the limit is {limit}"
            else:
                assert outcome.outcome == "completed", outcome.reason


async def test_bytes_of_a_journal(client: Client, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten records of 1,000 and some bytes: they fit a limit of 12,000 and no limit of 10,000."""
    async with working(url, namespace, Jar):
        for limit, ended in ((12_000, "completed"), (10_000, "failed")):
            monkeypatch.setattr("statemq.worker.execute.LIMITS", msgspec.structs.replace(LIMITS, journal=limit))
            outcome = await how(client, Jar.steps("a", 10, 1_000))
            assert outcome.outcome == ended
        assert outcome.code == "too_large" and f"bytes; the limit is {limit}" in outcome.reason


BY_HAND = [("key", LIMITS.key), ("transition", LIMITS.name), ("args", LIMITS.arguments), ("trace", LIMITS.field), ("id", LIMITS.id)]


@pytest.mark.parametrize("by", AROUND)
@pytest.mark.parametrize(("field", "limit"), BY_HAND)
async def test_entries_added_by_hand(
    client: Client, redis: Redis, part: PartitionKeys, url: str, namespace: str, field: str, limit: int, by: int
) -> None:
    text = "x" * (limit + by)
    if field == "args":
        text = encode({"what": "x" * (limit + by - len('{"what":""}'))}).decode()
    entry = {"key": "a", "transition": "give"} | {field: text}
    async with working(url, namespace, Jar, unknown_wait_s=0):
        await redis.xadd(part.commands, entry)  # type: ignore[arg-type]
        fits = by <= 0 and field in ("key", "args", "trace")
        if fits:
            await wait_until(lambda: client.history(Jar))
            assert [e.outcome for e in await client.history(Jar)] == ["completed"]
            return
        await wait_until(lambda: client.failed(Jar))
        ((_, letter),) = await redis.xrange(part.failed)
        reason = letter[b"reason"].decode()
        if by > 0:
            assert f"{limit + by} bytes; the limit is {limit}" in reason
        else:  # it was read, and is none of the machine's
            assert "no transition" in reason or "id is not its own" in reason
        assert sum(map(len, letter.values())) < 16_384
        assert await client.call(Jar.give("a"), timeout=20) == 1


async def test_depth_by_hand(client: Client, redis: Redis, part: PartitionKeys, url: str, namespace: str) -> None:
    async with working(url, namespace, Jar):
        for depth in (LIMITS.depth - 1, LIMITS.depth):
            await redis.xadd(part.commands, {"key": "a", "transition": "give", "args": encode({"what": nested(depth)})})
        await wait_until(lambda: client.failed(Jar))
        (letter,) = await client.failed(Jar)
        assert f"nests {LIMITS.depth + 1} levels deep; the limit is {LIMITS.depth}" in letter.reason
        assert await client.call(Jar.give("a"), timeout=20) == 1


async def test_an_accepted_id_that_no_worker_can_use_ends(
    client: Client, hostile: Hostile, redis: Redis, part: PartitionKeys, url: str, namespace: str
) -> None:
    id = "jar.0.two words"
    await hostile.append(hostile.command(id=id))
    async with working(url, namespace, Jar):
        await wait_until(lambda: client.failed(Jar))
        (letter,) = await client.failed(Jar)
        assert (letter.id, letter.reason) == (id, "the id has white space")
        (entry,) = await client.history(Jar)
        assert (entry.id, entry.outcome, entry.reason) == (id, "failed", letter.reason)
        assert await redis.hlen(part.accepted) == 0
