"""A connection that is lost while it greets tells nothing about the server."""

from __future__ import annotations

import logging

import pytest

from statemq.server import EmbeddedServer
from statemq.store.router import Router
from tests.faulty import FaultyProxy


@pytest.mark.parametrize("word", ["function", "info"])
async def test_a_lost_answer_is_no_denial(server: EmbeddedServer, word: str, caplog: pytest.LogCaptureFixture) -> None:
    """The answer about the memory is lost with its connection; the next one has it, and nobody is told that INFO is denied."""
    async with FaultyProxy(server.port) as proxy:
        proxy.lose_reply(word)
        router = await Router(proxy.url).open()
        await router.close()
        assert proxy.seen["INFO"] + proxy.seen["info"] >= 2
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
