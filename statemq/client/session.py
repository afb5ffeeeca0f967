"""A client's connection: made once, in one process and one event loop, closed once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from statemq.client.handle import Duration
from statemq.codec import duration_ms, parse_command_id, short_id
from statemq.command import Declared
from statemq.config import DEFAULT_NAMESPACE, DEFAULT_URL, check_namespace
from statemq.declaration.spec import spec_of
from statemq.errors import Pending, RedisAway, UsageError
from statemq.keys import PartitionKeys
from statemq.store.append import Appender
from statemq.store.catalog import Catalog
from statemq.store.durability import check as check_durability
from statemq.store.durability import parse as parse_durability
from statemq.store.durability import settled, stand
from statemq.store.reply import Replies
from statemq.store.router import Router

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S", bound="Session")

CONNECT_WITHIN_S = 5.0

WITHIN_S = 10.0
"""How long Redis may take for an answer, unless a client says otherwise."""

_forks = 0
"""How many forks lie between this process and the one that loaded this module."""


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


def bounded(ask: Callable[Concatenate[S, P], Awaitable[T]]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """The question ends within the client's time-out: with RedisAway, if Redis has not answered by then."""

    @wraps(ask)
    async def asked(self: S, /, *what: P.args, **how: P.kwargs) -> T:
        self._check()  # a time-out needs a loop, which a forked child has none of
        limit = asyncio.timeout(self._within_s)
        try:
            async with limit:
                return await ask(self, *what, **how)
        except TimeoutError:
            if not limit.expired():
                raise
            late = f"Redis at {self._router.address} did not answer within {self._within_s:g} s"
            raise RedisAway(f"{late}; what it was asked for may have been done all the same") from None

    return asked


class Session:
    """``async with Client(url) as client:``, or ``connect()`` and ``close()``.

    ``machines``: classes to know from the start, for calls by name; a class given in a call is known from then on.
    ``durability``: ``"fsync"`` or ``"replicas=N"``: that a command is queued, how it ended, and that it was cancelled, is told only when it
    is that safe. What only looks (``get``, ``list``, ``history`` …) shows the present.
    ``timeout``, in seconds or a timedelta: how long Redis may take for anything but the wait for an outcome, which has a time-out of
    its own; then RedisAway is raised, and by ``send`` Pending with the id, if the command may have been queued.
    """

    _router: Router
    _catalog: Catalog
    _replies: Replies
    _appender: Appender
    _loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        machines: Iterable[type[Declared]] = (),
        durability: str | None = None,
        timeout: Duration = WITHIN_S,
    ) -> None:
        self._within_s = duration_ms(timeout) / 1000
        self.url, self.namespace = url, check_namespace(namespace)
        self._specs, self._durability = tuple(map(spec_of, machines)), parse_durability(durability)
        self._forks: int | None = None
        """As they were when it was connected."""
        self._thread = 0
        self._closed = False

    async def connect(self) -> Self:
        """Redis answers, and the given machines are declared.

        Raises RedisAway within some seconds, and within the client's time-out, UnsupportedServer, PartitionMismatch, SchemaTooNew.
        """
        if self._forks is not None:
            raise UsageError("this client was connected before; make a new one")
        loop, self._router = asyncio.get_running_loop(), Router(self.url)
        latest_s = loop.time() + self._within_s
        await self._router.open(min(CONNECT_WITHIN_S, self._within_s))
        self._forks, self._loop, self._thread = _forks, loop, threading.get_ident()
        self._catalog = Catalog(self._router, self.namespace, self._specs)
        self._replies = Replies(self._router, self.namespace, short_id(), self._durability)
        self._appender = Appender(self._router, self._catalog, reply=self._replies.channel, durability=self._durability)
        try:
            async with asyncio.timeout_at(min(latest_s, loop.time() + CONNECT_WITHIN_S)):
                if self._durability is not None:
                    await check_durability(self._router, self._durability)
                await self._catalog.declare_all()
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise RedisAway(f"no Redis answers at {self._router.address} any more; start one or give its URL") from None
            raise
        return self

    async def close(self) -> None:
        """Connections are closed; who still waits gets RedisAway, or Pending if its command may be queued. What was sent goes on."""
        if self._closed or self._forks is None:
            return
        self._closed = True
        if self._forks != _forks:
            return  # the connections are the parent's
        await self._appender.close()
        await self._replies.close()
        await self._router.close()

    if not TYPE_CHECKING:  # a type checker refuses it by itself

        def __enter__(self):
            raise UsageError("this client is asynchronous: write async with, or use statemq.sync.Client in code without an event loop")

        def __exit__(self, *error): ...

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _told(self, id: str, ask: Callable[[], Awaitable[T]], tells: Callable[[T], bool] = bool) -> T:
        """What ``ask`` answers of the command; if it ``tells`` what must be safe first, only then (P23). Raises Pending when it is not."""
        while True:
            if self._durability is None:
                return await ask()
            part = PartitionKeys(self.namespace, *parse_command_id(id))
            since = stand(self._router, part)
            answer = await ask()
            if not tells(answer) or await settled(self._router, part, self._durability, since):
                return answer
            if stand(self._router, part) == since:
                raise Pending(f"what became of command {id} is not yet as safe as durability= asks; ask again", id=id)

    def _check(self) -> None:
        """Raises UsageError where this client cannot be used."""
        if self._forks is None:
            raise UsageError("this client is not connected: write `async with Client(url) as client:`, or await client.connect()")
        if self._closed:
            raise UsageError("this client was closed; make a new one")
        if self._forks != _forks:
            raise UsageError("this client was connected before the process forked; make a new one in the child")
        # asyncio's own question which loop runs costs a system call
        if threading.get_ident() != self._thread or not self._loop.is_running():
            raise UsageError("this client belongs to another event loop; make one in each loop, or use statemq.sync.Client")
