"""The tour: what users do with statemq, one file a capability, against a real server and a real worker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from statemq import Client


@pytest.fixture
async def client(url: str, namespace: str) -> AsyncIterator[Client]:
    async with Client(url, namespace=namespace) as opened:
        yield opened
