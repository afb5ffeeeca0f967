"""The evidence joined: operations, commands with all their answers, each key's applied commands in the order of their versions."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from statemq.testing.evidence import (
    Acquire,
    Asked,
    Clock,
    Commit,
    Demand,
    Effect,
    Ended,
    Fail,
    Fault,
    Final,
    Info,
    Invoke,
    Key,
    Line,
    Ok,
    Process,
    Record,
    Slept,
    Standing,
    Woke,
)

L = TypeVar("L")

CLOCK_MS = 50
"""How far two readers of the clocks may be apart, one of whom writes down a moment a little later."""


class Model(Protocol):
    """What the machine under test does, as a pure function. Values are plain JSON, as they stand in the evidence."""

    initial: Any

    def apply(self, state: Any, id: str, transition: str, x: int) -> tuple[Any, Any] | None:
        """The next state and the result; None when this command must not be applied."""


class Op(msgspec.Struct):
    """What a client began, and how it ended, if it did."""

    begun: Invoke
    end: Ok | Fail | Info | None = None

    @property
    def id(self) -> str:
        return (self.end.id if self.end is not None else "") or self.begun.id


class Command(msgspec.Struct):
    """All that was heard of one command id. ``first``: the operation that sent it; others sent it again or asked."""

    id: str
    first: Invoke
    invoked_s: float
    ops: list[Op]

    @property
    def oks(self) -> list[Ok]:
        return [op.end for op in self.ops if isinstance(op.end, Ok)]

    @property
    def fails(self) -> list[Fail]:
        return [op.end for op in self.ops if isinstance(op.end, Fail)]


class View:
    """Built once for all checks. ``applied``: key → its writes in the order of their versions (L in the notes)."""

    def __init__(self, lines: Iterable[Line], model: Model) -> None:
        self.model = model
        kinds: dict[type, list[Any]] = defaultdict(list)
        for one in lines:
            kinds[type(one)].append(one)

        def of(kind: type[L]) -> list[L]:
            return kinds[kind]

        self.demand = (of(Demand) or [Demand()])[-1]
        self.faults = sorted(of(Fault), key=lambda f: f.start_s)
        self.effects = sorted(of(Effect), key=lambda e: e.at_s)
        self.keys, self.standing = of(Key), of(Standing)
        self.finals = {f.key: f for f in of(Final)}
        self.ended_s = {(e.id, e.step, e.pid, e.began_s): e.at_s for e in of(Ended)}
        self.asked: dict[str, Asked] = {}
        """Of each command, when it first asked for its sleep."""
        for asked in sorted(of(Asked), key=lambda a: a.at_s):
            self.asked.setdefault(asked.id, asked)
        self.woke = sorted(of(Woke), key=lambda w: w.at_s)
        self.processes = {p.worker: p for p in of(Process) if p.worker}
        self.worker_of = {p.pid: p.worker for p in of(Process)}
        self._clocks = sorted(of(Clock), key=lambda c: c.at_s)
        self.ops = _operations(of(Invoke), [*of(Ok), *of(Fail), *of(Info)])
        self.succeeded_s = sorted(op.end.at_s for op in self.ops if op.begun.kind == "write" and isinstance(op.end, Ok))
        """When writes were answered, also those that were lost later."""
        self.commands = _commands(self.ops)
        self.nameless = [op.begun for op in self.ops if op.begun.kind == "write" and not op.id]
        """Writes whose id nobody learnt."""
        self.slept = of(Slept)
        self.audit: dict[int, list[Commit | Acquire | Record]] = defaultdict(list)
        rows_of_all: list[Commit | Acquire | Record] = [*of(Commit), *of(Acquire), *of(Record)]
        for line in sorted(rows_of_all, key=lambda r: (r.partition, r.pseq)):
            self.audit[line.partition].append(line)
        self.commits = [row for rows in self.audit.values() for row in rows if isinstance(row, Commit)]
        self.row_of: dict[str, Commit] = {}
        self.applied: dict[str, list[Commit]] = defaultdict(list)
        for row in self.commits:
            if row.writes:
                self.row_of.setdefault(row.id, row)
                self.applied[row.key].append(row)
        for rows in self.applied.values():
            rows.sort(key=lambda row: (row.version, row.pseq))
        self.tenures: dict[int, list[Acquire]] = {p: [r for r in rows if isinstance(r, Acquire)] for p, rows in self.audit.items()}
        self.lost: set[str] = set()
        """Commands whose answers were lost with Redis; filled by the check of losses, where they are allowed."""

    def ms(self, at_s: float) -> float:
        """Redis time of a moment of the monotonic clock."""
        if not self._clocks:
            return at_s * 1000
        at = min(bisect.bisect(self._clocks, at_s, key=lambda c: c.at_s), len(self._clocks) - 1)
        near = min(self._clocks[max(0, at - 1) : at + 1], key=lambda c: abs(c.at_s - at_s))
        return near.at_ms + (at_s - near.at_s) * 1000

    def partition_of(self, id: str) -> int | None:
        row = self.row_of.get(id)
        if row is not None:
            return row.partition
        number = id.split(".")[1:2]
        return int(number[0]) if number and number[0].isdigit() else None

    def owner_at(self, partition: int, at_ms: float) -> str:
        """The worker whose tenure a moment lies in."""
        held = [t for t in self.tenures.get(partition, []) if t.at_ms <= at_ms]
        return held[-1].worker if held else ""


def _operations(begun: Sequence[Invoke], ends: Sequence[Ok | Fail | Info]) -> list[Op]:
    by_name = {(b.client, b.op): Op(b) for b in begun}
    for end in ends:
        if (op := by_name.get((end.client, end.op))) is not None:
            op.end = end
    return list(by_name.values())


def _commands(ops: Iterable[Op]) -> dict[str, Command]:
    found: dict[str, Command] = {}
    for op in sorted(ops, key=lambda op: (op.begun.kind != "write", op.begun.at_s)):
        if op.begun.kind not in ("write", "ask") or not op.id:
            continue
        command = found.get(op.id)
        if command is None:
            if op.begun.kind == "ask":
                continue  # asked after, and sent by nobody: check 3 finds it in the audit, if it is there
            command = found[op.id] = Command(op.id, op.begun, op.begun.at_s, [])
        command.ops.append(op)
        if op.begun.kind == "write":
            command.invoked_s = min(command.invoked_s, op.begun.at_s)
    return found
