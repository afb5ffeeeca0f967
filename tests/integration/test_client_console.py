"""Seeing and operating, against a real server and a worker that does as it is told."""

from __future__ import annotations

import asyncio

import pytest

from statemq import Cancelled, Client, Failed, Machine, StatemqError, Unknown, UsageError
from statemq.errors import InvalidArguments, InvalidKey, UnknownTransition
from statemq.store.commands import LOOK, Queued, to_element
from statemq.store.declare import declare
from statemq.store.lease import beat
from statemq.store.router import Router
from tests.fake_worker import FakeWorker
from tests.integration.door import Data, Door

pytestmark = pytest.mark.leaves_work  # nobody reads the looks that these leave behind


async def looks(fake: FakeWorker, key: str) -> list[str]:
    """For which keys (or, empty, timers) somebody left a look in the key's partition."""
    part = await fake.part(key)
    rows = await fake.router.call(part.lease, "XRANGE", part.commands, "-", "+")
    entries = [dict(zip(raw[::2], raw[1::2], strict=True)) for _, raw in rows]
    return [e[b"key"].decode() for e in entries if e[b"transition"] == LOOK.encode()]


async def park(fake: FakeWorker, key: str) -> str:
    """The key's first command lies in its inbox and may run; its id."""
    command = await fake.start(key)
    _, fence = await fake.own(key)
    assert await fence.answer(fence.park({key: [command]}, {key: True})) == [b"done"]
    return command.id


async def test_an_untouched_instance(client: Client) -> None:
    got = await client.get(Door, "a")
    assert (got.state, got.version, got.exists, got.data) == ("SHUT", 0, False, Data(width=0))
    assert await client.list(Door) == []
    assert (await client.get("door", "a")).data == {"width": 0}, "by name it is JSON"


async def test_data_that_does_not_fit_the_class_that_is_given(client: Client, router: Router, namespace: str) -> None:
    part = (await client._find(Door)).partition("a")
    for data, state in ((b'{"width": "wide"}', b"OPEN"), (b"{", b"OPEN"), (b'{"width": 7, "other": 1}', b"AJAR")):
        await router.call(part.lease, "HSET", part.instance("a"), "data", data, "state", state, "version", 1)
        if state == b"OPEN":
            with pytest.raises(
                StatemqError, match=r'door/a: the stored data does not fit Data: .*; client\.get\("door", key\) gives it as it is stored'
            ):
                await client.get(Door, "a")
        else:
            assert (await client.get(Door, "a")).data == Data(7), "what the class does not know is left out"
    assert (await client.get("door", "a")).data == {"width": 7, "other": 1}


async def test_a_committed_instance_is_seen_everywhere(client: Client, fake: FakeWorker) -> None:
    calling = asyncio.ensure_future(client.call(Door.open("a"), timeout=20))
    await fake.complete("a", "a is open", state="OPEN")
    await calling
    got = await client.get("door", "a")
    assert (got.state, got.version, got.exists, got.paused, got.visit) == ("OPEN", 1, True, False, 1)
    (listed,) = await client.list(Door, state="OPEN")
    assert (listed.key, listed.state, listed.since, got.entered) == ("a", "OPEN", got.updated, got.updated)
    assert await client.list(Door, older="1h") == []
    assert await client.list(Door, state="SHUT") == []
    with pytest.raises(UnknownTransition, match='door has no state "AJAR"'):
        await client.list(Door, state="AJAR")
    (entry,) = await client.history(Door, "a")
    assert (entry.outcome, entry.target, entry.version, entry.worker) == ("completed", "OPEN", 1, fake.name)
    assert await client.history(Door) == [entry]
    assert await client.history(Door, "b") == []
    (info,) = await client.machines()
    assert (info.name, info.partitions, info.initial, info.states) == ("door", 4, "SHUT", ["SHUT", "OPEN"])
    assert (info.transitions, info.queries, info.in_state) == (["open", "shut"], ["lies", "infinite", "passes"], {"SHUT": 0, "OPEN": 1})


async def test_lists_are_merged_over_partitions_and_cut(client: Client, fake: FakeWorker) -> None:
    await client.send_many(Door.open(f"k{n}") for n in range(12))
    for n in range(12):
        await fake.complete(f"k{n}", "open", state="OPEN")
    listed, entries = await client.list(Door), await client.history(Door)
    assert {row.key for row in listed} == {entry.key for entry in entries} == {f"k{n}" for n in range(12)}
    assert [row.since for row in listed] == sorted(row.since for row in listed)
    assert await client.list(Door, limit=5) == listed[:5]
    assert await client.history(Door, limit=5) == entries[-5:]


async def test_a_query_runs_on_what_is_committed(client: Client, url: str, namespace: str, fake: FakeWorker) -> None:
    assert await client.query(Door, "a", "passes", {"width": 0}) is False
    assert await client.query(Door.passes("a", width=0)) is False
    with pytest.raises(InvalidArguments):
        Door.passes("a", width="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidKey):
        Door.passes("", width=1)
    await client.send(Door.open("a"))
    await fake.complete("a", "", state="OPEN")
    assert await client.query("door", "a", "passes", {"width": 0}) is True
    with pytest.raises(InvalidArguments):
        await client.query(Door, "a", "passes", {"width": "x"})
    with pytest.raises(UnknownTransition, match='door has no query "fits"'):
        await client.query(Door, "a", "fits")
    async with Client(url, namespace=namespace) as by_name:
        with pytest.raises(UsageError, match="a query runs where the class is"):
            await by_name.query("door", "a", "passes", {"width": 0})


async def test_can_asks_guards_where_it_has_them(client: Client, url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace) as by_name:
        for asking in (client, by_name):
            shut = await asking.can("door", "a", "shut")
            assert (shut.allowed, shut.reason, shut.state, shut.transitions) == (False, "door/a is SHUT; shut needs OPEN", "SHUT", ["open"])
        stuck = await client.can("door", "a", "open", {"width": 200})
        assert (stuck.allowed, stuck.reason, stuck.guards) == (False, "the door is stuck", True)
        unasked = await by_name.can("door", "a", "open", {"width": 200})
        assert (unasked.allowed, unasked.guards) == (True, False)
        with pytest.raises(UnknownTransition):
            await client.can(Door, "a", "close")


async def test_show_and_queue_follow_a_command(client: Client, fake: FakeWorker, router: Router) -> None:
    first = await client.send(Door.open("a", width=2))
    second = await client.send(Door.shut("a"))
    status = await first.status()
    assert (status.status, status.key, status.transition, status.args) == ("queued", "a", "open", {"width": 2})
    await fake.start("a")
    steps = (await fake.part("a")).steps(first.id)
    await router.call(steps, "HSET", steps, "measure", '{"result":7,"at":1,"took_ms":2}', "saw", '{"error":{"type":"E","reason":"r"}}')
    status = await first.status()
    assert (status.status, status.worker) == ("running", fake.name)
    assert {(s.name, s.result, s.error, s.took_ms) for s in status.steps} == {("measure", 7, "", 2), ("saw", None, "E: r", 0)}
    assert [(q.id, q.status, q.where) for q in await client.queue(Door, "a")] == [
        (first.id, "running", "stream"),
        (second.id, "queued", "stream"),
    ]
    await router.call(steps, "HSET", steps, "@attempts", 2, "@error", "ValueError: boom")
    assert [(q.attempts, q.error) for q in await client.queue(Door, "a")] == [(2, "ValueError: boom"), (0, "")]
    await router.call(steps, "DEL", steps)
    await router.call(steps, "SET", steps, "by hand")
    (row, _) = await client.queue(Door, "a")
    assert (row.id, row.error[:28]) == (first.id, "its journal cannot be read: ")
    await router.call(steps, "DEL", steps)
    await fake.complete("a", "done")
    status = await first.status()
    assert (status.status, status.transition) == ("completed", "open")
    assert status.outcome is not None
    assert await park(fake, "a") == second.id
    assert [(q.id, q.status, q.where, q.transition) for q in await client.queue(Door)] == [(second.id, "queued", "inbox", "shut")]
    steps = (await fake.part("a")).steps(second.id)
    # what failed for good and holds up its key has neither a timer nor an owner
    await router.call(steps, "HSET", steps, "@attempts", 3, "@error", "ValueError: no money")
    assert [(q.status, q.attempts, q.error) for q in await client.queue(Door)] == [("queued", 3, "ValueError: no money")]
    await router.call(steps, "DEL", steps)
    await router.call(steps, "SET", steps, "by hand")
    assert [q.error[:28] for q in await client.queue(Door, "a")] == ["its journal cannot be read: "]
    await router.call(steps, "DEL", steps)
    assert (await second.status()).transition == "shut"
    with pytest.raises(Unknown):
        await client.show("door.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12")


async def test_partitions_and_workers(client: Client, fake: FakeWorker, router: Router, namespace: str) -> None:
    await client.send_many([Door.open("a"), Door.open("a")])
    await fake.start("a")
    await beat(router, namespace, "door", fake.name, b'{"host":"here","pid":7,"started":5,"concurrency":3}')
    number = (await fake.part("a")).number
    owned = (await client.partitions(Door))[number]
    assert (owned.owner, owned.waiting, owned.stream, owned.running) == (fake.name, 2, 2, 1)
    assert 0 < owned.lease_left_ms <= 60_000
    (worker,) = await client.workers(Door)
    assert (worker.id, worker.host, worker.pid, worker.live, worker.partitions) == (fake.name, "here", 7, True, [number])
    assert await client.live_workers("door") == 1
    assert (await client.machines())[0].workers == 1


async def test_cancel_of_a_queued_command(client: Client, fake: FakeWorker) -> None:
    handle = await client.send(Door.open("a"))
    waiting = asyncio.ensure_future(handle.result(timeout=20))
    assert await client.cancel(handle.id) == "cancelled"
    with pytest.raises(Cancelled) as caught:
        await waiting
    assert (caught.value.key, caught.value.transition, caught.value.reason) == ("a", "open", "cancelled on request")
    assert await fake.queued("a") == []
    assert await handle.cancel() == "cancelled"
    assert "a" in await looks(fake, "a")


async def test_cancel_of_a_delayed_command(client: Client, fake: FakeWorker) -> None:
    handle = await client.send(Door.open("a"), delay=3600)
    status = await handle.status()
    assert (status.status, status.key, status.transition) == ("delayed", "a", "open")
    assert status.due > 0
    assert [(q.id, q.where, q.due) for q in await client.queue(Door, "a")] == [(handle.id, "timer", status.due)]
    assert await handle.cancel() == "cancelled"
    assert await client.queue(Door) == []
    with pytest.raises(Cancelled):
        await handle.result(timeout=20)


async def test_cancel_of_one_that_has_begun_is_asked(client: Client, fake: FakeWorker, router: Router) -> None:
    handle = await client.send(Door.open("a"))
    steps = (await fake.part("a")).steps(handle.id)
    await router.call(steps, "HSET", steps, "allocate", "1")
    assert await handle.cancel() == "asked"
    assert (await handle.status()).cancel_asked
    await router.call(steps, "DEL", steps)
    await fake.complete("a", "done anyway")
    assert await handle.cancel() == "ended"
    with pytest.raises(Unknown):
        await client.cancel("door.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12")
    with pytest.raises(UsageError, match="is no command id"):
        await client.cancel("nonsense")
    with pytest.raises(UsageError, match=r"a handle has it as handle\.id"):
        await client.cancel(handle)  # type: ignore[arg-type]


async def test_pause_and_resume_of_an_instance(client: Client, fake: FakeWorker, router: Router) -> None:
    await client.send(Door.open("a"))
    id = await park(fake, "a")
    part = await fake.part("a")
    await router.call(part.lease, "HSET", part.steps(id), "@attempts", "20", "@error", "E")
    await client.pause(Door, "a")
    assert (await client.get(Door, "a")).paused
    assert not (await client.get(Door, "a")).exists
    assert await router.call(part.lease, "ZSCORE", part.ready, "a") is None
    await client.resume(Door, "a")
    assert not (await client.get(Door, "a")).paused
    assert await router.call(part.lease, "ZSCORE", part.ready, "a") is not None
    assert await router.call(part.lease, "HGETALL", part.steps(id)) in ([], [b"@mark", f"{fake.name} 0".encode()])
    assert await looks(fake, "a") == ["a"]


async def test_pause_and_resume_of_a_machine(client: Client, router: Router, namespace: str) -> None:
    heard: list[bytes] = []
    channel = f"{namespace}:{{door}}:news"

    async def subscribe(wire: object) -> None:
        await wire.hello(("SUBSCRIBE", channel))  # type: ignore[attr-defined]

    wire = router.own_wire(channel, timeout_s=5, greet=subscribe, on_push=lambda m: heard.append(m[2]))
    await wire.connected(5)
    await client.pause(Door)
    assert all(p.paused for p in await client.partitions(Door))
    assert (await client.machines())[0].paused
    await client.resume(Door)
    assert not any(p.paused for p in await client.partitions(Door))
    await client.get(Door, "a")
    assert heard == [b"paused", b"resumed"]
    await router.release_wire(wire)


@pytest.mark.quick
async def test_dead_letters(client: Client, fake: FakeWorker, url: str, namespace: str) -> None:
    handles = await client.send_many([Door.open("a", width=3), Door.open("b"), Door.open("c")])
    for key in "abc":
        await fake.bury(key, "no luck")
    with pytest.raises(Failed, match="no luck"):
        await handles[0].result(timeout=20)
    letters = sorted(await client.failed(Door), key=lambda letter: letter.key)
    assert [(x.id, x.key, x.transition, x.reason, x.attempts) for x in letters] == [
        (h.id, k, "open", "no luck", 3) for h, k in zip(handles, "abc", strict=True)
    ]
    async with Client(url, namespace=namespace) as other:
        ids = await asyncio.gather(*(c.failed_retry("door", [letters[0].letter]) for c in (client, other)), return_exceptions=True)
    assert [c.args for c in await fake.queued("a")] == [b'{"width":3}'], "queued once, whoever retried"
    (queued,) = await fake.queued("a")
    assert [queued.id] in ids
    assert queued.id != handles[0].id
    with pytest.raises(UsageError, match="there is no dead letter"):
        await client.failed_retry(Door, [letters[0].letter])
    assert await client.failed_discard(Door, [letters[1].letter]) == 1
    assert await client.failed_discard(Door, [letters[1].letter]) == 0
    assert len(await client.failed_retry(Door)) == 1
    assert await client.failed(Door) == []
    with pytest.raises(UsageError, match="names no dead letter of door"):
        await client.failed_discard(Door, ["9/1-0"])
    for key in "ac":
        await fake.complete(key, "at last")


async def test_a_letter_that_was_no_command_is_only_discarded(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    await router.call(part.lease, "XADD", part.failed, "*", "reason", "garbage", "at", "1")
    await router.call(
        part.lease,
        "XADD",
        part.failed,
        "*",
        "reason",
        "x",
        "at",
        "2",
        "key",
        "a",
        "transition",
        "open",
        "id",
        "door.0.x",
        "args",
        '{"width":',
    )
    garbage, cut = await client.failed(Door)
    with pytest.raises(UsageError, match=r"cannot be retried: it was no command \(garbage\)"):
        await client.failed_retry(Door, [garbage.letter])
    with pytest.raises(UsageError, match="its arguments are no JSON; send the command anew"):
        await client.failed_retry(Door, [cut.letter])
    assert await client.failed_retry(Door) == []
    assert await client.failed_discard(Door) == 2


async def test_an_entry_put_in_by_hand_is_shown_as_it_is(client: Client, fake: FakeWorker, router: Router) -> None:
    part = await fake.part("a")
    await router.call(part.lease, "XADD", part.commands, "*", "key", "a", "transition", "open", "args", "{nonsense")
    (row,) = await client.queue(Door)
    assert (row.id, row.key, row.transition, row.args) == ("", "a", "open", "{nonsense")
    await router.call(part.lease, "RPUSH", part.inbox("a"), to_element(Queued("1-0", "forged", "a", "open", b"{}")), "garbage")
    assert await client.queue(Door, "a") == [row]


async def test_the_graph_is_the_one_declared_last(client: Client, url: str, namespace: str, router: Router) -> None:
    assert await client.graph(Door) == Door.spec.graph()
    async with Client(url, namespace=namespace) as by_name:
        with pytest.raises(UnknownTransition):
            await by_name.send("door", "a", "lock")
        graph = Door.spec.graph()
        graph["transitions"].append({"name": "lock", "source": ["SHUT"], "target": None, "guard": None, "doc": ""})
        await declare(router, namespace, "door", 4, graph, update=True)
        await by_name.send("door", "a", "lock")
        assert (await by_name.can("door", "a", "lock")).allowed


async def test_what_is_of_the_wrong_type_is_said_so(client: Client) -> None:
    for wrong, said in (
        (client.send(Door.open("a"), idempotency_key=5), "an idempotency key is a text, not 5"),
        (client.send(Door.open("a"), if_version="x"), "if_version is an instance's version, a whole number, not 'x'"),
        (client.send(Door.open("a"), delay=object()), "is no duration; give seconds"),
        (client.send("door", "a", "open", [1]), "arguments are names with values"),
        (client.get(Machine, "a"), "is no machine; give its class, or its name"),
        (client.list(Door, older="soon"), '"soon" is no duration'),
    ):
        with pytest.raises(UsageError, match=said):
            await wrong  # type: ignore[misc]


async def test_a_query_answers_what_it_declares_or_nothing(client: Client) -> None:
    assert await client.query(Door, "a", "passes", {"width": 1}) is False
    for name, said in (
        ("lies", "door.lies returned another type than declared"),
        ("infinite", "door.infinite returned what JSON cannot hold"),
    ):
        with pytest.raises(StatemqError, match=said):
            await client.query(Door, "a", name)
