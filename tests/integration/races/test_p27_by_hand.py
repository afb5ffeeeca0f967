"""P27 by hand; P28 cancel of a queued command; P25 pause after burial; P33 small."""

from __future__ import annotations

from typing import Any

import pytest

from statemq.errors import Pending
from statemq.store import lease
from statemq.store.fence import Fence
from statemq.worker import sweep
from tests.integration.races.stage import NEVER, Gate, Stage, wake
from tests.waiting import wait_until


async def test_an_entry_without_an_id_is_adopted_once(play: Stage) -> None:
    """P27: XADD with key and transition is enough. It is adopted under an id made from its entry, in the accepted commands before
    it commits, also when its first owner dies in between."""
    entry = play.redis.xadd(play.part.commands, {"key": "a", "transition": "note", "args": '{"n":1}'})
    fence = await play.own("w1")
    [c] = play.queued_by_hand()
    assert c.id == f"probe.0.{entry}"
    assert await fence.answer(fence.adopt([c])) == [b"done", b"adopted"]
    assert play.redis.hget(play.part.accepted, c.id) == entry
    assert await fence.answer(fence.adopt([c])) == [b"done", b"adopted"]
    play.abandon()
    async with play.worker():
        assert await play.outcome(c.id) == "completed"
    assert play.log("a") == [1]


async def test_a_forged_id_is_buried_and_its_owner_s_command_is_not_touched(play: Stage) -> None:
    """P27: an entry by hand carries the id of a command that waits elsewhere in the queue. It becomes a dead letter; the real one
    runs once, and its accepted field stays until then."""
    async with play.worker() as worker:
        [partition] = worker.partitions.values()
        partition.draining = True
        [id] = await play.send("a", 1)
        play.redis.xadd(play.part.commands, {"id": id, "key": "a", "transition": "note", "args": '{"n":2}'})
        play.redis.xadd(play.part.commands, {"id": "probe.0.nobody", "key": "a", "transition": "note", "args": '{"n":3}'})
        partition.undrain()
        assert await play.outcome(id) == "completed"
        await wait_until(lambda: play.redis.xlen(play.part.failed) == 2)
    assert play.log("a") == [1]


@pytest.mark.leaves_work
async def test_no_script_removes_an_accepted_field_that_is_not_its_entry_s(play: Stage) -> None:
    """P27: whatever deals with a forged entry (commit, bury, park, postpone, drop, sweep) leaves the real command's field alone."""
    [id] = await play.send("a", 1)
    [real] = play.queued()
    forged = play.redis.xadd(play.part.commands, {"id": id, "key": "a", "transition": "note"})
    fence = await play.own()
    fake = play.queued()[1]
    assert fake.entry == forged
    other = play.redis.xadd(play.part.commands, {"id": id, "key": "a", "transition": "note"})
    copy = play.queued()[2]
    assert copy.entry == other
    assert await fence.answer(fence.bury(copy, b"{}", 1, "", ["id", id])) == b"garbage"
    assert play.redis.hget(play.part.accepted, id) == real.entry
    assert await play.committed(fence, play.ended(fake, 0, log=[2])) == ["gone"]
    assert await fence.answer(fence.park({"a": [fake]}, {"a": True})) == [b"done", forged.encode()]
    assert await fence.answer(fence.postpone(fake, [], [], due_ms=1, wake_data=b"{}")) == b"gone"
    assert await fence.answer(fence.drop([(forged, id)])) == b"done"
    assert await fence.answer(fence.sweep([(id, forged, b"{}")])) == [b"done"]
    assert await fence.answer(fence.bury(fake, b"{}", 1, "", ["id", id])) == b"gone"
    assert play.redis.hget(play.part.accepted, id) == real.entry
    assert [c.id for c in play.queued()] == [id]


async def test_a_command_whose_entry_was_deleted_ends_as_failed(play: Stage) -> None:
    """P27: XDEL by hand of a queued command: its client would wait for ever. The owner's sweep ends it; one that was parked between
    the two reads of the sweep is left alone."""
    [id] = await play.send("a", 1)
    play.redis.xdel(play.part.commands, play.queued()[0].entry)
    async with play.worker() as worker:
        [partition] = worker.partitions.values()
        await sweep._find_removed(partition, "0")
        outcome = await play.client.handle(id).outcome(timeout=10)
    assert outcome.outcome == "failed"
    assert "by hand" in outcome.reason


async def test_a_command_whose_inbox_or_timer_was_deleted_ends_as_failed(play: Stage, hooks: dict[str, Any]) -> None:
    """P27: DEL by hand of an inbox with a sleeping command and one behind it, and of the timers with a delayed one."""
    hooks["work"] = lambda self, ctx, n: ctx.sleep(NEVER / 1000)
    async with play.worker() as worker:
        [later] = await play.send("b", 1, delay=10_000)
        ids = await play.send("a", 1, 2, transition="work")
        await wait_until(lambda: play.inbox("a") == ids and play.redis.zscore(play.part.timers, ids[0]))
        [partition] = worker.partitions.values()
        await sweep._find_removed(partition, "0")
        assert play.redis.hlen(play.part.accepted) == 3
        play.redis.delete(play.part.inbox("a"), play.part.timers, play.part.timers_data)
        await sweep._find_removed(partition, "0")
        assert [await play.outcome(id) for id in (later, *ids)] == ["failed"] * 3


@pytest.mark.leaves_work
async def test_the_sweep_looks_again_before_it_ends_a_command(play: Stage) -> None:
    """P27: the sweep saw the field, then did not find the entry, because it was parked (or committed) in between: the script checks
    both again."""
    [id] = await play.send("a", 1)
    [c] = play.queued()
    fence = await play.own()
    await fence.answer(fence.park({"a": [c]}, {"a": True}))
    assert await fence.answer(fence.sweep([(id, c.entry, b"{}")])) == [b"done"]
    assert play.redis.hget(play.part.accepted, id) == f"@{c.entry} a"


async def test_a_forwarded_entry_arrives_once(play: Stage) -> None:
    """P27: an entry by hand in the wrong partition is forwarded; the forwarder dies before it has dropped it, and its heir forwards
    it again: the target has seen it."""
    fields = ["id", "probe.0.1-5-1", "key", "a", "transition", "note", "args", '{"n":1}']
    names = [play.part.commands, play.part.accepted, play.part.received]
    for expected in (b"queued", b"seen"):
        assert await play.router.run("forward", names, "hand:1", "5-1", "probe.0.1-5-1", 4, *fields) == expected
    async with play.worker():
        assert await play.outcome("probe.0.1-5-1") == "completed"
    assert play.log("a") == [1]


async def test_a_cancelled_command_in_an_inbox_is_stepped_over(play: Stage, hooks: dict[str, Any]) -> None:
    """P28: e1 runs, e2 and e3 are parked, e2 is cancelled: that ends it at once, and takes it out of the list. e3 runs."""
    gate = Gate()
    hooks["work"] = lambda self, ctx, n: gate(n)
    async with play.worker(read_ahead=0):
        [one] = await play.send("a", 1, transition="work")
        await wait_until(lambda: gate.came)
        [two, three] = await play.send("a", 2, 3, transition="work")
        await wait_until(lambda: play.inbox("a") == [two, three])
        assert await play.client.cancel(two) == "cancelled"
        assert play.inbox("a") == [three]
        assert await play.client.cancel(two) == "cancelled"  # a resend
        gate.let_all()
        assert await play.outcome(three) == "completed"
        assert await play.outcome(two) == "cancelled"
    assert gate.came == [1, 3]
    assert one


async def test_a_cancelled_command_in_the_stream_does_not_run(play: Stage) -> None:
    """P28: it is gone from the stream with its outcome, in one script, though its owner may have read it already."""
    [id] = await play.send("a", 1)
    [c] = play.queued()
    fence = await play.own()
    assert await play.client.cancel(id) == "cancelled"
    assert play.queued() == []
    assert await play.committed(fence, play.ended(c, 0, log=[1])) == ["gone"]
    assert await play.outcome(id) == "cancelled"
    play.abandon()
    async with play.worker():
        await wait_until(lambda: play.redis.xlen(play.part.commands) == 0)
    assert play.log("a") == []


async def test_a_failed_command_stays_its_paused_key_s_head(strict: Stage, hooks: dict[str, Any]) -> None:
    """P25: with on_failure="pause" a command that has failed for good stays the head, its error in its journal; its client sees
    Pending with the error; nothing behind it runs. After the resume its attempts begin anew."""
    fail = True

    async def work(self: Any, ctx: Any, n: int) -> None:
        if n == 1 and fail:
            raise RuntimeError("no power")

    hooks["work"] = work
    async with strict.worker():
        [one, two] = await strict.send("a", 1, 2, transition="work")
        await wait_until(lambda: strict.redis.hget(strict.part.instance("a"), "paused") and strict.inbox("a") == [one, two])
        assert "no power" in strict.redis.hget(strict.part.steps(one), "@error")
        assert strict.redis.zscore(strict.part.ready, "a") is None
        assert strict.redis.xlen(strict.part.failed) == 0
        with pytest.raises(Pending, match="no power"):
            await strict.client.handle(one).result(timeout=0.05)
        fail = False
        await strict.client.resume("strict", "a")
        assert await strict.outcome(one) == await strict.outcome(two) == "completed"
    assert strict.log("a") == [1, 2]


async def test_a_due_delayed_command_is_queued_once(play: Stage) -> None:
    """P33: timer, stream and accepted field change in one fenced call; an answer that was lost, or a timer read twice, queues it once;
    one that was cancelled meanwhile does not come back."""
    [one, two] = [(await play.send("a", n, delay=10_000))[0] for n in (1, 2)]
    fence = await play.own()
    data = {id: play.redis.hget(play.part.timers_data, id) for id in (one, two)}
    assert await play.client.cancel(two) == "cancelled"
    play.redis.zadd(play.part.timers, {one: 1})
    fields = ["id", one, "key", "a", "transition", "note", "args", '{"n":1}']
    calls = [("command", one, "a", fields), ("command", two, "a", fields)]
    play.redis.zadd(play.part.timers, {two: 1})  # a timer that outlived its command, by whatever hand
    assert await fence.answer(fence.wake(calls)) == [b"done", b"queued", b"gone"]
    assert await fence.answer(fence.wake(calls)) == [b"done", b"gone", b"gone"]
    assert data[one]
    assert [c.id for c in play.queued()] == [one]
    assert play.redis.exists(play.part.timers, play.part.timers_data) == 0
    play.abandon()
    async with play.worker():
        assert await play.outcome(one) == "completed"


async def test_a_reply_channel_outside_the_namespace_is_not_published_to(play: Stage) -> None:
    """P33: an entry by hand names another namespace's channel, or another one's idempotency record: neither is used."""
    fields = {"key": "a", "transition": "note", "args": "{}", "reply": "other:reply:x", "once": "other:{probe:0}:once:1:a:k"}
    play.redis.xadd(play.part.commands, fields)
    [c] = play.queued_by_hand()
    assert (c.reply, c.once) == ("", "")
    async with play.worker():
        assert await play.outcome(c.id) == "completed"
    assert play.redis.exists("other:{probe:0}:once:1:a:k") == 0


async def test_the_registry_s_two_keys_are_trimmed_together(play: Stage) -> None:
    """P33: a worker that has been silent for long leaves the list and its details."""
    await lease.beat(play.router, play.namespace, "probe", "old", b"{}")
    name = f"{play.namespace}:{{probe}}:workers"
    play.redis.zadd(name, {"old": 1})
    await lease.beat(play.router, play.namespace, "probe", "new", b"{}")
    assert play.redis.zrange(name, 0, -1) == play.redis.hkeys(f"{name}:about") == ["new"]


async def test_a_life_sign_from_before_the_clock_was_set_back_is_none_when_it_is_there_again(play: Stage) -> None:
    """P5, P33: else a worker that died elsewhere before is left a share for seconds, an hour later."""
    name = f"{play.namespace}:{{probe}}:workers"
    for worker in ("dead", "ahead", "lives"):
        await lease.beat(play.router, play.namespace, "probe", worker, b"{}")
    now_ms = await lease.redis_now_ms(play.router)
    play.redis.zadd(name, {"dead": now_ms + 3_600_000, "ahead": now_ms + 1000})
    assert await lease.beat(play.router, play.namespace, "probe", "lives", b"{}") == ["lives", "ahead"]
    assert set(play.redis.zrange(name, 0, -1)) == {*play.redis.hkeys(f"{name}:about")} == {"lives", "ahead"}


@pytest.mark.leaves_work
async def test_a_postpone_of_a_cancelled_command_keeps_those_behind_it(play: Stage) -> None:
    """P28: e1 is cancelled while its postpone, which takes e2 along, is on its way: e1 is gone, e2 is a ready head."""
    [one, two] = await play.send("a", 1, 2)
    e1, e2 = play.queued()
    fence: Fence = await play.own()
    assert await play.client.cancel(one) == "cancelled"
    assert await fence.answer(fence.postpone(e1, [("@attempts", b"1")], [e2], due_ms=NEVER, wake_data=wake("a"))) == b"gone"
    assert play.inbox("a") == [two]
    assert play.redis.zscore(play.part.ready, "a") is not None
    assert play.redis.exists(play.part.timers, play.part.steps(one)) == 0


async def test_a_cancel_tells_only_this_namespace_s_clients(play: Stage) -> None:
    """P33: the same for a command that is cancelled while it waits; under a least-privilege rule it would raise half way."""
    fields = {
        "id": "probe.0.hand",
        "key": "a",
        "transition": "note",
        "args": "{}",
        "reply": "other:reply:x",
        "once": "other:{probe:0}:once:1:a:k",
    }
    entry = play.redis.xadd(play.part.commands, fields)
    play.redis.hset(play.part.accepted, "probe.0.hand", entry)
    with play.redis.pubsub() as heard:
        heard.subscribe("other:reply:x")
        heard.get_message(timeout=5)
        assert await play.client.cancel("probe.0.hand") == "cancelled"
        play.redis.publish("other:reply:x", "after")
        assert (heard.get_message(timeout=5) or {})["data"] == "after"
    assert play.redis.exists("other:{probe:0}:once:1:a:k") == 0
    async with play.worker():
        await wait_until(lambda: play.redis.xlen(play.part.commands) == 0)
