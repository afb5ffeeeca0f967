"""A bare connection to a Redis: hiredis and a socket, nothing between. Once for an event loop, once without."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Self

import hiredis

from statemq.errors import RedisAway, ServerError, UsageError
from statemq.store.address import Address, parse

Words = tuple[Any, ...]
"""A command: texts, bytes and numbers."""

CONNECT_WITHIN_S = 5.0
READ_SIZE = 1 << 18


def one_server(url: str) -> Address:
    """Its address; a bare connection asks no sentinels."""
    found = parse(url)
    if found.sentinels is not None:
        raise UsageError(f"statemq bench measures one server: give the URL of the primary of {found.sentinels.service}")
    return found


class Pipe:
    """Calls go out together and their replies come back together; an error reply is raised."""

    def __init__(self, url: str) -> None:
        self._address = one_server(url)
        self._replies = hiredis.Reader()

    async def open(self) -> Self:
        a = self._address
        if a.path:
            self._reader, self._writer = await asyncio.open_unix_connection(a.path)
        else:
            self._reader, self._writer = await asyncio.open_connection(a.host, a.port, ssl=a.ssl_context())
        if greeting := greet(a):
            await self.many(greeting)
        return self

    async def many(self, calls: Sequence[Words]) -> list[Any]:
        self._writer.write(b"".join([hiredis.pack_command(call) for call in calls]))
        replies: list[Any] = []
        while len(replies) < len(calls):
            reply = self._replies.gets()
            if reply is False:
                received = await self._reader.read(READ_SIZE)
                if not received:
                    raise RedisAway(f"{self._address} closed the connection")
                self._replies.feed(received)
            else:
                replies.append(raised(reply))
        return replies


class BlockingPipe:
    """The same, for the process that directs."""

    def __init__(self, url: str) -> None:
        a = self._address = one_server(url)
        try:
            if a.path:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(CONNECT_WITHIN_S)
                self._socket.connect(a.path)
            else:
                self._socket = socket.create_connection((a.host, a.port), CONNECT_WITHIN_S)
                if context := a.ssl_context():
                    self._socket = context.wrap_socket(self._socket, server_hostname=a.host)
        except OSError as error:
            raise RedisAway(f"no Redis answers at {a}: {error.strerror or error}") from error
        self._socket.settimeout(60)
        self._replies = hiredis.Reader(encoding="utf-8", errors="replace")
        self.many(greet(a))

    def close(self) -> None:
        self._socket.close()

    def call(self, *words: bytes | str | int) -> Any:
        return self.many([words])[0]

    def many(self, calls: Sequence[Words]) -> list[Any]:
        self._socket.sendall(b"".join([hiredis.pack_command(call) for call in calls]))
        replies: list[Any] = []
        while len(replies) < len(calls):
            reply = self._replies.gets()
            if reply is False:
                received = self._socket.recv(READ_SIZE)
                if not received:
                    raise RedisAway(f"{self._address} closed the connection")
                self._replies.feed(received)
            else:
                replies.append(raised(reply))
        return replies


def greet(address: Address) -> list[Words]:
    """What has to be said first."""
    said: list[Words] = []
    if address.password:
        said.append(("AUTH", *([address.username] if address.username else []), address.password))
    if address.db:
        said.append(("SELECT", address.db))
    return said


def raised(reply: Any) -> Any:
    """The reply; an error in it, also inside of EXEC's answers, is raised as ServerError."""
    if isinstance(reply, hiredis.ReplyError):
        raise ServerError(f"Redis refused: {reply}")
    if isinstance(reply, list):
        for item in reply:
            if isinstance(item, hiredis.ReplyError):
                raise ServerError(f"Redis refused: {item}")
    return reply
