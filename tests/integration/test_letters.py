"""Dead letters keep what a retry needs; one that cannot be retried is refused with a sentence and stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from statemq import Client, Fail, Failed, Machine, Rejected, events, transition
from statemq.errors import StreamExhausted, UsageError
from statemq.keys import PartitionKeys, partition_of
from statemq.records import DeadLetter
from statemq.store import fence, letters
from tests.faulty import FaultyProxy
from tests.working import working

broken = {"now": True}


class Sheet(msgspec.Struct):
    lines: int = 0


class Paper(Machine[Sheet], initial="empty", partitions=2):
    @transition(source=["empty", "full"], target="full")
    def fill(self, lines: list[str]) -> int:
        if broken["now"]:
            raise Fail("no ink")
        self.data.lines += len(lines)
        return sum(map(len, lines))

    @transition(source=["empty", "full"], target="full")
    def turn(self) -> None: ...


@pytest.fixture(autouse=True)
def _broken() -> None:
    broken["now"] = True


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as opened:
        yield opened


@pytest.fixture
async def paper(url: str, namespace: str) -> AsyncIterator[Client]:
    async with working(url, namespace, Paper), Client(url, namespace=namespace, machines=[Paper]) as client:
        yield client


def part_of(namespace: str, key: str) -> PartitionKeys:
    return PartitionKeys(namespace, "paper", partition_of(key, 2))


async def buried(client: Client, key: str, lines: list[str], **how: Any) -> DeadLetter:
    with pytest.raises(Failed, match="no ink"):
        await client.call(Paper.fill(key, lines=lines), timeout=20, **how)
    return next(letter for letter in reversed(await client.failed(Paper)) if letter.key == key)


@pytest.mark.parametrize("size", [1, 4096, 5000, 100_000])
async def test_a_retry_has_all_arguments(paper: Client, size: int) -> None:
    letter = await buried(paper, "a", ["x" * size, "é"])
    assert msgspec.json.decode(letter.args) == {"lines": ["x" * size, "é"]}
    broken["now"] = False
    (id,) = await paper.failed_retry(Paper, [letter.letter])
    assert await paper.handle(id).result(timeout=20) == size + 1
    assert await paper.failed(Paper) == []


@pytest.mark.quick
async def test_a_retry_has_the_command_s_conditions_and_trace(paper: Client, redis: Redis, namespace: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    state = await buried(paper, "a", ["x"], if_state="empty", trace=trace)
    version = await buried(paper, "b", ["x"], if_version=0)
    assert (state.if_state, state.trace, version.if_version) == ("empty", trace, "0")
    broken["now"] = False
    for key in "ab":
        await paper.call(Paper.turn(key), timeout=20)
    for letter in (state, version):
        (id,) = await paper.failed_retry(Paper, [letter.letter])
        with pytest.raises(Rejected):
            await paper.handle(id).result(timeout=20)
        assert (await paper.get(Paper, letter.key)).version == 1
    await paper.pause(Paper)
    broken["now"] = True
    held = await paper.send(Paper.fill("c", lines=[]), trace=trace)
    await paper.resume(Paper)
    assert (await held.outcome(timeout=20)).outcome == "failed"
    await paper.pause(Paper)
    (again,) = await paper.failed_retry(Paper)
    part = part_of(namespace, "c")
    waits = f"{await redis.xrange(part.commands)} {await redis.lrange(part.inbox('c'), 0, -1)}"  # it may have been parked already
    assert trace in waits
    broken["now"] = False
    await paper.resume(Paper)
    assert (await paper.handle(again).outcome(timeout=20)).outcome == "completed"


async def test_whoever_repeats_the_request_hears_of_the_retry(paper: Client) -> None:
    letter = await buried(paper, "a", ["x"], idempotency_key="order-7")
    with pytest.raises(Failed):
        await paper.call(Paper.fill("a", lines=["x"]), idempotency_key="order-7", timeout=20)
    broken["now"] = False
    (id,) = await paper.failed_retry(Paper, [letter.letter])
    again = await paper.send(Paper.fill("a", lines=["x"]), idempotency_key="order-7")
    assert again.id == id
    assert await again.result(timeout=20) == 1
    assert (await paper.send(Paper.fill("a", lines=["x"]), idempotency_key="order-7")).id == id
    assert (await paper.get(Paper, "a")).version == 1, "it was done once"


async def test_a_request_that_was_made_anew_is_not_retried(paper: Client, redis: Redis, namespace: str) -> None:
    """A day later its record is gone and the client has sent it again: a retry would do it twice."""
    letter = await buried(paper, "a", ["x"], idempotency_key="order-7")
    await redis.delete(part_of(namespace, "a").once("a", "order-7"))
    broken["now"] = False
    assert await paper.call(Paper.fill("a", lines=["x"]), idempotency_key="order-7", timeout=20) == 1
    with pytest.raises(UsageError, match=r"its idempotency key is command paper\.\d\.\w+'s by now"):
        await paper.failed_retry(Paper, [letter.letter])
    assert await paper.failed_retry(Paper) == []
    assert await paper.failed(Paper) == [letter]
    await redis.delete(part_of(namespace, "a").once("a", "order-7"))
    (id,) = await paper.failed_retry(Paper, [letter.letter])
    assert await paper.handle(id).result(timeout=20) == 1


LETTERS: list[tuple[dict[str, str | bytes], str]] = [
    ({"id": "paper.1.x", "key": "a", "transition": "fill", "args": "", "args_cut": '{"lines":["xx'}, "were cut by a former version"),
    ({"id": "paper.1.x", "key": "a", "transition": "turn", "reason": "the entry's id is not its own"}, "it holds no arguments"),
    ({"key": "a", "transition": "turn", "reason": "none"}, r"it was no command \(none\)"),
    ({"id": "paper.1.x", "key": "a", "transition": "fill", "args": b'{"lines":["\xff"]}'}, "no JSON"),
    ({"id": "paper.1.x", "key": "a", "transition": "fill", "args": '{"lines":'}, "no JSON"),
    ({"id": "paper.1.x", "key": "a", "transition": "fill", "args": "[" * 10_000 + "]" * 10_000}, "no JSON"),
    ({"id": "paper.1.x", "key": "a", "transition": "turn", "args": "[]"}, "no JSON object"),
    ({"id": "paper.1.x", "key": "a", "transition": "turn", "args": '{"x":"' + "x" * 131_072 + '"}'}, "more than the limit of 131072"),
]


@pytest.mark.parametrize(("letter", "why"), LETTERS, ids=range(len(LETTERS)))
async def test_what_cannot_be_retried_is_refused_and_stays(
    paper: Client, redis: Redis, namespace: str, letter: dict[Any, Any], why: str
) -> None:
    part = part_of(namespace, "a")
    fields = {name: value.replace("paper.1", f"paper.{part.number}") if isinstance(value, str) else value for name, value in letter.items()}
    await redis.xadd(part.failed, {"at": "1", **fields})
    good = await buried(paper, "b", ["x"])
    (stays,) = [found for found in await paper.failed(Paper) if found.letter != good.letter]
    with pytest.raises(UsageError, match=f"dead letter {stays.letter} cannot be retried: .*{why}"):
        await paper.failed_retry(Paper, [good.letter, stays.letter])
    assert len(await paper.failed(Paper)) == 2, "the good one was not retried behind the error's back"
    broken["now"] = False
    assert len(await paper.failed_retry(Paper)) == 1
    assert [found.letter for found in await paper.failed(Paper)] == [stays.letter]
    assert stays.unfit
    assert (await paper.get(Paper, "a")).version == 0


async def test_a_letter_of_the_former_version_that_is_whole_is_retried(paper: Client, redis: Redis, namespace: str) -> None:
    part = part_of(namespace, "a")
    whole = {"id": f"paper.{part.number}.x", "key": "a", "transition": "fill", "args": '{"lines":["abc"]}', "source": "1-0"}
    await redis.xadd(part.failed, {"at": "1", **whole})
    broken["now"] = False
    (id,) = await paper.failed_retry(Paper)
    assert await paper.handle(id).result(timeout=20) == 3


async def test_a_retry_whose_answer_is_lost_queues_once(paper: Client, proxy: FaultyProxy, namespace: str) -> None:
    letter = await buried(paper, "a", ["x"])
    broken["now"] = False
    async with Client(proxy.url, namespace=namespace) as shaky:
        await shaky.failed("paper")
        proxy.lose_reply("retry")
        (id,) = await shaky.failed_retry("paper", [letter.letter])
    assert sum(proxy.struck.values()) == 1
    assert await paper.handle(id).result(timeout=20) == 1
    assert (await paper.get(Paper, "a")).version == 1
    assert await paper.failed(Paper) == []


async def test_a_retry_that_cannot_be_queued_keeps_the_letter(paper: Client, redis: Redis, namespace: str) -> None:
    letter = await buried(paper, "a", ["x"])
    await paper.pause(Paper)
    part = part_of(namespace, "a")
    await redis.xadd(part.commands, {"transition": "@look", "key": ""}, id="18446744073709551615-18446744073709551615")
    with pytest.raises(StreamExhausted):
        await paper.failed_retry(Paper, [letter.letter])
    assert await paper.failed(Paper) == [letter]
    assert await redis.hlen(part.accepted) == 0


async def test_all_that_fails_again_is_retried_once(paper: Client) -> None:
    for n in range(3):
        await buried(paper, f"k{n}", ["x"])
    ids = await paper.failed_retry(Paper)
    assert len(ids) == 3
    for id in ids:
        assert (await paper.handle(id).outcome(timeout=20)).outcome == "failed"
    assert sorted(letter.id for letter in await paper.failed(Paper)) == sorted(ids)
    assert await paper.failed_discard(Paper) == 3


async def test_letters_are_listed_and_discarded_page_by_page(paper: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "PAGE", 2)
    handles = await paper.send_many([Paper.fill(f"k{n}", lines=[]) for n in range(11)])
    await asyncio.gather(*(handle.outcome(timeout=20) for handle in handles))
    found = await paper.failed(Paper)
    assert sorted(letter.key for letter in found) == sorted(f"k{n}" for n in range(11))
    assert [letter.at for letter in found] == sorted(letter.at for letter in found)
    assert await paper.failed(Paper, limit=5) == found[:5]
    assert await paper.failed_discard(Paper) == 11
    assert await paper.failed(Paper) == []


async def test_letters_are_bounded_in_bytes_and_the_worker_says_what_went(
    paper: Client, redis: Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "FAILED_BYTES", 1_000_000)
    said: list[str] = []
    events.listeners.append(listen := lambda event: said.append(event.text) if isinstance(event, events.Warned) else None)
    try:
        for n in range(30):
            await buried(paper, "a", ["x" * (1_000 if n < 10 else 100_000), str(n)])
        stream = part_of(namespace, "a").failed
        assert await redis.memory_usage(stream, samples=0) <= 1_000_000
        kept = [msgspec.json.decode(letter.args)["lines"][1] for letter in await paper.failed(Paper)]
        assert kept == [str(n) for n in range(30 - len(kept), 30)], "the oldest went"
        assert len(kept) >= 6
        assert any("of its oldest dead letters had to go" in text for text in said)
    finally:
        events.listeners.remove(listen)
