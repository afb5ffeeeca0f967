"""A worker says that Redis is away, while it is, and when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from statemq import events
from statemq.worker import away
from statemq.worker.daemon import Worker
from tests.faulty import FaultyProxy
from tests.integration.box import Box
from tests.waiting import wait_until
from tests.working import working


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What operators are warned of."""
    monkeypatch.setattr(away, "AGAIN_S", 0.3)
    texts: list[str] = []

    def hear(event: events.Event) -> None:
        if isinstance(event, events.Warned):
            texts.append(event.text)

    events.listeners.append(hear)
    yield texts
    events.listeners.remove(hear)


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(int(url.rsplit(":", 1)[1].split("/")[0])) as opened:
        yield opened


async def test_a_connection_that_is_refused_is_said_again_and_again_and_that_it_is_back(
    proxy: FaultyProxy, namespace: str, said: list[str]
) -> None:
    async with working(proxy.url, namespace, Box):
        proxy.refuse = True
        proxy.cut()
        await wait_until(lambda: sum("is away" in text for text in said) > 1)
        proxy.refuse = False
        await wait_until(lambda: any("answers again" in text for text in said))


async def test_silence_is_noticed_where_nothing_else_is_asked(proxy: FaultyProxy, namespace: str, said: list[str]) -> None:
    async with working(proxy.url, namespace, Box):
        proxy.black_hole = True
        await wait_until(lambda: any("is away (no answer)" in text for text in said))
        proxy.black_hole = False
        proxy.cut()
        await wait_until(lambda: any("answers again" in text for text in said))


async def test_it_serves_only_when_redis_has_answered(proxy: FaultyProxy, namespace: str, said: list[str]) -> None:
    proxy.refuse = True
    served: list[bool] = []
    worker = Worker([Box], proxy.url, namespace=namespace, serving=lambda: served.append(proxy.refuse))
    running = asyncio.ensure_future(worker.run())
    await wait_until(lambda: any("is away" in text for text in said))
    assert not served
    proxy.refuse = False
    await wait_until(lambda: bool(served) or running.done())
    worker.stop()
    await running
    assert served == [False]
