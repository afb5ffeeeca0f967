"""The judge finds each kind of broken promise, and nothing in an honest record."""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec
import pytest
from redis import Redis

from statemq.records import HistoryEntry
from tests.chaos.fleet import Deed
from tests.chaos.judge import Evidence, Sent, faults, undrained
from tests.chaos.ledger import Effect, Link

OLD, NEW = 100, 200
"""Processes: the first was killed at 2 s, in the middle of b's second step."""


def honest() -> Evidence:
    """Four commands of one key from two clients: applied, with steps, refused, applied."""
    first = Link().next("a", 1)
    second = first.next("b", 2)
    third = second.next("d", 4)
    return Evidence(
        sent=[
            Sent(0, 0, "k", "apply", 1, "a", "completed", 1, first),
            Sent(1, 0, "k", "apply_steps", 2, "b", "completed", 2, second, again="completed"),
            Sent(0, 1, "k", "refuse", 3, "c", "rejected"),
            Sent(0, 2, "k", "apply", 4, "d", "completed", 3, third),
        ],
        history=[
            _row("1-0", "a", "apply", "completed", 1, 1000),
            _row("2-0", "b", "apply_steps", "completed", 2, 3000),
            _row("3-0", "c", "refuse", "rejected", 2, 3100),
            _row("4-0", "d", "apply", "completed", 3, 3200),
        ],
        finals={"k": (3, third)},
        effects=[
            Effect("b", "first", OLD, 1.5, 1500),
            Effect("b", "second", OLD, 1.6, 1600),
            Effect("b", "second", NEW, 2.1, 2100),
        ],
        deeds=[Deed(OLD, "kill", 2.0)],
    )


def _row(entry: str, id: str, transition: str, outcome: str, version: int, at: int) -> HistoryEntry:
    return HistoryEntry(entry, id, "k", transition, outcome, version=version, at=at)


def _twice(e: Evidence) -> None:
    e.history.append(e.history[0])


def _lost(e: Evidence) -> None:
    del e.history[3]


def _swapped(e: Evidence) -> None:
    e.history[2:] = reversed(e.history[2:])


def _stranger(e: Evidence) -> None:
    e.history.append(_row("5-0", "x", "apply", "completed", 4, 3300))


def _gap(e: Evidence) -> None:
    e.history[3] = msgspec.structs.replace(e.history[3], version=4)


def _refused_applied(e: Evidence) -> None:
    e.history[2] = msgspec.structs.replace(e.history[2], outcome="completed")


def _wrong_answer(e: Evidence) -> None:
    e.sent[3] = msgspec.structs.replace(e.sent[3], result=Link(3, "else"))


def _unanswered(e: Evidence) -> None:
    e.sent[3] = msgspec.structs.replace(e.sent[3], outcome="", result=None, version=0)


def _other_answer_later(e: Evidence) -> None:
    e.sent[1] = msgspec.structs.replace(e.sent[1], again="failed")


def _final_state_lost(e: Evidence) -> None:
    e.finals["k"] = (2, Link())


def _same_id(e: Evidence) -> None:
    e.sent.append(e.sent[0])


def _step_never_ran(e: Evidence) -> None:
    del e.effects[0]


def _again_without_a_crash(e: Evidence) -> None:
    e.deeds.clear()


def _recorded_step_again(e: Evidence) -> None:
    e.effects.append(Effect("b", "first", NEW, 2.05, 2050))


def _step_after_the_commit(e: Evidence) -> None:
    e.effects.append(Effect("b", "second", NEW, 9.0, 9000))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("breaks", "number"),
    [
        (_twice, "2"),
        (_lost, "4"),
        (_swapped, "7"),
        (_stranger, "3"),
        (_gap, "1"),
        (_refused_applied, "5"),
        (_wrong_answer, "4"),
        (_unanswered, "13"),
        (_other_answer_later, "10"),
        (_final_state_lost, "1"),
        (_same_id, "the clients"),
        (_step_never_ran, "11"),
        (_again_without_a_crash, "11"),
        (_recorded_step_again, "11"),
        (_step_after_the_commit, "11"),
    ],
)
def test_a_broken_promise_is_found(breaks: Callable[[Evidence], None], number: str) -> None:
    evidence = copy.deepcopy(honest())
    breaks(evidence)
    found = faults(evidence)
    assert any(line.removeprefix("k: ").startswith(number) for line in found), found


def test_an_honest_record_has_no_fault() -> None:
    assert faults(honest()) == []


def test_a_straggler_that_was_stopped_counts_for_nothing() -> None:
    evidence = honest()
    evidence.deeds.append(Deed(NEW, "stop", 2.5))
    _step_after_the_commit(evidence)
    assert faults(evidence) == []


def test_a_stream_whose_group_was_destroyed_is_drained_when_it_is_empty(url: str, namespace: str) -> None:
    with Redis.from_url(url, decode_responses=True) as redis:
        name = f"{namespace}:{{ledger:0}}:commands"
        entry = redis.xadd(name, {"a": "b"})
        redis.xgroup_create(name, "workers", "0")
        redis.xreadgroup("workers", "w", {name: ">"})
        assert undrained(redis, namespace) == [f"{name}: 1 entries, 1 pending"]
        redis.xgroup_destroy(name, "workers")
        assert undrained(redis, namespace) == [f"{name}: 1 entries, 0 pending"]
        redis.xdel(name, entry)
        assert undrained(redis, namespace) == []
        redis.delete(name)
