"""Commands and instances of another version of the class: they wait, in their place, for a worker whose code takes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from statemq import ANY, Cancelled, Client, Failed, Machine, Pending, Rejected, Retry, transition
from statemq.keys import PartitionKeys
from statemq.worker.partition import Partition
from tests.waiting import wait_until
from tests.working import working


class Data(msgspec.Struct):
    log: list[str] = []


class Old(Machine[Data], initial="on", partitions=1, name="acct"):
    @transition(source=ANY)
    def note(self, what: str) -> list[str]:
        self.data.log.append(what)
        return self.data.log


class Strict(Machine[Data], initial="on", partitions=1, name="acct", on_failure="pause"):
    @transition(source=ANY)
    def note(self, what: str) -> list[str]:
        self.data.log.append(what)
        return self.data.log


class New(Machine[Data], initial="on", partitions=1, name="acct"):
    @transition(source=ANY)
    def note(self, what: str, twice: bool = False) -> list[str]:
        self.data.log += [what] * (2 if twice else 1)
        return self.data.log

    @transition(source=ANY)
    def vat(self, id: str) -> list[str]:
        self.data.log.append(f"vat {id}")
        return self.data.log

    @transition(source="on", target="shut")
    def shut(self) -> None: ...


@pytest.fixture
async def client(url: str, namespace: str) -> Any:
    """A caller that is new already."""
    async with Client(url, namespace=namespace, machines=[New]) as opened:
        yield opened


@pytest.fixture
async def redis(url: str) -> Any:
    async with Redis.from_url(url, decode_responses=True) as opened:
        yield opened


def waits(client: Client, id: str) -> Callable[[], Awaitable[bool]]:
    async def so() -> bool:
        return (await client.show(id)).error.endswith("waits for a worker whose code takes it")

    return so


async def test_a_command_that_a_worker_does_not_know_waits_in_its_place(
    client: Client, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postponed = []
    postpone = Partition.postpone
    monkeypatch.setattr(Partition, "postpone", lambda p, c, *a, **more: postponed.append(c.id) or postpone(p, c, *a, **more))
    async with working(url, namespace, Old, concurrency=1):
        sent = [
            await client.send(command) for command in (New.note("a", "1"), New.vat("a", id="DE1"), New.note("a", "2"), New.vat("a", "3"))
        ]
        await wait_until(waits(client, sent[1].id))
        for n in range(50):  # other keys go on, and no slot is held
            assert len(await client.call(New.note("b", str(n)), timeout=20)) == n + 1
        status = await sent[1].status()
        assert (status.status, status.attempts) == ("waiting", 0)
        assert status.error == 'acct has no transition "vat"; it has: note; it waits for a worker whose code takes it'
        queue = await client.queue("acct", "a")
        assert [(row.id, row.status) for row in queue] == [(sent[1].id, "waiting"), (sent[2].id, "queued"), (sent[3].id, "queued")]
        assert queue[0].error == status.error
        assert queue[0].due == status.due > 0
        with pytest.raises(
            Pending, match=r'it still waits or runs; acct has no transition "vat"; .* waits for a worker whose code takes it'
        ):
            await sent[1].result(timeout=0.01)
        assert postponed == [sent[1].id], "it is not looked at again and again"
    async with working(url, namespace, New):
        assert await sent[3].result(timeout=20) == ["1", "vat DE1", "2", "vat 3"]
        assert await sent[1].result(timeout=20) == ["1", "vat DE1"]
        assert await client.failed("acct") == []


async def test_it_fails_when_no_worker_that_knows_it_has_come_and_many_do_not_add_up(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Old, unknown_wait_s=1.0):
        sent = [await client.send(New.vat("a", id=str(n))) for n in range(30)]
        last = await client.send(New.note("a", "after"))
        assert await last.result(timeout=25) == ["after"], "thirty seconds, if each waited anew"
        for handle in sent:
            with pytest.raises(Failed, match=r'no transition "vat"; it has: note \(no worker whose code takes it came within 1 s\)'):
                await handle.result(timeout=20)
        assert [letter.id for letter in await client.failed("acct")] == [handle.id for handle in sent]
    async with working(url, namespace, New):
        await client.failed_retry("acct")
        await wait_until(lambda: logged(client, 31))


async def logged(client: Client, n: int) -> bool:
    return len((await client.get("acct", "a")).data["log"]) == n


async def test_it_fails_at_once_where_that_is_set(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Old, unknown_wait_s=0):
        with pytest.raises(Failed, match=r'^[^(]*acct has no transition "vat"; it has: note$'):
            await client.call(New.vat("a", id="DE1"), timeout=20)


async def test_with_policy_pause_it_pauses_its_instance_when_its_time_is_up(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Strict, unknown_wait_s=0.2):
        vat, note = await client.send(New.vat("a", id="DE1")), await client.send(New.note("a", "behind"))
        await wait_until(lambda: paused(client))
        assert await client.failed("acct") == []
        assert "came within 200 ms" in (await vat.status()).error
    async with working(url, namespace, New):
        await client.resume("acct", "a")
        assert await note.result(timeout=20) == ["vat DE1", "behind"]


async def paused(client: Client) -> bool:
    return (await client.get("acct", "a")).paused


async def test_arguments_that_its_code_does_not_take_wait_too(client: Client, redis: Redis, url: str, namespace: str) -> None:
    """Those that a client has checked; whoever adds an entry by hand is told at once."""
    part = PartitionKeys(namespace, "acct", 0)
    async with working(url, namespace, Old):
        twice = await client.send(New.note("a", "x", twice=True))
        await wait_until(waits(client, twice.id))
        assert 'argument "twice" is unknown; it takes what' in (await twice.status()).error
        await redis.xadd(part.commands, {"key": "b", "transition": "note", "args": '{"what": 1}'})
        await wait_until(lambda: client.failed("acct"))
        (letter,) = await client.failed("acct")
        assert letter.reason == "acct.note: what: expected str, got int"
    async with working(url, namespace, New):
        assert await twice.result(timeout=20) == ["x", "x"]


async def test_a_name_that_no_version_can_have_is_a_dead_letter_at_once(client: Client, redis: Redis, url: str, namespace: str) -> None:
    part = PartitionKeys(namespace, "acct", 0)
    async with working(url, namespace, Old):
        await client.get("acct", "a")
        await redis.xadd(part.commands, {"key": "a", "transition": "no name"})
        typo = await redis.xadd(part.commands, {"key": "b", "transition": "noet", "args": '{"what": "x"}'})
        await wait_until(lambda: client.failed("acct"))
        assert [letter.key for letter in await client.failed("acct")] == ["a"]
        await wait_until(waits(client, f"acct.0.{typo}"))
        assert await client.cancel(f"acct.0.{typo}") == "asked"
        await wait_until(lambda: ended(client, f"acct.0.{typo}", "cancelled"))
        assert await client.call(New.note("b", "goes on"), timeout=20) == ["goes on"]


async def ended(client: Client, id: str, how: str) -> bool:
    return (await client.show(id)).status == how


async def test_the_wait_is_counted_over_a_takeover(client: Client, redis: Redis, url: str, namespace: str) -> None:
    part = PartitionKeys(namespace, "acct", 0)
    async with working(url, namespace, Old):
        vat = await client.send(New.vat("a", id="DE1"))
        await wait_until(waits(client, vat.id))
        since = await redis.hget(part.steps(vat.id), "@version")
    async with working(url, namespace, Old) as worker:
        await wait_until(lambda: all(p.caught_up for p in worker.partitions.values()))
        assert await client.call(New.note("b", "x"), timeout=20) == ["x"]
        await wait_until(waits(client, vat.id))
        assert await redis.hget(part.steps(vat.id), "@version") == since
    await redis.hset(part.steps(vat.id), "@version", int(since) - 700_000)
    async with working(url, namespace, Old):
        with pytest.raises(Failed, match="came within 10m"):
            await vat.result(timeout=20)


async def test_a_pause_and_a_resume_keep_it_waiting_for_another_version(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Old):
        vat = await client.send(New.vat("a", id="DE1"))
        await wait_until(waits(client, vat.id))
        await client.pause("acct", "a")
        note = await client.send(New.note("a", "behind"))
        await client.resume("acct", "a")
        await wait_until(waits(client, vat.id))
    async with working(url, namespace, New):
        assert await note.result(timeout=20) == ["vat DE1", "behind"]


async def test_a_command_that_its_code_knows_again_shows_no_more_that_it_waited(client: Client, url: str, namespace: str) -> None:
    class Slow(Machine[Data], initial="on", partitions=1, name="acct"):
        @transition(source=ANY)
        async def vat(self, ctx: Any, id: str) -> str:
            await ctx.sleep(3600)
            return id

    async with working(url, namespace, Old):
        vat = await client.send(New.vat("a", id="DE1"))
        await wait_until(waits(client, vat.id))
    async with working(url, namespace, Slow):

        async def sleeps() -> bool:
            status = await vat.status()
            return (status.status, status.error) == ("waiting", "") and any(step.name.startswith("sleep") for step in status.steps)

        await wait_until(sleeps)
    async with working(url, namespace, Old):  # back again: it begins to wait anew
        await client.resume("acct", "a")
        await vat.cancel()
        await wait_until(lambda: ended(client, vat.id, "cancelled"))


# -- instances ---------------------------------------------------------------------------------------


class Narrow(msgspec.Struct):
    log: list[int] = []


class Raising(msgspec.Struct):
    log: list[str] = []

    def __post_init__(self) -> None:
        if self.log[:1] == ["0"]:
            raise KeyError("unexpected")


class Bad(Machine[Narrow], initial="on", partitions=1, name="acct"):
    @transition(source=ANY)
    def note(self, what: str) -> None:
        self.data.log.append(1)


class Worse(Machine[Raising], initial="on", partitions=1, name="acct"):
    @transition(source=ANY)
    def note(self, what: str) -> None:
        self.data.log.append(what)


UNREADABLE = [
    (Bad, r"the stored data does not fit Narrow: log\[0\]: expected int, got str"),
    (Worse, "the stored data does not fit Raising: KeyError: 'unexpected'"),
    (Old, "acct/a is in state shut, which this version of acct does not declare"),
]


@pytest.mark.parametrize(("machine", "why"), UNREADABLE, ids=["data", "raising", "state"])
async def test_an_instance_that_its_code_cannot_read_is_paused_until_one_comes_that_can(
    client: Client, url: str, namespace: str, machine: type[Any], why: str
) -> None:
    async with working(url, namespace, New):
        await client.call(New.note("a", "0"))
        if machine is Old:
            await client.call(New.shut("a"))
    async with working(url, namespace, machine):
        sent = [await client.send(New.note("a", str(n)), if_state="on" if n == 3 and machine is Old else None) for n in range(1, 20)]
        await wait_until(lambda: paused(client))
        other = await client.send(New.note("b", "another"))
        assert (await other.outcome(timeout=20)).outcome == "completed"
        await wait_until(lambda: all_parked(client, 19))
        assert await client.failed("acct") == []
        assert [entry.id for entry in await client.history("acct", "a") if entry.outcome != "completed"] == []
        status, last = await sent[0].status(), await sent[-1].status()
        for shown in (status, last):
            assert shown.paused == "acct/a"
            assert why.replace("\\", "") in shown.error
        assert (await client.queue("acct", "a"))[0].error == status.error
        with pytest.raises(Pending, match=rf"acct/a is paused until a worker's code can read it: .*{why}"):
            await sent[-1].result(timeout=0.01)
        await client.resume("acct", "a")  # it cannot help: it is paused again, and nothing is lost
        await wait_until(lambda: paused(client))
    async with working(url, namespace, New):
        assert await sent[-1].result(timeout=20) == [str(n) for n in range(20) if n != 3 or machine is not Old]
        assert not (await client.get("acct", "a")).paused
        if machine is Old:
            with pytest.raises(Rejected, match="acct/a is shut, not on"):
                await sent[2].result(timeout=20)
    assert await client.failed("acct") == []


async def all_parked(client: Client, n: int) -> bool:
    rows = await client.queue("acct", "a")
    return len(rows) == n and all(row.where == "inbox" for row in rows)


async def test_a_pause_by_an_operator_outlasts_it(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, New):
        await client.call(New.note("a", "0"))
    async with working(url, namespace, Bad):
        note = await client.send(New.note("a", "1"))
        await wait_until(lambda: paused(client))
        await client.pause("acct", "a")
    async with working(url, namespace, New):
        await client.call(New.note("b", "x"), timeout=20)
        assert await paused(client)
        assert (await note.status()).status == "queued"
        await client.resume("acct", "a")
        assert await note.result(timeout=20) == ["0", "1"]


async def test_what_comes_when_all_that_waited_was_cancelled_is_found_too(client: Client, redis: Redis, url: str, namespace: str) -> None:
    part = PartitionKeys(namespace, "acct", 0)
    async with working(url, namespace, New):
        await client.call(New.note("a", "0"))
    async with working(url, namespace, Bad):
        first = await client.send(New.note("a", "1"))
        await wait_until(lambda: paused(client))
    async with working(url, namespace, New):
        assert await first.result(timeout=20) == ["0", "1"]
    await redis.hset(part.instance("a"), "paused", "@version nobody reads it")
    async with working(url, namespace, Bad):
        second = await client.send(New.note("a", "2"))
        await wait_until(lambda: all_parked(client, 1))
    async with working(url, namespace, New):
        assert await second.result(timeout=20) == ["0", "1", "2"]


class Shaky(New, name="acct", initial="on", partitions=1, retry=Retry(attempts=3, first=3600)):
    @transition(source=ANY)
    def vat(self, id: str) -> list[str]:
        raise ConnectionError("its code came, and failed")


async def test_who_was_tried_by_the_code_that_it_waited_for_waits_for_no_version_any_more(
    client: Client, redis: Redis, url: str, namespace: str
) -> None:
    part = PartitionKeys(namespace, "acct", 0)
    async with working(url, namespace, Old):
        sent = await client.send(New.vat("a", id="1"))
        await wait_until(waits(client, sent.id))
    await redis.hincrby(part.steps(sent.id), "@version", -590_000)  # nearly as long as it may
    async with working(url, namespace, Shaky):

        async def tried() -> bool:
            return (await sent.status()).error == "ConnectionError: its code came, and failed"

        await wait_until(tried)
        assert not await redis.hget(part.steps(sent.id), "@version")
        assert await redis.zcard(part.ready) == 0, "it waits for its time"
        with pytest.raises(Pending, match="its last attempt failed: ConnectionError"):
            await sent.result(timeout=0.01)
        await sent.cancel()
        with pytest.raises(Cancelled):
            await sent.result(timeout=20)


async def test_a_resume_finds_who_lost_the_owner_that_knew_it(client: Client, redis: Redis, url: str, namespace: str) -> None:
    """That owner had begun it and was killed; its timer is still that of its wait, ten minutes away."""
    part = PartitionKeys(namespace, "acct", 0)
    async with working(url, namespace, Old):
        sent = await client.send(New.vat("a", id="1"))
        await wait_until(waits(client, sent.id))
    await redis.hset(part.steps(sent.id), mapping={"@version": "", "@error": ""})
    for _ in range(3):  # and nobody looks meanwhile
        await client.pause("acct", "a")
        await client.resume("acct", "a")
    async with working(url, namespace, New):
        assert await sent.result(timeout=20) == ["vat 1"]


async def test_it_may_be_paused_and_resumed_again_before_anybody_looks(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Old):
        sent = await client.send(New.vat("a", id="1"))
        await wait_until(waits(client, sent.id))
    for _ in range(3):
        await client.pause("acct", "a")
        await client.resume("acct", "a")
    async with working(url, namespace, New):
        assert await sent.result(timeout=20) == ["vat 1"]


async def test_a_resume_is_for_who_is_the_head_when_it_comes(
    client: Client, redis: Redis, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = PartitionKeys(namespace, "acct", 0)
    async with working(url, namespace, Old):
        first, second = await client.send(New.vat("a", id="1")), await client.send(New.vat("a", id="2"))
        await wait_until(waits(client, first.id))
        await wait_until(lambda: all_parked(client, 2))
        await client.pause("acct", "a")
    head = await redis.lindex(part.inbox("a"), 0)
    call, looks = client._router.call, []

    def told_late(key: str, *words: Any) -> Any:
        if words[:1] == ("LINDEX",) and not looks:
            looks.append(words)
            return as_it_was()
        return call(key, *words)

    async def as_it_was() -> bytes:
        return str(head).replace(first.id, second.id).encode()

    monkeypatch.setattr(client._router, "call", told_late)
    await client.resume("acct", "a")
    async with working(url, namespace, New):
        assert await second.result(timeout=20) == ["vat 1", "vat 2"]
