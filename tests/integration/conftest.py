from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from statemq import Client
from statemq.server import EmbeddedServer
from statemq.store.router import Router
from tests.fake_worker import FakeWorker
from tests.faulty import FaultyProxy
from tests.integration.door import Door


@pytest.fixture
async def router(url: str) -> AsyncIterator[Router]:
    opened = await Router(url).open()
    yield opened
    await opened.close()


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace, machines=[Door]) as opened:
        yield opened


@pytest.fixture
def fake(router: Router, namespace: str) -> FakeWorker:
    return FakeWorker(router, namespace, "door")


@pytest.fixture
async def proxy(server: EmbeddedServer) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(server.port) as running:
        yield running


@pytest.fixture
async def shaky(proxy: FaultyProxy, namespace: str) -> AsyncIterator[Client]:
    """A client whose connections go through the proxy."""
    async with Client(proxy.url, namespace=namespace, machines=[Door]) as opened:
        yield opened
