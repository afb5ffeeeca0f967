"""One question to statemq: find the Redis, connect, ask, close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from statemq.cli.find import find

if TYPE_CHECKING:
    from statemq.client import Client

R = TypeVar("R")


def ask(redis: str | None, namespace: str | None, question: Callable[[Client], Awaitable[R]], machines: Sequence[type[Any]] = ()) -> R:
    """The answer to ``question``. Raises what the client raises; KeyboardInterrupt after Ctrl-C, the connection closed."""
    place = find(redis, namespace)

    async def run() -> R:
        async with open_client(place.url, place.namespace, machines) as client:
            return await question(client)

    return asyncio.run(run())


def open_client(url: str, namespace: str, machines: Sequence[type[Any]]) -> Client:
    from statemq.client import Client

    return Client(url, namespace=namespace, machines=machines)
