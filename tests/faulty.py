"""A TCP proxy in front of a Redis that loses, cuts, delays and swallows at a chosen call.

A call is named by a word in its first two arguments: ``append`` finds ``FCALL append_<hash> …``, ``SUBSCRIBE`` itself.
Replies are matched to requests in order, so subscribed connections pass their messages unmatched.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Self

HOST = "127.0.0.1"


class _Rule:
    """What happens at the nth call with this word from now on."""

    def __init__(self, word: str, what: str, nth: int) -> None:
        self.word, self.what, self.left = word.encode().lower(), what, nth

    def strikes(self, name: bytes) -> bool:
        if self.word in name:
            self.left -= 1
        return self.left == 0 and self.word in name


class FaultyProxy:
    """``async with FaultyProxy(port) as proxy:`` gives ``proxy.url`` to connect to."""

    def __init__(self, port: int, host: str = HOST) -> None:
        self._target = (host, port)
        self._rules: list[_Rule] = []
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self.seen: Counter[str] = Counter()
        """How often each command, or script, came by."""
        self.delay_s = 0.0
        """Each reply is held back for so long."""
        self.refuse = False
        """New connections are closed at once."""
        self.black_hole = False
        """Connections stay open and nothing passes. One that lost bytes carries none any more, as if its other end had vanished."""
        self.struck: Counter[str] = Counter()
        """How often each fault has happened."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._links)

    def lose_request(self, word: str, nth: int = 1) -> None:
        """The connection is cut in place of passing the request on: it was never executed."""
        self._rules.append(_Rule(word, "lose_request", nth))

    def lose_reply(self, word: str, nth: int = 1) -> None:
        """The request is executed; the connection is cut in place of passing its reply on."""
        self._rules.append(_Rule(word, "lose_reply", nth))

    def cut_after(self, word: str, nth: int = 1) -> None:
        """The connection is cut right after the reply was passed on."""
        self._rules.append(_Rule(word, "cut_after", nth))

    def hold_reply(self, word: str, nth: int = 1) -> None:
        """The reply, and all behind it on this connection, are swallowed; the connection stays open."""
        self._rules.append(_Rule(word, "hold_reply", nth))

    def cut(self) -> None:
        """All connections are gone, as by RST."""
        for link in list(self._links):
            link.cut()

    def fault_of(self, name: bytes) -> str:
        """What is to happen to this call; each rule strikes once."""
        struck = [rule for rule in self._rules if rule.strikes(name.lower())]
        self._rules = [rule for rule in self._rules if rule not in struck]
        self.struck.update(rule.what for rule in struck[:1])
        return struck[0].what if struck else ""

    def forget(self) -> None:
        """What was asked for and has not happened will not."""
        self._rules.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        try:
            server = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, (reader, writer), server)
        self._links.add(link)
        await link.run()
        self._links.discard(link)


class _Link:
    """One proxied connection."""

    def __init__(
        self,
        proxy: FaultyProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._faults: deque[str] = deque()
        """One for each unanswered request."""
        self._subscribed = self._held = self._lost = False

    def cut(self) -> None:
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def run(self) -> None:
        ways = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._replies())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut()
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)

    def _swallows(self) -> bool:
        if self._proxy.black_hole and not self._lost:
            self._lost = True
            self._proxy.struck["black_hole"] += 1
        return self._lost

    async def _requests(self) -> None:
        buffer = b""
        while data := await _read(self._client[0]):
            if self._swallows():
                continue
            buffer += data
            while (end := message_end(buffer)) is not None:
                request, buffer = buffer[:end], buffer[end:]
                name = _name(request)
                self._proxy.seen[name.decode(errors="replace").partition("_")[0]] += 1
                fault = self._proxy.fault_of(name)
                if fault == "lose_request":
                    return
                self._subscribed = self._subscribed or name.lower().startswith(b"subscribe")
                self._faults.append(fault)
                self._server[1].write(request)

    async def _replies(self) -> None:
        buffer = b""
        while data := await _read(self._server[0]):
            if self._swallows():
                continue
            buffer += data
            while (end := message_end(buffer)) is not None:
                reply, buffer = buffer[:end], buffer[end:]
                fault = self._faults.popleft() if self._faults else ""
                if fault == "lose_reply":
                    return
                self._held = self._held or fault == "hold_reply"
                if self._held:
                    continue
                if self._proxy.delay_s:
                    await asyncio.sleep(self._proxy.delay_s)
                self._client[1].write(reply)
                if fault == "cut_after":
                    await self._client[1].drain()
                    return


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except OSError:
        return b""


def message_end(data: bytes, at: int = 0) -> int | None:
    """Where the RESP2 message that begins at ``at`` ends; None while it is incomplete.

    >>> message_end(b"*2\\r\\n$1\\r\\na\\r\\n:1\\r\\n+OK\\r\\n"), message_end(b"$5\\r\\nab")
    (15, None)
    """
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    kind, number, end = data[at : at + 1], data[at + 1 : line], line + 2
    if kind == b"$":
        if number != b"-1":
            end += int(number) + 2
        return end if end <= len(data) else None
    if kind == b"*":
        for _ in range(int(number)):
            inner = message_end(data, end)
            if inner is None:
                return None
            end = inner
    return end


def _name(request: bytes) -> bytes:
    """The first argument, or the second of FCALL."""
    parts = request.split(b"\r\n", 5)
    return parts[4] if parts[2].upper() in (b"FCALL", b"EVALSHA") else parts[2]
