"""Ended commands laid out for the commit script: one call for all that ended since the last (P19, P21)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from statemq.config import LIMITS
from statemq.keys import PartitionKeys
from statemq.store.commands import Queued
from statemq.store.effects import Arg, Effect, lay_out_effects, of_end


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
    entered: bool = False
    """The target is entered (anew); else the state's visit goes on."""
    attempts: int = 1
    effects: tuple[Effect, ...] = ()

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
    """The states, the KEYS of the commands and their ARGV (the ids first, the effects' tail last), for ``Fence.commit``."""
    states: dict[str, None] = {}
    names: list[str] = []
    effects: list[tuple[int, Effect]] = []
    args: list[Arg] = [e.command.id for e in batch]
    for place, e in enumerate(batch, 1):
        c = e.command
        names.append(keys.instance_ + c.key)
        flags = "e" if e.entered else ""
        if c.parked or c.claimed or c.journalled or c.timed or e.attempts > 1:
            flags += _flags(e, keys, names)
        if c.once or e.effects:
            effects += ((place, effect) for effect in (*of_end(c), *e.effects))
        next_version: Arg = ""
        if e.writes:
            next_version = e.version + 1
            states[e.target] = None
            if e.source:
                states[e.source] = None
        args += (
            c.entry, flags, c.key, c.transition, e.version, next_version, e.source, e.target, e.data, e.json[:-1], e.outcome, c.reply,
        )  # fmt: skip
    if effects:
        more, tail = lay_out_effects(effects)
        names += more
        args += tail
    return list(states), names, args


def _flags(e: Ended, keys: PartitionKeys, names: list[str]) -> str:
    """What is not plain about it; ``names`` gets the keys that go with it."""
    c, flags = e.command, ""
    if c.parked:
        flags += "i"
        names.append(keys.inbox_ + c.key)
    if c.claimed or c.journalled:
        flags += "pj"  # a journal also where nothing was recorded: who asks for its end begins one
        names.append(keys.steps_ + c.id)
    if c.timed:
        flags += "t"
    return flags + (f"a{e.attempts}" if e.attempts > 1 else "")


def words(reply: list[Any], n: int) -> list[str]:
    """What became of each command: applied, gone or conflict."""
    return ["applied"] * n if len(reply) == 1 else [w.decode() for w in reply[1:]]
