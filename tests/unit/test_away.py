"""What a worker takes for a Redis that is away: one that is silent, not one that is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from statemq import events
from statemq.worker.away import tell_away
from tests.unit.bodies import play


class Node:
    """Calls wait for their answers all the time; it is quiet as long as ``quiet`` says, by the time."""

    trouble = None
    idle = False

    def __init__(self, quiet: Callable[[float], float], up: Callable[[float], bool] = lambda at_s: True) -> None:
        self._quiet, self._up = quiet, up

    @property
    def quiet_s(self) -> float:
        return self._quiet(asyncio.get_running_loop().time())

    @property
    def up(self) -> bool:
        return self._up(asyncio.get_running_loop().time())


def said(*nodes: Node, for_s: float = 20.0) -> list[str]:
    texts: list[str] = []

    def hear(event: events.Event) -> None:
        if isinstance(event, events.Warned):
            texts.append(event.text)

    async def run() -> None:
        router: Any = SimpleNamespace(nodes=list(nodes), address="here")
        telling = asyncio.ensure_future(tell_away(router))
        await asyncio.sleep(for_s)
        telling.cancel()

    events.listeners.append(hear)
    try:
        play(run)
    finally:
        events.listeners.remove(hear)
    return texts


@pytest.mark.parametrize("answers_each_s", [0.23, 0.3, 0.4, 0.49])
def test_answers_that_take_long_are_no_absence(answers_each_s: float) -> None:
    assert said(Node(lambda at_s: at_s % answers_each_s)) == []


def test_nodes_that_are_slow_one_after_the_other_are_not_away() -> None:
    nodes = [Node(lambda at_s, n=n: 0.4 if int(at_s / 0.45) % 2 == n else 0.0) for n in range(2)]  # type: ignore[misc]
    assert said(*nodes) == []


def test_one_that_is_silent_is_away_and_back_beside_others_that_answer() -> None:
    silent = Node(lambda at_s: max(0.0, at_s - 3.0) if at_s < 6.0 else 0.0)
    down = Node(lambda at_s: 0.0, lambda at_s: not 3.0 < at_s < 6.0)
    for node in (silent, down):
        away, back = said(Node(lambda at_s: at_s % 0.3), node)
        assert "is away (no answer)" in away
        assert "answers again, after" in back
