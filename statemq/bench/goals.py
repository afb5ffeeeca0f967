"""What each figure should be, and whether it is."""

from __future__ import annotations

import msgspec

from statemq.bench.figures import Figure


class Goal(msgspec.Struct, frozen=True):
    """``at_least`` passes, ``aim`` is where it should go; of the ratio where there is one, else of the value."""

    at_least: float
    aim: float | None = None
    less_is_better: bool = False

    def met(self, reached: float, wanted: float) -> bool:
        return reached <= wanted if self.less_is_better else reached >= wanted


def _most(at_least: float, aim: float | None = None) -> Goal:
    return Goal(at_least, aim, less_is_better=True)


GOALS: dict[str, Goal] = {
    "many keys": Goal(0.5, 0.75),
    "hot key": Goal(0.4, 0.7),
    "three recorded steps": Goal(0.55, 0.8),
    "idle round trip p50, plain": _most(1.6, 1.2),
    "idle round trip p50, 3 steps": _most(1.6, 1.2),
    "CPU per command, all": _most(2.5, 1.6),
    "CPU per command, server": _most(3.0, 1.8),
    "batch drain": Goal(1.2, 2.0),
    "HTTP, 64 connections": Goal(0.2, 0.4),
    "64 partitions": Goal(0.75, 0.9),
    "10 machines x 16 partitions": Goal(0.75, 0.9),
    "idle worker, CPU": _most(1.0),
    "idle worker, Redis commands": _most(20.0),
    "memory per idle instance": _most(600, 400),
    "memory per queued command": _most(600, 400),
    "worker RSS with a backlog": _most(150, 100),
    "rate, deep backlog": Goal(0.9, 1.0),
    "rate, many instances": Goal(0.9, 1.0),
    "takeover, many instances": _most(1.2, 1.0),
    "import statemq": _most(120),
    "statemq --help": _most(250),
}
"""In the order of the table; figures without a goal are shown without a verdict."""


def reached(figure: Figure) -> float:
    """The number that is held against the goal."""
    return figure.value if figure.ratio is None else figure.ratio


def verdict(figure: Figure) -> str:
    """``aim`` (reached), ``pass``, ``short``, or nothing where there is no goal."""
    goal = GOALS.get(figure.name)
    if goal is None:
        return ""
    if goal.aim is not None and goal.met(reached(figure), goal.aim):
        return "aim"
    return "pass" if goal.met(reached(figure), goal.at_least) else "short"
