"""What else the end of a command changes, beside its own columns: each effect is a file in ``lua/effects/`` and a struct here.

A call brings them as its tail, so that a command without any pays for none. All checks of a call precede its first write, and an effect
acts only if its command has ended by this call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec

from statemq.store.commands import Queued

Arg = bytes | str | int | float


class Effect(msgspec.Struct, frozen=True):
    """``name`` is that of its file; ``keys`` and ``args`` are what its header there lists."""

    name: ClassVar[str]

    @property
    def keys(self) -> Sequence[str]:
        return ()

    @property
    def args(self) -> Sequence[Arg]:
        return ()


class Once(Effect, frozen=True):
    """Whoever repeats the request hears of its end, from this idempotency record."""

    name: ClassVar[str] = "once"
    record: str

    @property
    def keys(self) -> Sequence[str]:
        return (self.record,)


def of_end(c: Queued) -> tuple[Effect, ...]:
    """What each end of the command brings, however it ends."""
    return (Once(c.once),) if c.once else ()


def lay_out_effects(effects: Iterable[tuple[int, Effect]]) -> tuple[list[str], list[Arg]]:
    """The KEYS and the ARGV of a tail; each effect comes with the place of its command in the call, from 1."""
    names: list[str] = []
    tail: list[Arg] = []
    for place, effect in effects:
        keys, args = effect.keys, effect.args
        names += keys
        tail += (place, effect.name, len(keys), len(args), *args)
    return names, tail
