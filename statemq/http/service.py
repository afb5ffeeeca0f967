"""What the handlers share: the process's one client, the machines it was given, the limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from statemq.client.client import Client
from statemq.command import Declared
from statemq.config import HttpSettings
from statemq.declaration.spec import MachineSpec, spec_of
from statemq.errors import Pending, RedisAway, StatemqError
from statemq.http.problems import Refusal
from statemq.http.request import Request
from statemq.http.waiting import Waiting

log = logging.getLogger("statemq.http")

CONNECT_EVERY_S = 0.5
"""Between two attempts while Redis is away."""

T = TypeVar("T")


class Service:
    """``connect`` makes a client that is not connected; each process keeps one, which comes back by itself after a failure."""

    def __init__(self, machines: Iterable[type[Declared]], connect: Callable[[], Client], settings: HttpSettings) -> None:
        self.specs: dict[str, MachineSpec] = {spec.name: spec for spec in map(spec_of, machines)}
        self.settings = settings
        self.waiting = Waiting(settings.max_waiting, settings.max_waiting_each)
        self._connect = connect
        self._client: Client | None = None
        self._connecting: asyncio.Future[None] | None = None
        self._tried = asyncio.Event()
        self._fault: StatemqError | None = None

    async def process_startup(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        if not self._tried.is_set():
            await self.start()

    async def process_shutdown(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        await self.close()

    async def start(self) -> None:
        """Connected, unless Redis is away; then requests answer 503 until it is there. Raises what would never work."""
        try:
            await self.client()
        except RedisAway as error:
            log.warning("Redis does not answer yet (%s); requests are answered 503 until it does", error)

    async def client(self) -> Client:
        """The connected client. While Redis is away, one task tries for all; requests get its last error at once."""
        if self._client is None:
            if self._connecting is None or self._connecting.done():
                self._connecting = asyncio.ensure_future(self._keep_connecting())
            await self._tried.wait()  # an attempt has a time limit
            if self._client is None:
                if self._connecting.done():
                    self._connecting.result()  # what nobody foresaw is raised here
                assert self._fault is not None
                raise self._fault.with_traceback(None)
        return self._client

    async def _keep_connecting(self) -> None:
        while self._client is None:
            try:
                self._client = await self._connect().connect()
            except StatemqError as error:
                self._fault = error
            finally:
                self._tried.set()
            if self._client is None:
                await asyncio.sleep(CONNECT_EVERY_S)

    async def within(self, answer: Awaitable[T]) -> T:
        """What Redis answers; RedisAway when it takes too long, instead of a request that hangs."""
        try:
            async with asyncio.timeout(self.settings.redis_within_s):
                return await answer
        except Pending:
            raise
        except TimeoutError:
            raise RedisAway(f"Redis did not answer within {self.settings.redis_within_s:g} s") from None

    def check_kind(self, machine: str, name: str, method: str) -> None:
        """Transitions are POSTed, queries are got. Raises Refusal for the other way round; unknown names are the client's to refuse."""
        spec = self.specs.get(machine)
        if spec is None:
            return
        if method == "GET" and name in spec.transitions and name not in spec.queries:
            raise Refusal("method", f"{name} is a transition of {machine}: POST it", headers={"Allow": "POST, OPTIONS"})
        if method == "POST" and name in spec.queries and name not in spec.transitions:
            raise Refusal("method", f"{name} is a query of {machine}: GET it", headers={"Allow": "GET, HEAD, OPTIONS"})

    async def arguments(self, req: Request) -> dict[str, Any]:
        """The request's body. Raises Refusal if it is too large, too slow or no JSON object."""
        try:
            async with self.waiting.within(self.settings.body_within_s):
                return await req.arguments(self.settings.max_body)
        except TimeoutError:
            if self.waiting.stopping:
                raise Refusal("stopping", "this server is ending; nothing was queued") from None
            raise Refusal("slow", f"the body did not arrive within {self.settings.body_within_s:g} s") from None

    async def close(self) -> None:
        """Waiting requests have been told to answer, the client is closed."""
        self.waiting.stop()
        if self._connecting is not None:
            self._connecting.cancel()
        self._connecting, self._fault = None, None
        self._tried.clear()
        client, self._client = self._client, None
        if client is not None:
            await client.close()
