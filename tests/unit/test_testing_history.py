"""The checker finds each kind of broken promise by the check that is meant for it, and nothing in honest histories."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from statemq.testing.__main__ import main
from statemq.testing.evidence import (
    Acquire,
    Asked,
    Commit,
    Demand,
    Effect,
    Ended,
    Fail,
    Fault,
    Final,
    Invoke,
    Key,
    Line,
    Ok,
    Process,
    Record,
    Slept,
    Standing,
    Woke,
    read,
    write,
)
from statemq.testing.history import CHECKS, Verdict, check
from statemq.testing.order import _sweep
from tests.unit.histories import MODEL, honest, rewound

T = TypeVar("T")
seeds = st.integers(0, 1_000_000)


def judge(lines: list[Line]) -> Verdict:
    return check(lines, MODEL)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(0, 120))
def test_an_honest_history_is_clean(seed: int, events: int) -> None:
    verdict = judge(honest(seed, events))
    assert verdict.ok, verdict.text()
    assert verdict.counts["applied"] >= 24
    assert not verdict.lost


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(0, 10))
def test_a_lost_end_is_clean_where_losses_are_allowed_and_counted(seed: int, commits: int) -> None:
    lines, _ = rewound(seed, commits)
    verdict = judge(lines)
    assert verdict.ok, verdict.text()
    applied = {r.id for r in lines if isinstance(r, Commit) and r.writes}
    answered = {e.id for e in lines if isinstance(e, Ok) and e.id}
    assert verdict.lost == len(answered - applied)


# -- each promise, broken ------------------------------------------------------------------------


def some(dice: random.Random, lines: list[Line], kind: type[T], like: Callable[[Any], bool] = lambda line: True) -> T:
    """One of them, if the history has any."""
    found = [line for line in lines if isinstance(line, kind) and like(line)]
    assume(found)
    return dice.choice(found)


def swap(lines: list[Line], old: Any, **changed: Any) -> Any:
    """The record in another form, in its place."""
    at = next(i for i, line in enumerate(lines) if line is old)
    new: Any = msgspec.structs.replace(old, **changed)
    lines[at] = new
    return new


def writes(lines: list[Line], key: str | None = None) -> list[Commit]:
    return [r for r in lines if isinstance(r, Commit) and r.writes and key in (None, r.key)]


def answered(lines: list[Line], like: Callable[[Any], bool] = lambda line: True) -> dict[str, Ok]:
    """The answer to each write."""
    ops = {(b.client, b.op) for b in lines if isinstance(b, Invoke) and b.kind == "write"}
    return {e.id: e for e in lines if isinstance(e, Ok) and (e.client, e.op) in ops and like(e)}


def again(lines: list[Line], like: Any, **changed: Any) -> None:
    """A row more like this one, as its partition's last."""
    old = like
    last = max((r for r in lines if isinstance(r, Commit | Acquire | Record) and r.partition == old.partition), key=lambda r: r.pseq)
    lines.append(msgspec.structs.replace(old, pseq=last.pseq + 1, at_ms=last.at_ms, **changed))


def raise_final(lines: list[Line], key: str) -> None:
    """The instance really is one version further, so that only the row tells."""
    final = some(random.Random(0), lines, Final, lambda f: f.key == key)
    swap(lines, final, version=final.version + 1)


def version_missing(dice: random.Random, lines: list[Line]) -> None:
    """Everybody agrees that a key's versions went on with a gap."""
    row = dice.choice(writes(lines))
    ids = {r.id for r in writes(lines, row.key) if r.version >= row.version}
    reads = {(b.client, b.op) for b in lines if isinstance(b, Invoke) and b.kind == "read" and b.key == row.key}
    for one in list(lines):
        of_key = isinstance(one, Commit | Ok) and (one.id in ids or (isinstance(one, Ok) and (one.client, one.op) in reads))
        if of_key and one.version >= row.version:
            swap(lines, one, version=one.version + 1)
    raise_final(lines, row.key)


def applied_twice(dice: random.Random, lines: list[Line]) -> None:
    last = writes(lines, dice.choice("abcd"))[-1]
    again(lines, last, version=last.version + 1, entry="9999-0")
    raise_final(lines, last.key)


def phantom(dice: random.Random, lines: list[Line]) -> None:
    last = writes(lines, dice.choice("abcd"))[-1]
    again(lines, last, id="m.0.nobodys", version=last.version + 1, entry="9999-0")
    raise_final(lines, last.key)


def applied_before_it_was_sent(dice: random.Random, lines: list[Line]) -> None:
    row = dice.choice(writes(lines))
    begun = some(dice, lines, Invoke, lambda b: b.kind == "write" and row.id == f"m.{row.partition}.{b.op}")
    swap(lines, row, at_ms=round(begun.at_s * 1000) - 500)


def sent_to_another_key(dice: random.Random, lines: list[Line]) -> None:
    row = writes(lines, "a")[-1]
    swap(lines, some(dice, lines, Invoke, lambda b: b.kind == "write" and row.id == f"m.{row.partition}.{b.op}"), key="c")


def lost_write(dice: random.Random, lines: list[Line]) -> None:
    """The last write of a key is nowhere, not even in the instance."""
    key = dice.choice("abcd")
    before, last = writes(lines, key)[-2:]
    lines.remove(last)
    value = answered(lines)[before.id].value
    swap(lines, some(dice, lines, Final, lambda f: f.key == key), version=before.version, value=value)


def other_version_answered(dice: random.Random, lines: list[Line]) -> None:
    ok = dice.choice([*answered(lines).values()])
    for e in [e for e in lines if isinstance(e, Ok) and e.id == ok.id]:
        swap(lines, e, version=e.version + 1)


def refused_and_applied(dice: random.Random, lines: list[Line]) -> None:
    id = dice.choice(sorted(answered(lines)))
    for e in [e for e in lines if isinstance(e, Ok) and e.id == id]:
        lines[lines.index(e)] = Fail(e.client, e.op, e.at_s, e.id, "rejected")


def wrong_result(dice: random.Random, lines: list[Line]) -> None:
    ok = dice.choice([*answered(lines).values()])
    for e in [e for e in lines if isinstance(e, Ok) and e.id == ok.id]:
        swap(lines, e, value=[e.value[0], "another"])


def final_state_of_another_past(dice: random.Random, lines: list[Line]) -> None:
    swap(lines, some(dice, lines, Final), value=[3, "another"])


def read_of_what_never_was(dice: random.Random, lines: list[Line]) -> None:
    key = dice.choice("abcd")
    last_s = max(e.at_s for e in lines if isinstance(e, Ok))
    last = max(writes(lines, key), key=lambda r: r.version)
    lines.append(Invoke("c0", 5000, last_s + 1, "read", key))
    lines.append(Ok("c0", 5000, last_s + 2, version=last.version, value=[last.version, "another"]))


def entries_reordered(dice: random.Random, lines: list[Line]) -> None:
    """Its neighbour has an older entry; both were sent at the same time, by different clients."""
    first, second = dice.choice([*itertools.pairwise(writes(lines, dice.choice("abcd")))])
    swap(lines, first, entry=second.entry)
    swap(lines, second, entry=first.entry)


def one_clients_commands_reordered(dice: random.Random, lines: list[Line]) -> None:
    """Two commands of one client ran in the other order than it sent them, and their entry ids hide it."""
    first, second = writes(lines, dice.choice("abcd"))[-2:]
    begun = [some(dice, lines, Invoke, lambda b, row=row: row.id == f"m.{row.partition}.{b.op}") for row in (first, second)]
    for row, b, op in zip((first, second), begun, (9001, 9000), strict=True):
        swap(lines, answered(lines)[row.id], client="c9", op=op)
        swap(lines, b, client="c9", op=op, at_s=begun[0].at_s)


def stale_read(dice: random.Random, lines: list[Line]) -> None:
    """It began after a later version had been answered."""
    key = dice.choice("abcd")
    before, last = [answered(lines)[r.id] for r in writes(lines, key)[-2:]]
    lines.append(Invoke("c0", 5000, last.at_s + 1, "read", key))
    lines.append(Ok("c0", 5000, last.at_s + 2, version=before.version, value=before.value))


def read_from_the_future(dice: random.Random, lines: list[Line]) -> None:
    key = dice.choice("abcd")
    last = answered(lines)[writes(lines, key)[-1].id]
    began = min(e.at_s for e in lines if isinstance(e, Invoke))
    lines.append(Invoke("c0", 5000, began - 2, "read", key))
    lines.append(Ok("c0", 5000, began - 1, version=last.version, value=last.value))


def two_writers(dice: random.Random, lines: list[Line]) -> None:
    """A former token commits once more."""
    partition = dice.choice([0, 1])
    own = [r for r in writes(lines) if r.partition == partition]
    middle = own[-3]
    token = f"{int(middle.token.partition('.')[0]) + 1}.w9.1"
    swap(lines, middle, token=token, worker="w9")


def one_token_two_workers(dice: random.Random, lines: list[Line]) -> None:
    swap(lines, writes(lines)[-1], worker="w9")


def epoch_fell(dice: random.Random, lines: list[Line]) -> None:
    again(lines, some(dice, lines, Acquire), token="1.w0.99", worker="w0")


def another_answer_later(dice: random.Random, lines: list[Line]) -> None:
    refused = some(dice, lines, Fail, lambda e: e.why == "rejected")
    lines.append(Invoke("c0", 5000, refused.at_s + 1, "ask", "a", id=refused.id))
    lines.append(Fail("c0", 5000, refused.at_s + 2, refused.id, "failed"))


def step_run_twice(dice: random.Random, lines: list[Line]) -> None:
    """Within one tenure, before its record stood: by the owner who recorded it."""
    record = some(dice, lines, Record)
    owner = {"w0": 100, "w1": 101}[record.token.split(".")[1]]
    own = [e for e in lines if isinstance(e, Effect) and (e.id, e.step, e.pid) == (record.id, record.step, owner)]
    run = max((e for e in own if e.at_s * 1000 <= record.at_ms), key=lambda e: e.at_s)  # one before may be another tenure's
    lines.append(Effect(run.id, run.step, run.pid, run.at_s + 0.001))


def step_run_after_its_record(dice: random.Random, lines: list[Line]) -> None:
    """By the owner, who could have read it."""
    record = some(dice, lines, Record)
    tenure = max((r for r in lines if isinstance(r, Acquire) and r.partition == record.partition), key=lambda r: r.pseq)
    at_s = max(record.at_ms, tenure.at_ms) / 1000 + 0.5
    lines.append(Effect(record.id, record.step, {"w0": 100, "w1": 101}[tenure.worker], at_s))


def recorded_step_never_ran(dice: random.Random, lines: list[Line]) -> None:
    record = some(dice, lines, Record)
    lines[:] = [e for e in lines if not (isinstance(e, Effect) and (e.id, e.step) == (record.id, record.step))]


def two_records_of_a_step(dice: random.Random, lines: list[Line]) -> None:
    again(lines, some(dice, lines, Record))


def work_left(dice: random.Random, lines: list[Line]) -> None:
    swap(lines, some(dice, lines, Key, lambda k: k.kind == "commands"), length=1)


def pending_left(dice: random.Random, lines: list[Line]) -> None:
    swap(lines, some(dice, lines, Key, lambda k: k.kind == "commands"), pending=1)


def key_of_an_unknown_kind(dice: random.Random, lines: list[Line]) -> None:
    lines.append(Key("t:{m:0}:scratch", "scratch"))


def key_that_stays(dice: random.Random, lines: list[Line]) -> None:
    swap(lines, some(dice, lines, Key, lambda k: k.kind == "outcomes"), ttl_ms=-1)


def too_much_memory(dice: random.Random, lines: list[Line]) -> None:
    swap(lines, some(dice, lines, Key, lambda k: k.kind == "outcomes"), bytes=20_000)


def lease_of_a_dead_worker(dice: random.Random, lines: list[Line]) -> None:
    lines.remove(some(dice, lines, Standing, lambda w: w.worker == "w0"))


def starved_key(dice: random.Random, lines: list[Line]) -> None:
    for row in writes(lines, dice.choice("abcd"))[-7:]:
        if row.id in (found := answered(lines)):
            swap(lines, found[row.id], at_s=found[row.id].at_s + 100)


def idle_worker(dice: random.Random, lines: list[Line]) -> None:
    lines.append(Standing("w2", []))


def nobody_answers(dice: random.Random, lines: list[Line]) -> None:
    lines.append(Invoke("c0", 5000, 1.0, "ask", "a"))


def harmless_fault(dice: random.Random, lines: list[Line]) -> None:
    swap(lines, some(dice, lines, Demand), bites=["pause"])


def nothing_went_on(dice: random.Random, lines: list[Line]) -> None:
    lines.append(Fault("kill", 1.0, 2.0, 3.0, bit=1))


def history_without_end(dice: random.Random, lines: list[Line]) -> None:
    swap(lines, some(dice, lines, Key, lambda k: k.kind == "history"), length=4)


def field_dropped(dice: random.Random, lines: list[Line]) -> None:
    """A worker that did not know it wrote the data without it."""
    final = some(dice, lines, Final, lambda f: f.tallies["sleep"])
    swap(lines, final, tallies={"sleep": final.tallies["sleep"] - 1})


def death_of_who_lived(dice: random.Random, lines: list[Line]) -> None:
    swap(lines, some(dice, lines, Process, lambda p: p.worker == "w2"), ended_s=0.0)


def death_before_it_was(dice: random.Random, lines: list[Line]) -> None:
    swap(lines, some(dice, lines, Process, lambda p: p.worker == "w2"), ended_s=9.5)


def in_two_processes_at_once(dice: random.Random, lines: list[Line]) -> None:
    """The former owner's step still ran, and nobody had waited for its lease."""
    run = some(dice, lines, Effect, lambda e: e.pid == 102)
    lines += [Ended(run.id, run.step, run.pid, run.at_s, 11.0), Effect(run.id, run.step, 100, 10.0)]


def woke_early(dice: random.Random, lines: list[Line]) -> None:
    asked = some(dice, lines, Asked)
    swap(lines, asked, sleep_s=asked.sleep_s + 10)


def woke_late(dice: random.Random, lines: list[Line]) -> None:
    """Hours after all was well."""
    late_s = max(f.recovered_s for f in lines if isinstance(f, Fault)) + 3600 if any(isinstance(f, Fault) for f in lines) else 9999.0
    lines += [Asked("m.2.1", 100, 9.0, 0.05), Slept(1, 9_999, 9_000, "m.2.1", "sleep@1"), Woke("m.2.1", 100, late_s)]


def slept_without_a_record(dice: random.Random, lines: list[Line]) -> None:
    lines.remove(some(dice, lines, Slept))


BROKEN: list[tuple[Callable[[random.Random, list[Line]], None], set[str]]] = [
    (version_missing, {"1"}),
    (applied_twice, {"2", "6"}),
    (phantom, {"3"}),
    (applied_before_it_was_sent, {"3"}),
    (sent_to_another_key, {"3"}),
    (lost_write, {"4"}),
    (other_version_answered, {"4"}),
    (refused_and_applied, {"5"}),
    (wrong_result, {"6"}),
    (final_state_of_another_past, {"6"}),
    (read_of_what_never_was, {"6"}),
    (entries_reordered, {"7"}),
    (one_clients_commands_reordered, {"7"}),
    (stale_read, {"8"}),
    (read_from_the_future, {"8"}),
    (two_writers, {"9"}),
    (one_token_two_workers, {"9"}),
    (epoch_fell, {"9"}),
    (another_answer_later, {"10"}),
    (step_run_twice, {"11"}),
    (step_run_after_its_record, {"11"}),
    (recorded_step_never_ran, {"11"}),
    (two_records_of_a_step, {"11"}),
    (work_left, {"12"}),
    (pending_left, {"12"}),
    (key_of_an_unknown_kind, {"12"}),
    (key_that_stays, {"12"}),
    (too_much_memory, {"12"}),
    (lease_of_a_dead_worker, {"12"}),
    (starved_key, {"13"}),
    (idle_worker, {"13"}),
    (nobody_answers, {"13"}),
    (harmless_fault, {"14"}),
    (nothing_went_on, {"14"}),
    (history_without_end, {"12"}),
    (field_dropped, {"6"}),
    (death_of_who_lived, {"15"}),
    (death_before_it_was, {"15"}),
    (in_two_processes_at_once, {"16"}),
    (woke_early, {"17"}),
    (woke_late, {"17"}),
    (slept_without_a_record, {"17"}),
]


@pytest.mark.parametrize(("breaks", "checks"), BROKEN, ids=[breaks.__name__ for breaks, _ in BROKEN])
@settings(deadline=None, max_examples=12)
@given(seeds)
def test_a_broken_promise_is_found_by_its_check(breaks: Callable[[random.Random, list[Line]], None], checks: set[str], seed: int) -> None:
    lines = honest(seed, 80, nameless=False)
    breaks(random.Random(seed), lines)
    verdict = judge(lines)
    assert {f.check for f in verdict.findings} == checks, verdict.text()


def test_each_check_has_something_to_find() -> None:
    assert {check for _, checks in BROKEN for check in checks} | {"losses"} == set(CHECKS)


# -- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_hole_in_what_was_lost_is_found(seed: int) -> None:
    """Two commits are gone, and a later one of the partition is there."""
    for tried in itertools.count(seed * 1000):
        lines, lost = rewound(tried, 2, spared=1)
        fault_ms = next(f.at_ms for f in lines if isinstance(f, Fault) and f.kind == "torn")
        kept = max((r for r in writes(lines) if r.partition == 0 and r.at_ms <= fault_ms), key=lambda r: r.at_ms, default=None)
        told = [r for r in lost if r.writes and r.id in answered(lines)]
        if told and kept and kept.at_ms > told[0].at_ms and kept.key not in {r.key for r in lost}:
            break
    assert {f.check for f in judge(lines).findings} == {"losses"}, judge(lines).text()


@settings(deadline=None, max_examples=12)
@given(seeds)
def test_an_outcome_that_outlived_its_write_is_found(seed: int) -> None:
    lines, lost = rewound(seed, 3)
    oks = answered(lines)
    ids = [r.id for r in lost if r.id in oks]
    assume(ids)
    ok = oks[ids[0]]
    late_s = max(f.end_s for f in lines if isinstance(f, Fault)) + 1
    lines += [Invoke("c0", 5000, late_s, "ask", "a", id=ok.id), Ok("c0", 5000, late_s + 1, ok.id, ok.version, ok.value)]
    assert {f.check for f in judge(lines).findings} == {"losses"}


@settings(deadline=None, max_examples=12)
@given(seeds)
def test_a_lost_end_is_a_fault_where_nothing_may_be_lost(seed: int) -> None:
    lines, lost = rewound(seed, 3)
    assume({r.id for r in lost} & answered(lines).keys())
    swap(lines, some(random.Random(0), lines, Demand), losses=False)
    assert "4" in {f.check for f in judge(lines).findings}


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_a_read_of_what_was_lost_may_be_written_down_late(seed: int) -> None:
    lines, lost = rewound(seed, 3)
    fault = some(random.Random(0), lines, Fault, lambda f: f.kind == "torn")
    told = [r for r in lost if r.writes and r.id in answered(lines)]
    assume(told)
    lines += [Invoke("c0", 5000, fault.start_s - 0.001, "read", told[-1].key)]
    lines += [Ok("c0", 5000, fault.end_s + 0.01, version=told[-1].version, value=answered(lines)[told[-1].id].value)]
    assert judge(lines).ok, judge(lines).text()


# -- real time, against all orders there are ------------------------------------------------------


class Span(msgspec.Struct):
    begun_s: int
    ended_s: int
    version: int
    writes: bool


@st.composite
def spans(draw: st.DrawFn) -> list[Span]:
    """A few writes, which make versions 1, 2, …, and reads of some version, at any times."""
    moments = st.tuples(st.integers(0, 8), st.integers(0, 4))
    wrote = draw(st.integers(0, 3))
    found = []
    for version in range(1, wrote + 1):
        begun, takes = draw(moments)
        found.append(Span(begun, begun + takes, version, True))
    for version in draw(st.lists(st.integers(0, wrote), max_size=3)):
        begun, takes = draw(moments)
        found.append(Span(begun, begun + takes, version, False))
    return found


def fits(order: tuple[Span, ...]) -> bool:
    """Whether one after the other they do what they did, and none stands before one that had ended when it began."""
    version = 0
    for at, span in enumerate(order):
        version += span.writes
        if span.version != version or any(later.ended_s < span.begun_s for later in order[at + 1 :]):
            return False
    return True


@settings(deadline=None, max_examples=300)
@given(spans())
def test_the_sweep_decides_as_all_orders_do(found: list[Span]) -> None:
    rows = [(float(s.begun_s), float(s.ended_s), (s.version, int(not s.writes)), "") for s in found]
    assert (not list(_sweep(rows))) == any(fits(order) for order in itertools.permutations(found))


# -- files ------------------------------------------------------------------------------------------


def test_a_folder_is_judged_as_its_records_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [e for e in honest(3) if not (isinstance(e, Invoke) and e.transition == "refuse")]
    write(tmp_path, "all", lines)
    (tmp_path / "killed.jsonl").write_bytes(b'{"type":"invoke","cli')
    assert read(tmp_path) == lines
    assert main(str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith("clean: ")
    write(tmp_path, "more", [Fault("kill", 1.0, 2.0)])
    assert main(str(tmp_path)) == 1
    assert "14 not_vacuous: kill at 1.0 s" in capsys.readouterr().out
