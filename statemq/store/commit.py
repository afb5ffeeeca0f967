"""Ended commands laid out for the commit script: one call for all that ended since the last (P19, P21)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from statemq.config import LIMITS
from statemq.keys import PartitionKeys
from statemq.store.commands import Queued
from statemq.store.fence import Arg


class Ended(msgspec.Struct):
    """A command that ended, before it is committed. ``version`` is the one it was run on; ``writes``: it changes the instance."""

    command: Queued
    outcome: str
    json: bytes
    version: int
    writes: bool = False
    source: str = ""
    """The state it was run in; empty for an instance that does not exist yet."""
    target: str = ""
    data: bytes = b""
    """The instance's data; of a command that writes nothing, why, for the history."""
    entered: str = ""
    """The version at which the target was entered; empty when the state's visit goes on."""
    attempts: int = 1

    @property
    def size(self) -> int:
        return len(self.json) + len(self.data) + 300


def take_batch(ended: list[Ended]) -> list[Ended]:
    """Takes from the front what goes into one call: at most 128 commands and 256 KB, at least one."""
    size = n = 0
    for e in ended:
        size += e.size
        if n == LIMITS.batch or (n and size > LIMITS.batch_bytes):
            break
        n += 1
    batch = ended[:n]
    del ended[:n]
    return batch


def lay_out(batch: Sequence[Ended], keys: PartitionKeys) -> tuple[list[str], list[str], list[Arg]]:
    """The states, the KEYS of the commands and their ARGV, for ``Fence.commit``."""
    states: dict[str, int] = {}
    names: list[str] = []
    args: list[Arg] = []
    for e in batch:
        c = e.command
        flags = "w" if e.writes else ""
        names.append(keys.instance_ + c.key)
        if c.parked:
            flags += "i"
            names.append(keys.inbox_ + c.key)
        if c.claimed or c.journalled:
            flags += "p"
        if c.journalled:
            flags += "j"
            names.append(keys.steps_ + c.id)
        if c.once:
            flags += "o"
            names.append(c.once)
        if c.timed:
            flags += "t"
        if e.attempts > 1:
            flags += f"a{e.attempts}"
        source = states.setdefault(e.source, len(states) + 1) if e.source else 0
        target = states.setdefault(e.target, len(states) + 1) if e.target else 0
        args += (
            c.entry, flags, c.id, c.key, c.transition, e.version, source, target,
            e.data, e.entered, e.json, e.outcome, c.reply,
        )  # fmt: skip
    return list(states), names, args


def words(reply: list[Any], n: int) -> list[str]:
    """What became of each command: applied, gone or conflict."""
    return ["applied"] * n if len(reply) == 1 else [w.decode() for w in reply[1:]]
