"""P2 Numbered calls: expected, apply; lower or equal, a resend; higher, the store was rewound."""

from __future__ import annotations

import pytest

from statemq.store.commit import words
from statemq.store.fence import Fence, Rewound
from statemq.store.router import Router
from tests.faulty import FaultyProxy
from tests.integration.races.stage import Stage
from tests.waiting import wait_until


@pytest.mark.parametrize("call", ["start", "record", "park", "postpone", "commit", "bury", "drop"])
@pytest.mark.parametrize("fault", ["lose_reply", "lose_request"])
async def test_a_call_whose_answer_was_lost_is_applied_once(play: Stage, proxy: FaultyProxy, call: str, fault: str) -> None:
    """P2: the connection is cut with the answer (or the call) on its way; it is sent again byte for byte, then what is new.
    The second time it is a harmless resend; afterwards the command still ends once."""
    [id] = await play.send("a", 1)
    [c] = play.queued()
    shaky = await Router(proxy.url).open()
    try:
        fence = Fence(shaky, play.part, (await play.own()).token, "w1")
        getattr(proxy, fault)(call)
        if call == "start":
            await fence.answer(fence.start([c]))
            assert play.pending() == {c.entry: ("w1", 0)}
        elif call == "record":
            assert await fence.answer(fence.record([(id, "step", b"1", b"")])) == [b"done", b""]
            c.journalled = True
        elif call == "park":
            await fence.answer(fence.park({"a": [c]}, {"a": True}))
            assert play.inbox("a") == [id]
            c.parked = True
        elif call == "postpone":
            await fence.answer(fence.postpone(c, [("@attempts", b"1")], [], due_ms=1, wake_data=b"{}"))
            assert play.inbox("a") == [id]
            c.parked = c.journalled = c.timed = True
        elif call == "drop":
            await fence.answer(fence.drop([("1-1", "")]))
        if call == "bury":
            await fence.answer(fence.bury(c, b"{}", 1, "", ["id", id]))
            assert play.redis.xlen(play.part.failed) == 1
        else:
            assert await play.committed(fence, play.ended(c, 0, log=[1])) == ["applied"]
            assert play.log("a") == [1]
        assert play.redis.xlen(play.part.history) == 1
        assert proxy.seen[call] == 2
    finally:
        await shaky.close()


@pytest.mark.parametrize("fault", ["lose_reply", "lose_request"])
async def test_what_was_sent_after_the_lost_answer_keeps_its_place(play: Stage, proxy: FaultyProxy, fault: str) -> None:
    """P2: three commits are on the wire when the connection is cut, before or after they were executed. All three are sent again,
    in order: none is applied twice or left out."""
    await play.send("a", 1, 2, 3)
    shaky = await Router(proxy.url).open()
    try:
        fence = Fence(shaky, play.part, (await play.own()).token, "w1")
        getattr(proxy, fault)("commit")
        log: list[int] = []
        sent = []
        for version, c in enumerate(play.queued()):
            log.append(version)
            sent.append(play.commit(fence, play.ended(c, version, log=list(log))))
        assert [words(await fence.answer(s), 1) for s in sent] == [["applied"]] * 3
        assert play.log("a") == [0, 1, 2]
        assert play.redis.hget(play.part.instance("a"), "version") == "3"
    finally:
        await shaky.close()


@pytest.mark.leaves_work
async def test_a_store_that_lost_a_call_takes_no_later_one(play: Stage) -> None:
    """P2: a failover keeps the token but loses the commit of e1. The commit of e2, which stands on it, must not be applied:
    the number before it is missing."""
    await play.send("a", 1, 2)
    e1, e2 = play.queued()
    fence = await play.own()
    await fence.answer(fence.start([e1, e2]))
    before, stood = play.save(), play.contents()
    assert await play.committed(fence, play.ended(e1, 0)) == ["applied"]
    play.restore(before)
    with pytest.raises(Rewound):
        await play.committed(fence, play.ended(e2, 0))
    assert play.contents() == stood


@pytest.mark.leaves_work
async def test_a_store_set_back_by_many_calls_takes_nothing_either(play: Stage) -> None:
    """P2: also when the lost calls were many, and when the call after is a park, a postpone, a record or a burial."""
    [id] = await play.send("a", 1)
    [c] = play.queued()
    fence = await play.own()
    before, stood = play.save(), play.contents()
    for _ in range(3):
        await fence.answer(fence.skip("b"))
    play.restore(before)
    for call in (
        lambda: fence.start([c]), lambda: fence.record([(id, "step", b"1", b"")]), lambda: fence.park({"a": [c]}, {"a": True}),
        lambda: fence.postpone(c, [], [], due_ms=1, wake_data=b"{}"), lambda: fence.bury(c, b"{}", 1, "", []),
        lambda: fence.adopt([c]), lambda: fence.drop([(c.entry, id)]), lambda: fence.sweep([(id, c.entry, b"{}")]),
        lambda: fence.wake([("wake", id, "a", ())]), lambda: fence.skip("a"),
    ):  # fmt: skip
        with pytest.raises(Rewound):
            await fence.answer(call())
    assert play.contents() == stood


async def test_a_worker_whose_store_was_set_back_runs_again_from_there_in_order(play: Stage) -> None:
    """P2, I5: a worker has run e1 e2; the store is set back to before that, with its token in place. The next command makes it
    notice, not only its renewal (which is far): it begins anew with nothing in memory, and runs e1 e2 e3, in order, on what is stored."""
    async with play.worker(lease_ms=120_000) as worker:
        [part] = worker.partitions.values()
        token = part.fence.token
        worker.partitions[part.keys].draining = True  # so that the copy is taken with the commands still queued
        ids = await play.send("a", 1, 2)
        before = play.save()
        part.undrain()
        for id in ids:
            assert await play.outcome(id) == "completed"
        play.restore(before)
        assert play.token == token
        [last] = await play.send("a", 3)
        assert await play.outcome(last) == "completed"
        await wait_until(lambda: play.log("a") == [1, 2, 3])
        assert play.token != token


async def test_an_idle_owner_notices_that_its_store_was_set_back(play: Stage) -> None:
    """P2, I5: a worker has run e1; the store is set back to before that, and nobody sends anything more. The renewal, which says how many
    calls were answered, makes the worker notice: e1 runs again. (It lay in the stream, before the position of its owner, until another
    command came.)"""
    async with play.worker(lease_ms=300) as worker:
        [part] = worker.partitions.values()
        worker.partitions[part.keys].draining = True
        [id] = await play.send("a", 1)
        before = play.save()
        part.undrain()
        assert await play.outcome(id) == "completed"
        play.restore(before)
        assert await play.outcome(id) == "completed"
        await wait_until(lambda: play.log("a") == [1])
