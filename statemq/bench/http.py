"""Callers over HTTP: keep-alive connections on bare sockets, one a caller, so that the edge is measured and not a client library."""

from __future__ import annotations

import asyncio
from typing import cast
from urllib.parse import quote

import msgspec

from statemq.bench.jobs import Wiring
from statemq.bench.machines import MACHINES
from statemq.errors import StatemqError

CONNECTIONS = 64


class Data(msgspec.Struct):
    count: int = 0


class Instance(msgspec.Struct):
    data: Data = msgspec.field(default_factory=Data)


class HttpRefused(StatemqError):
    """An answer other than 200."""


class Connection(asyncio.Protocol):
    """One request at a time: ``ask`` returns the body of its answer."""

    def __init__(self, host: str) -> None:
        self.host, self.received = host, bytearray()
        self.answer: asyncio.Future[bytes] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(HttpRefused(f"the HTTP server closed a connection: {error}"))

    def data_received(self, data: bytes) -> None:
        self.received += data
        head_end = self.received.find(b"\r\n\r\n")
        if head_end < 0 or self.answer is None:
            return
        head, body_at = bytes(self.received[:head_end]).lower(), head_end + 4
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self.received) < body_at + length:
            return
        body = bytes(self.received[body_at : body_at + length])
        del self.received[: body_at + length]
        if head.startswith(b"http/1.1 200"):
            self.answer.set_result(body)
        else:
            self.answer.set_exception(HttpRefused(f"{head[9:12].decode()} {body[:200].decode(errors='replace')}"))

    async def ask(self, method: str, path: str) -> bytes:
        assert self.transport is not None
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: 0\r\n\r\n".encode())
        return await self.answer


class HttpSide:
    def __init__(self, wiring: Wiring) -> None:
        self.host = wiring.http
        self.connections: list[Connection] = []

    async def open(self) -> None:
        host, _, port = self.host.rpartition(":")
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(lambda: Connection(self.host), host, int(port))
            self.connections.append(connection)

    async def call(self, machine: str, transition: str, key: str, slot: int) -> int:
        path = f"/{MACHINES[machine].spec.name}/{quote(key, safe='')}/{transition}"
        return msgspec.json.decode(await self.connections[slot].ask("POST", path), type=int)

    async def stored(self, machine: str, keys: list[str]) -> list[int]:
        name, found = MACHINES[machine].spec.name, []
        for key in keys:
            body = await self.connections[0].ask("GET", f"/{name}/{quote(key, safe='')}")
            found.append(msgspec.json.decode(body, type=Instance).data.count)
        return found

    async def tidy(self) -> None:
        """Nothing is left between two measurements."""

    async def close(self) -> None:
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.close()
