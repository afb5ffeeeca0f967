"""A run: the works that were asked for, one after another, and what came of them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence

import msgspec

from statemq.bench import works
from statemq.bench.figures import Balance, Figure
from statemq.bench.loops import has_uvloop
from statemq.bench.scale import scale
from statemq.bench.stage import Stage, Tell
from statemq.bench.start import start
from statemq.errors import UsageError

SECONDS = 3.0
SCALE = 100_000

WORKS: dict[str, Callable[[Stage], list[Figure]]] = {
    "many-keys": works.many_keys,
    "hot-key": works.hot_key,
    "steps": works.steps,
    "idle": works.idle,
    "batch": works.batch,
    "http": works.http,
    "partitions": works.partitions,
    "start": start,
}
"""And ``scale``, which needs to know how much."""

NAMES = (*WORKS, "scale")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """``balances``: for each work with commands in it, whether anything was lost."""

    server: str
    python: str
    cpus: int
    uvloop: bool
    seconds: float
    rounds: int
    figures: list[Figure]
    balances: dict[str, Balance]

    @property
    def even(self) -> bool:
        return all(balance.even for balance in self.balances.values())


def choose(names: Sequence[str]) -> list[str]:
    """The works by these names, in the order of the table; all if none is named. Raises UsageError."""
    if unknown := [name for name in names if name not in NAMES]:
        raise UsageError(f"there is no work {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    return [name for name in NAMES if name in names or not names]


def bench(url: str | None, names: Sequence[str], *, seconds: float, count: int, tell: Tell, finished: Callable[[], None]) -> Report:
    """Runs the works; ``tell`` hears what is measured now, ``finished`` is called after each work.

    ``seconds``: measured time of each side of a comparison. ``count``: commands and instances of ``scale``.
    Raises ServerError, RedisAway, UsageError; no process and nothing in Redis is left either way.
    """
    figures: list[Figure] = []
    with Stage(url, seconds, tell) as stage:
        for name in choose(names):
            tell(name)
            figures += scale(stage, count) if name == "scale" else WORKS[name](stage)
            finished()
        return Report(
            server=stage.probe.version(),
            python=platform.python_version(),
            cpus=os.cpu_count() or 1,
            uvloop=has_uvloop(),
            seconds=seconds,
            rounds=stage.rounds,
            figures=figures,
            balances=stage.balances,
        )
