from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.integration.races import probe
from tests.integration.races.stage import Stage, stage


@pytest.fixture
async def play(url: str, namespace: str) -> AsyncIterator[Stage]:
    async with stage(url, namespace) as s:
        yield s


@pytest.fixture
async def strict(url: str, namespace: str) -> AsyncIterator[Stage]:
    """The same with a machine that pauses an instance whose command has failed."""
    async with stage(url, namespace, probe.Strict) as s:
        yield s


@pytest.fixture
def hooks() -> Iterator[dict[str, Callable[..., Any]]]:
    probe.HOOKS.clear()
    yield probe.HOOKS
    probe.HOOKS.clear()
