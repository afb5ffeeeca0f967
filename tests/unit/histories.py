"""Makes histories that keep every promise, from a seed: a small sequential world whose clients overlap in time.

Two partitions, two workers that take over from each other, three clients that write, read, ask again and cancel; steps; faults, of which
one may lose what was written last.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import msgspec

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
from statemq.testing.history import Chain

MODEL = Chain(lambda transition, x: transition != "refuse")
KEYS = ["a", "b", "c", "d"]
WORKERS = ["w0", "w1"]
PID = {"w0": 100, "w1": 101}
TICK_S = 0.1
"""Longer than the checker's allowance for two clocks."""


class Waiting:
    """A command in its key's queue."""

    def __init__(self, begun: Invoke, id: str, entry: str) -> None:
        self.begun, self.id, self.entry = begun, id, entry


class World:
    def __init__(self, seed: int, *, nameless: bool = True) -> None:
        self.dice, self.nameless = random.Random(seed), nameless
        self.now_s = 10.0
        self.lines: list[Line] = []
        self.rows: dict[int, list[Any]] = {0: [], 1: []}
        self.queues: dict[str, list[Waiting]] = defaultdict(list)
        self.state: dict[str, tuple[int, Any]] = dict.fromkeys(KEYS, (0, MODEL.initial))
        self.past: dict[str, list[tuple[int, Any]]] = {key: [(0, MODEL.initial)] for key in KEYS}
        self.ops = 0
        self.entries = 0
        self.tokens: dict[int, tuple[str, str]] = {}
        for partition in (0, 1):
            self.acquire(partition, WORKERS[partition], "")

    def partition(self, key: str) -> int:
        return KEYS.index(key) % 2

    @property
    def ms(self) -> int:
        return round(self.now_s * 1000)

    def later(self) -> float:
        """When an answer arrives."""
        return self.now_s + self.dice.choice([0.01, 0.02, TICK_S * 2.5])

    def invoke(self, kind: str, key: str, **more: Any) -> Invoke:
        self.ops += 1
        begun = Invoke(f"c{self.dice.randrange(3)}", self.ops, self.now_s, kind, key, **more)
        self.lines.append(begun)
        return begun

    def tick(self) -> None:
        self.now_s = round(self.now_s + TICK_S, 3)

    def acquire(self, partition: int, worker: str, how: str) -> None:
        former = self.tokens.get(partition, ("", ""))[1]
        token = f"{self.ms}.{worker}.{len(self.rows[partition]) + 1}"
        self.tokens[partition] = (token, worker)
        self.row(partition, Acquire, token=token, worker=worker, taken_from=former if how else "", how=how)

    def row(self, partition: int, kind: type, **fields: Any) -> None:
        self.rows[partition].append(kind(partition, len(self.rows[partition]) + 1, self.ms, **fields))

    # -- what happens ------------------------------------------------------------------------------

    def write(self, key: str) -> None:
        transition = self.dice.choice(["apply", "apply", "apply", "steps", "sleep", "refuse"])
        begun = self.invoke("write", key, transition=transition, x=self.ops)
        self.entries += 1
        self.queues[key].append(Waiting(begun, f"m.{self.partition(key)}.{begun.op}", f"{self.entries}-0"))

    def read(self, key: str) -> None:
        begun = self.invoke("read", key)
        version, value = self.state[key]
        self.lines.append(Ok(begun.client, begun.op, self.later(), version=version, value=value))

    def end_one(self, key: str) -> None:
        """The head of the key's queue is cancelled or committed, and mostly answered; some ask once more."""
        if not self.queues[key]:
            return
        head = self.queues[key].pop(0)
        begun, partition = head.begun, self.partition(key)
        self.tick()
        if self.dice.random() < 0.1:
            self.lines.append(Fail(begun.client, begun.op, self.later(), head.id, "cancelled", self.ms))
            return
        if begun.transition == "steps":
            self.steps(head.id, partition)
        if begun.transition == "sleep":
            self.sleep(head.id, partition)
        token, worker = self.tokens[partition]
        stepped = MODEL.apply(self.state[key][1], head.id, begun.transition, begun.x)
        if stepped is None:
            self.row(partition, Commit, key=key, id=head.id, entry=head.entry, token=token, worker=worker, outcome="rejected", writes=False)
            ends: list[Any] = [Fail(begun.client, begun.op, self.later(), head.id, "rejected", self.ms)]
        else:
            version = self.state[key][0] + 1
            self.state[key] = (version, stepped[0])
            self.past[key].append(self.state[key])
            self.row(partition, Commit, key=key, id=head.id, entry=head.entry, token=token, worker=worker, version=version)
            ends = [Ok(begun.client, begun.op, self.later(), head.id, version, stepped[1], self.ms)]
        if self.dice.random() < 0.05:
            ends = [Info(begun.client, begun.op, self.later(), self.dice.choice(["" if self.nameless else head.id, head.id]))]
        elif self.dice.random() < 0.2:
            self.tick()
            asked = self.invoke("ask", key, id=head.id)
            again = Fail if stepped is None else Ok
            rest = ("rejected", ends[0].committed_ms) if stepped is None else (version, stepped[1], ends[0].committed_ms)
            ends.append(again(asked.client, asked.op, self.later(), head.id, *rest))
        self.lines += ends

    def steps(self, id: str, partition: int) -> None:
        for step in ("first", "second"):
            if self.dice.random() < 0.1:  # another took over a while ago, and the former owner, which does not know yet, comes first
                former = self.tokens[partition][1]
                self.take_over(partition)
                for _ in range(20):
                    self.tick()
                self.lines.append(Effect(id, step, PID[former], self.now_s))
                for _ in range(20):
                    self.tick()
            self.run_step(id, step, partition)
            if self.dice.random() < 0.2:  # its worker dies before the record
                self.tick()
                self.take_over(partition)
                self.tick()
                self.run_step(id, step, partition)
            self.tick()
            self.row(partition, Record, id=id, step=step, token=self.tokens[partition][0])
            if self.dice.random() < 0.1:  # another takes over, and the former owner does not know yet
                former = self.tokens[partition][1]
                self.tick()
                self.take_over(partition)
                self.tick()
                self.lines.append(Effect(id, step, PID[former], self.now_s))
            self.tick()

    def run_step(self, id: str, step: str, partition: int) -> None:
        """By the owner, and to its end."""
        begun = Effect(id, step, PID[self.tokens[partition][1]], self.now_s)
        self.lines += [begun, Ended(id, step, begun.pid, begun.at_s, begun.at_s + TICK_S / 4)]

    def sleep(self, id: str, partition: int) -> None:
        due_s = self.now_s + self.dice.choice([1, 5]) * TICK_S
        self.lines.append(Asked(id, PID[self.tokens[partition][1]], self.now_s, due_s - self.now_s))
        self.row(partition, Slept, id=id, field="sleep@1")
        while self.now_s < due_s:
            self.tick()
        self.lines.append(Woke(id, PID[self.tokens[partition][1]], self.now_s))
        if self.dice.random() < 0.2:  # what came behind it fails, and the next attempt passes the sleep again
            self.tick()
            self.lines.append(Woke(id, PID[self.tokens[partition][1]], self.now_s))

    def take_over(self, partition: int) -> None:
        """The owner is cut off for longer than its lease, or (of the partition that nobody goes back to) its process ends."""
        other = next(w for w in WORKERS if w != self.tokens[partition][1])
        start_s = self.now_s
        self.acquire(partition, other, "silent")
        self.lines.append(Fault("cut off", start_s, start_s, start_s + 60.0, bit=1))

    def lose(self, partition: int, commits: int, spared: int = 0) -> list[Any]:
        """The server dies and comes back without its last writes to this partition, and with all those of the other. Returns what
        is gone. ``spared``: so many of the very last ones are there, which never should be."""
        rows = self.rows[partition]
        keep = len(rows)
        for _ in range(commits + spared):
            if isinstance(rows[keep - 1], Commit):
                keep -= 1
        lost = rows[keep : len(rows) - spared]
        rows[keep:] = [msgspec.structs.replace(row, pseq=keep + i + 1) for i, row in enumerate(rows[len(rows) - spared :])]
        for row in lost:
            if row.writes:
                self.past[row.key].pop()
                self.state[row.key] = self.past[row.key][-1]
        self.now_s = round(self.now_s + 1.0, 3)
        self.lines.append(Fault("torn", self.now_s - 0.9, self.now_s, self.now_s + 60.0, bit=1, at_ms=self.ms - 900))
        self.tick()
        self.acquire(partition, self.tokens[partition][1], "")
        return lost

    def killed(self) -> None:
        """A third worker had a partition of its own, and died."""
        self.lines += [
            Process(102, "w2", 9.0),
            Effect("m.2.1", "first", 102, 8.9),
            Invoke("c0", 4000, 8.8, "write", "a"),
            Info("c0", 4000, 9.1, "m.2.1"),
        ]
        self.lines += [
            Acquire(2, 1, 8_000, "8000.w2.1", "w2"),
            Acquire(2, 2, 9_100, "9100.w0.99", "w0", "w2", "died"),
        ]

    def some(self, n: int) -> None:
        for _ in range(n):
            self.tick()
            key = self.dice.choice(KEYS)
            self.dice.choice([self.write, self.write, self.read, self.end_one, self.end_one])(key)

    def end(self) -> list[Line]:
        """All drains, each key and worker works once more, and what is left is looked at."""
        for key in KEYS:
            while self.queues[key]:
                self.end_one(key)
        self.tick()
        for partition in (0, 1):
            if self.tokens[partition][1] != WORKERS[partition]:
                self.acquire(partition, WORKERS[partition], "")
        self.tick()
        healed_s = self.now_s
        for key in KEYS * 6:
            self.tick()
            begun = self.invoke("write", key, transition="apply", x=self.ops)
            self.entries += 1
            version, value = self.state[key]
            value = MODEL.apply(value, id := f"m.{self.partition(key)}.{begun.op}", "apply", begun.x)[0]  # type: ignore[index]
            self.state[key] = (version + 1, value)
            token, worker = self.tokens[self.partition(key)]
            self.row(
                self.partition(key), Commit, key=key, id=id, entry=f"{self.entries}-0", token=token, worker=worker, version=version + 1
            )
            self.lines.append(Ok(begun.client, begun.op, self.now_s + 0.01, id, version + 1, value, self.ms))
        faults = {line.kind for line in self.lines if isinstance(line, Fault)}
        self.lines += [row for rows in self.rows.values() for row in rows]
        ids = {f"m.{self.partition(key)}.{b.op}": b for key in KEYS for b in self.lines if isinstance(b, Invoke) and b.key == key}
        for key in KEYS:
            slept = sum(isinstance(r, Commit) and r.writes and r.key == key and ids[r.id].transition == "sleep" for r in self.lines)
            self.lines.append(Final(key, *self.state[key], {"sleep": slept}))
        self.lines += [Process(pid, worker) for worker, pid in PID.items()]
        self.killed()
        self.lines += [Standing("w0", [0]), Standing("w1", [1])]
        self.lines += [Key(f"t:{{m:{p}}}:{kind}", kind, 3, 200) for p in (0, 1) for kind in ("lease", "history")]
        self.lines += [Key("t:{m:0}:commands", "commands", 0, 90), Key("t:{m:0}:outcomes:7", "outcomes", 9, 900, ttl_ms=1000)]
        self.lines.append(
            Demand(
                losses="torn" in faults, healed_s=healed_s, tail_s=60.0, bites=sorted(faults),
                most={"lease": (2, 1000), "outcomes": (4, 10_000)}, longest={"history": 3}, sleeps_late_s=5.0,
            )
        )  # fmt: skip
        return self.lines


def honest(seed: int, events: int = 60, *, nameless: bool = True) -> list[Line]:
    """A history that keeps every promise. ``nameless``: of some writes nobody learnt the id."""
    world = World(seed, nameless=nameless)
    world.some(events)
    return world.end()


def rewound(seed: int, commits: int, events: int = 40, spared: int = 0) -> tuple[list[Line], list[Any]]:
    """One in whose middle Redis lost up to so many commits of one partition; they come with it."""
    world = World(seed, nameless=False)
    world.some(events)
    for key in ("a", "c"):
        while world.queues[key]:
            world.end_one(key)
    lost = world.lose(0, commits, spared)
    world.some(events)
    return world.end(), lost
