"""A sleep of a body ends, however the clock runs between two looks at it."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from statemq.worker import tell
from statemq.worker.waits import Waits


@pytest.mark.parametrize("late_ms", range(4))
async def test_a_timer_that_rings_a_moment_early_rings_again(late_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop's clock and that by which a sleep is due are two: at the first ring it is not over, at the next look it is."""
    monkeypatch.setattr(tell, "waits", lambda *_, **__: None)
    now: Any = itertools.count(1_000_000)
    partition = SimpleNamespace(
        now_ms=lambda: next(now),
        crash=None,
        draining=False,
        patience_s=60.0,
        shop=SimpleNamespace(context=contextvars.copy_context()),
    )
    slot = SimpleNamespace(regained=lambda: True, rest=lambda: None)
    attempt: Any = SimpleNamespace(
        partition=partition, command=None, order=None, is_open=True, slot=slot, branches=SimpleNamespace(hold=lambda over: over)
    )
    waits = Waits(attempt)
    over = asyncio.ensure_future(waits.until("sleep@1", 1_000_001 + late_ms))  # begun at 1,000,000: each look is a millisecond later
    async with asyncio.timeout(20):
        await over
    waits.close()
    assert not waits
