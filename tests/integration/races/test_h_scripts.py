"""A script that raises wrote nothing: damaged keys and used-up streams in the middle of a batch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from statemq.errors import StatemqError
from tests.integration.races.stage import Stage

LAST = "18446744073709551615-18446744073709551615"


async def test_a_damaged_idempotency_record_tears_no_batch(play: Stage) -> None:
    """Three commands in one append; the second one's record is a text. None of them may be in the stream without being accepted:
    their client is told that they were not."""
    play.redis.set(play.part.once("b", "k"), "by hand")
    told = await asyncio.gather(play.send("a", 1), play.send("b", 2, idempotency_key="k"), play.send("c", 3), return_exceptions=True)
    accepted = [t for t in told if not isinstance(t, BaseException)]
    assert play.redis.xlen(play.part.commands) == play.redis.hlen(play.part.accepted) == len(accepted) == 0
    play.redis.delete(play.part.once("b", "k"))


async def test_damaged_timers_tear_no_batch(play: Stage) -> None:
    play.redis.set(play.part.timers, "by hand")
    told = await asyncio.gather(play.send("a", 1), play.send("b", 2, delay=60), return_exceptions=True)
    assert all(isinstance(t, BaseException) for t in told)
    assert play.redis.xlen(play.part.commands) == play.redis.hlen(play.part.accepted) == 0
    assert not play.redis.exists(play.part.timers_data)
    play.redis.delete(play.part.timers)


async def test_a_used_up_stream_tears_no_look(play: Stage) -> None:
    """Nothing can be added to the stream, so no look either: what is paused, cancelled or delayed is so all the same."""
    [id] = await play.send("a", 1)
    fence = await play.own()
    play.redis.xadd(play.part.commands, {"key": "x"}, id=LAST)
    told = await asyncio.gather(play.send("b", 2, delay=60), return_exceptions=True)
    if isinstance(told[0], StatemqError):  # refused: then nothing is left of it
        assert play.redis.zcard(play.part.timers) == play.redis.hlen(play.part.timers_data) == 0
    assert await play.client.handle(id).cancel() == "cancelled"
    await play.client.pause("probe", "a")
    assert play.redis.hget(play.part.instance("a"), "paused")
    assert play.redis.hlen(play.part.accepted) == play.redis.zcard(play.part.timers)
    play.redis.delete(play.part.commands, play.part.timers, play.part.timers_data, play.part.accepted, play.part.instance("a"))
    assert fence


async def test_a_command_that_is_twice_in_a_batch_is_applied_once(play: Stage) -> None:
    """I3 is the script's to keep, whatever its caller believes: the second one is gone, as in a call of its own."""
    await play.send("a", 1)
    [c] = play.queued()
    fence = await play.own()
    assert await play.committed(fence, play.ended(c, 0, log=[1]), play.ended(c, 1, log=[1, 1])) == ["applied", "gone"]
    assert play.log("a") == [1]
    assert play.redis.xlen(play.part.history) == 1


@pytest.mark.leaves_work
async def test_no_caller_can_name_what_statemq_remembers_for_itself(play: Stage) -> None:
    """An idempotency key that begins with @, and an id that does, are refused by the script, whoever sends them."""
    for taken in ("@failed 1", "@"):
        once = play.part.once("a", taken)
        args = [*_appending(play), "a.0.x", "a", "add", "{}", 1, "", "0123456789ab", 0]
        assert await play.router.run("append", [*_append_keys(play), once], *args) == [b"unfit idempotency key"]
        assert not play.redis.exists(once)
    assert await play.router.run("append", _append_keys(play), *_appending(play), "@look:a", "a", "add", "{}") == [b"unfit command"]
    for free in ("a@b", " @", "a:@b"):  # only its first character is kept
        args = [*_appending(play), f"a.0.{free!r}", "a", "add", "{}", 1, "", "0123456789ab", 0]
        assert await play.router.run("append", [*_append_keys(play), play.part.once("a", free)], *args) == [b"accepted"]


def _append_keys(play: Stage) -> list[str]:
    part = play.part
    return [part.commands, part.accepted, part.lease, part.outcomes_, part.timers, part.timers_data]


def _appending(play: Stage) -> list[Any]:
    return [play.redis.hget(play.part.lease, "incarnation"), 1000, 50_000, 512, 131072, "", 1]
