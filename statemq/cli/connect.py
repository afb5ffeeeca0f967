"""One question to statemq: find the Redis, connect, ask, close."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from statemq.cli.ends import say
from statemq.cli.find import find
from statemq.config import shown

if TYPE_CHECKING:
    from statemq.client.client import Client

R = TypeVar("R")

SILENT_S = 1.0
"""Whoever waits longer for a connection is told so."""


def ask(redis: str | None, namespace: str | None, question: Callable[[Client], Awaitable[R]], machines: Sequence[type[Any]] = ()) -> R:
    """The answer to ``question``. Raises what the client raises; KeyboardInterrupt after Ctrl-C, the connection closed."""
    import asyncio

    place = find(redis, namespace)

    async def run() -> R:
        where = shown(place.url)
        opened = open_client(place.url, place.namespace, machines)  # its imports take their time, which Redis is not to blame for
        remark = asyncio.get_running_loop().call_later(SILENT_S, say, f"no answer from Redis at {where} yet; trying for some seconds")
        try:
            async with opened as client:
                remark.cancel()
                return await question(client)
        finally:
            remark.cancel()

    return asyncio.run(run())


def open_client(url: str, namespace: str, machines: Sequence[type[Any]]) -> Client:
    from statemq.client.client import Client

    return Client(url, namespace=namespace, machines=machines)
