"""Whether what happened keeps the promises. It looks at evidence only: what clients sent and heard, the history, the outside effects,
the final instances, and what was done to which process. The numbers are the checks of the reliability notes.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from statemq.records import HistoryEntry
from tests.chaos.dump import pending_in
from tests.chaos.fleet import Deed
from tests.chaos.ledger import Effect, Link, ends

CLOCK_MS = 50
"""Two readers of the wall clock, one of whom writes down ms of a moment a little later."""

STRAGGLES_S = 15.0
"""A process that was stopped may begin a step before it learns that it was fenced; later than this it has learnt it."""


class Sent(msgspec.Struct, frozen=True):
    """A command as its client saw it. ``seq`` counts what this client sent; ``again``: the outcome it heard when it asked once more."""

    client: int
    seq: int
    key: str
    transition: str
    x: int
    id: str
    outcome: str = ""
    version: int = 0
    result: Link | None = None
    again: str = ""


class Evidence(msgspec.Struct):
    sent: list[Sent]
    history: list[HistoryEntry]
    """Oldest first, in the order of each partition's stream."""
    finals: dict[str, tuple[int, Link]]
    """Key → version and data as committed last."""
    effects: list[Effect] = []
    deeds: list[Deed] = []
    fenced: frozenset[int] = frozenset()
    """Processes that said they had lost a partition."""


def faults(evidence: Evidence) -> list[str]:
    """One line for each promise that was broken."""
    by_id = {s.id: s for s in evidence.sent}
    found: list[str] = []
    if len(by_id) != len(evidence.sent):
        found.append("the clients got one id for several commands")
    rows: dict[str, list[HistoryEntry]] = defaultdict(list)
    for row in evidence.history:
        rows[row.key].append(row)
    for key, of_key in rows.items():
        found += (f"{key}: {what}" for what in _key_faults(of_key, by_id, evidence.finals.get(key, (0, Link()))))
    found += _answers(evidence.sent, {row.id: row for row in evidence.history})
    found += _steps(evidence, by_id)
    return found


def _key_faults(rows: Sequence[HistoryEntry], sent: dict[str, Sent], final: tuple[int, Link]) -> Iterator[str]:
    last, version = Link(), 0
    seen: set[str] = set()
    latest: dict[int, int] = {}
    for row in rows:
        if row.id in seen:
            yield f"2: {row.id} is twice in the history"
        seen.add(row.id)
        if (command := sent.get(row.id)) is None:
            yield f"3: {row.id} was sent by nobody"
            continue
        if command.key != row.key or command.transition != row.transition:
            yield f"3: {row.id} ran as {row.transition} of {row.key}, sent was {command.transition} of {command.key}"
        if row.outcome != "cancelled" and row.outcome != ends(command.transition, command.x):
            yield f"5, 6: {row.transition}({command.x}) {row.outcome}"
        if command.seq <= latest.get(command.client, -1):
            yield f"7: client {command.client}'s command {command.seq} ran after its command {latest[command.client]}"
        latest[command.client] = command.seq
        if row.outcome == "completed":
            last, version = last.next(row.id, command.x), version + 1
            if row.version != version:
                yield f"1: {row.id} made version {row.version}, not {version}"
            if command.outcome == "completed" and (command.version, command.result) != (version, last):
                yield f"4, 6: {row.id} was answered version {command.version} {command.result}, the model says {version} {last}"
    if final != (version, last):
        yield f"1, 6: it ended as {final}, the model says {(version, last)}"


def _answers(sent: Sequence[Sent], history: dict[str, HistoryEntry]) -> Iterator[str]:
    for s in sent:
        row = history.get(s.id)
        if row is None:
            yield f"4: {s.id} ({s.transition} of {s.key}, answered {s.outcome or 'nothing'}) is not in the history"
        elif not s.outcome:
            yield f"13: {s.id} ({s.transition} of {s.key}) ended and its client heard nothing"
        elif s.outcome != row.outcome or (s.again and s.again != s.outcome):
            yield f"10: {s.id} is {row.outcome} in the history; its client heard {s.outcome} and then {s.again or 'did not ask'}"


def _steps(evidence: Evidence, sent: dict[str, Sent]) -> Iterator[str]:
    """11: each step ran, and ran again only after its process was killed, stopped or fenced; never when its record existed."""
    ran: dict[str, dict[str, list[Effect]]] = defaultdict(lambda: defaultdict(list))
    for e in evidence.effects:
        ran[e.id][e.step].append(e)
    ended_ms = {row.id: row.at for row in evidence.history}
    harmed: dict[int, list[float]] = defaultdict(list)
    for d in evidence.deeds:
        if d.what != "cont":
            harmed[d.pid].append(d.at_s)
    for row in evidence.history:
        if row.transition in ("apply_steps", "apply_slowly") and row.outcome == "completed":
            for step in ("first", "second"):
                if not ran[row.id][step]:
                    yield f"11: {row.id} completed and its step {step} never ran"
    for id, steps in ran.items():
        if id not in sent:
            yield f"3: a step ran of {id}, which nobody sent"
        for step, runs in steps.items():
            for before, after in itertools.pairwise(sorted(runs, key=lambda e: e.at_s)):
                innocent = before.pid not in evidence.fenced and not any(at_s < after.at_s for at_s in harmed[before.pid])
                if innocent and not _straggles(after, evidence.deeds):
                    yield f"11: step {step} of {id} ran in {before.pid} and again in {after.pid}, though nothing had happened to the first"
        # the second step begins when the first one's record stands, and the commit when the second one's does
        begun = min((e.wall_ms for e in steps.get("second", [])), default=None)
        for step, until_ms in (("first", begun), ("second", ended_ms.get(id))):
            for e in steps.get(step, []):
                if until_ms is not None and e.wall_ms > until_ms + CLOCK_MS and not _straggles(e, evidence.deeds):
                    yield f"11: step {step} of {id} ran in {e.pid} {e.wall_ms - until_ms} ms after its record stood"


def _straggles(e: Effect, deeds: Sequence[Deed]) -> bool:
    return any(d.pid == e.pid and d.what == "stop" and 0 < e.at_s - d.at_s < STRAGGLES_S for d in deeds)


def undrained(redis: Any, namespace: str) -> list[str]:
    """12: what is left of work: queued, pending, ready, waiting or journalled commands. ``redis`` decodes replies."""
    left = []
    for name in redis.scan_iter(f"{namespace}:*", count=1000):
        kind = name.split("}:", 1)[-1].split(":", 1)[0]
        if kind == "commands":
            pending = pending_in(redis, name)
            if redis.xlen(name) or pending:
                left.append(f"{name}: {redis.xlen(name)} entries, {pending} pending")
        elif kind in ("accepted", "inbox", "ready", "timers", "steps"):
            left.append(name)
    return left
