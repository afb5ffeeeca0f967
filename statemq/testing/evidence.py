"""What the checker looks at: records of what was done, heard, written and broken, one JSON object a line.

Any process may write them, in any language. All processes of a run share one monotonic clock (``*_s``: CLOCK_MONOTONIC of one host, in
seconds); ``*_ms`` is Redis time. ``Clock`` ties the two. A folder holds the records in any number of ``*.jsonl`` files, in any order but
one: the ``commit``, ``acquire``, ``record`` and ``sleep`` rows of a partition carry ``pseq``, which counts them in the order of their
scripts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec


class Invoke(msgspec.Struct, frozen=True, tag="invoke", omit_defaults=True):
    """A client begins something, written down before it is sent. ``client`` and ``op`` name it.

    ``kind``: write (a command), read (an instance's value), ask (an outcome once more), cancel. ``in_line``: this client's submit order
    binds it (not: one with a delay). ``id``: the command's, where it is known before (ask, cancel).
    """

    client: str
    op: int
    at_s: float
    kind: str
    key: str = ""
    transition: str = ""
    x: int = 0
    in_line: bool = True
    id: str = ""


class Ok(msgspec.Struct, frozen=True, tag="ok", omit_defaults=True):
    """It was done. A write: the command's id, the version it made, its result, and when by Redis time. A read: the version and value it
    saw."""

    client: str
    op: int
    at_s: float
    id: str = ""
    version: int = 0
    value: Any = None
    committed_ms: int = 0
    safe: bool = False
    """Its client had asked for durability, so no loss of the server's may take it back."""


class Fail(msgspec.Struct, frozen=True, tag="fail", omit_defaults=True):
    """It was certainly not applied: rejected, failed for good, cancelled. Never for a timeout or a lost connection."""

    client: str
    op: int
    at_s: float
    id: str = ""
    why: str = ""
    committed_ms: int = 0


class Info(msgspec.Struct, frozen=True, tag="info", omit_defaults=True):
    """Nobody knows, for ever. ``id`` if it was learnt: a write without one could be any command of its key and transition."""

    client: str
    op: int
    at_s: float
    id: str = ""
    why: str = ""


class Commit(msgspec.Struct, frozen=True, tag="commit", omit_defaults=True):
    """Audit: a command ended, written by the commit script. ``version`` is the one it made if it ``writes``; ``token``: of its owner."""

    partition: int
    pseq: int
    at_ms: int
    key: str
    id: str
    entry: str
    token: str
    worker: str
    version: int = 0
    outcome: str = "completed"
    writes: bool = True


class Acquire(msgspec.Struct, frozen=True, tag="acquire", omit_defaults=True):
    """Audit: a tenure begins. ``taken_from``: the former owner whose lease stood; ``how``: died, silent, or empty for a free one."""

    partition: int
    pseq: int
    at_ms: int
    token: str
    worker: str
    taken_from: str = ""
    how: str = ""


class Record(msgspec.Struct, frozen=True, tag="record", omit_defaults=True):
    """Audit: a step's record was written to the journal."""

    partition: int
    pseq: int
    at_ms: int
    id: str
    step: str
    token: str


class Slept(msgspec.Struct, frozen=True, tag="sleep", omit_defaults=True):
    """Audit: a sleep's record was written to the journal."""

    partition: int
    pseq: int
    at_ms: int
    id: str
    field: str


class Effect(msgspec.Struct, frozen=True, tag="effect"):
    """A step's body began, written by itself to the outside world."""

    id: str
    step: str
    pid: int
    at_s: float


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The end of the body that began at ``began_s``, where it came to one."""

    id: str
    step: str
    pid: int
    began_s: float
    at_s: float


class Asked(msgspec.Struct, frozen=True, tag="asked"):
    """A transition is about to sleep for so long, at every attempt; written by itself to the outside world."""

    id: str
    pid: int
    at_s: float
    sleep_s: float


class Woke(msgspec.Struct, frozen=True, tag="woke"):
    """The same went on from that sleep."""

    id: str
    pid: int
    at_s: float


class Process(msgspec.Struct, frozen=True, tag="process", omit_defaults=True):
    """A worker process and the worker id it had. ``ended_s``: when it was killed or told to end; 0 if it never was."""

    pid: int
    worker: str
    ended_s: float = 0.0


class Fault(msgspec.Struct, frozen=True, tag="fault", omit_defaults=True):
    """Something was broken. ``end_s``: it was mended; ``recovered_s``: all was seen at work again. ``bit``: how much it hit
    (processes, connections, replies …). ``at_ms``, of one that may lose Redis writes: the server's last moment by its own clock.
    ``clock``: it set the server's clock. ``torn``: it took from the file what had been written down for good."""

    kind: str
    start_s: float
    end_s: float
    recovered_s: float = 0.0
    bit: int = 0
    at_ms: int = 0
    note: str = ""
    clock: bool = False
    torn: bool = False


class Clock(msgspec.Struct, frozen=True, tag="clock"):
    """Both clocks at one moment. Take some along the run: the nearest one counts."""

    at_s: float
    at_ms: int


class Key(msgspec.Struct, frozen=True, tag="key", omit_defaults=True):
    """A key of the final dump. ``kind``: its name without namespace, partition and user text (``instance``, ``in``, ``timers:data``);
    ``length``: entries; ``pending``: of a stream's group; ``ttl_ms``: -1 for none."""

    name: str
    kind: str
    length: int = 0
    bytes: int = 0
    ttl_ms: int = -1
    pending: int = 0


class Final(msgspec.Struct, frozen=True, tag="final", omit_defaults=True):
    """An instance as it stood in the end. ``tallies``: by transition, how many it has counted in its own data."""

    key: str
    version: int
    value: Any = None
    tallies: dict[str, int] = {}


class Standing(msgspec.Struct, frozen=True, tag="standing"):
    """A worker that lived in the end, and the partitions it held by their leases."""

    worker: str
    partitions: list[int]


class Demand(msgspec.Struct, frozen=True, tag="demand", omit_defaults=True):
    """What this run has to show. ``losses``: Redis writes may have been lost, so suffixes of what was answered may be missing.

    ``healed_s``: the last fault's end; within ``tail_s`` of it each key and each worker has ``successes``. ``bites``: kinds of faults
    that must have hit something. ``most``: the bound of keys of a kind, and of bytes of a kind (``instance``: [60, 100000]);
    ``longest``: of entries in each key of a kind. ``sleeps_late_s``: so late a sleep may end where nothing is broken (0: not judged).
    """

    losses: bool = False
    healed_s: float = 0.0
    tail_s: float = 0.0
    successes: int = 5
    oks_per_fault: int = 1
    bites: list[str] = []
    most: dict[str, tuple[int, int]] = {}
    longest: dict[str, int] = {}
    sleeps_late_s: float = 0.0


Line: TypeAlias = (
    Invoke
    | Ok
    | Fail
    | Info
    | Commit
    | Acquire
    | Record
    | Slept
    | Effect
    | Ended
    | Asked
    | Woke
    | Process
    | Fault
    | Clock
    | Key
    | Final
    | Standing
    | Demand
)  # fmt: skip

_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


def line(record: Line) -> bytes:
    """The record as a line of a file."""
    return _encode(record) + b"\n"


def read(folder: Path) -> list[Line]:
    """All records of a folder. A last line without its end was being written when its writer was killed, and is left out."""
    found: list[Line] = []
    for path in sorted(folder.glob("*.jsonl")):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        found += map(_decode, whole.splitlines())
    return found


def write(folder: Path, name: str, records: Iterable[Line]) -> None:
    (folder / f"{name}.jsonl").write_bytes(b"".join(map(line, records)))
