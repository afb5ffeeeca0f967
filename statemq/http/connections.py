"""The connections of a serving process: how many there may be, how many from one address, and how long one may keep its answers waiting.

The server accepts connections by itself and tells of requests only: who asks nothing, or does not read its answers, is seen here alone.
So its sockets are looked at now and then, and only if there are as many as one address may have.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import termios
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

import msgspec

from statemq.config import HttpSettings
from statemq.http.guesses import network
from statemq.worker.files import open_files

log = logging.getLogger("statemq.http")

LOOK_EVERY_S = 0.5

SAID_EVERY_S = 60.0
"""The log has a line of one kind in this time."""

AT_ONCE = 256
"""Sockets that are asked for their address before others have a turn."""

Peer = tuple[str, str]
"""A caller's address and port, which name its connection; both are texts, as the server gives them."""


class Room(msgspec.Struct, frozen=True):
    """What this process has room for."""

    files: int
    """Open at one time."""
    connections: int
    of_one_address: int
    waiting: int
    """Requests that wait for an outcome."""
    waiting_each: int

    @classmethod
    def within(cls, files: int, taken: int, settings: HttpSettings) -> Room:
        """What the settings say; or less, so that ``files`` suffice, of which ``taken`` are open already. The process needs some more for
        Redis and for looking at itself. At the limit nothing could be accepted, and the server would try without a pause."""
        most = min(settings.max_connections, max(1, files - taken - min(128, files // 4)))
        if most == settings.max_connections:
            waiting, waiting_each = settings.max_waiting, settings.max_waiting_each
        else:  # others are answered while these wait
            waiting = min(settings.max_waiting, max(1, most * 5 // 6))
            waiting_each = min(settings.max_waiting_each, max(1, waiting // 2))
        of_one_address = min(settings.max_connections_each, most - most // 4)
        return cls(files, most, of_one_address, waiting, waiting_each)


class Connections:
    """Those to ``port``. ``busy``: the callers whose requests are being answered."""

    def __init__(
        self, port: int, room: Room, busy: Collection[Peer], write_within_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._port, self._room, self._busy, self._clock = port, room, busy, clock
        self._write_within_s = write_within_s
        self._known: list[Peer] = []
        """At the last look, the longest known first."""
        self._behind: dict[Peer, float] = {}
        """Since when each look has found answers that the caller had not taken."""
        self._said: dict[str, float] = {}

    async def watch(self) -> None:
        """Looks until it is cancelled; a connection whose caller takes nothing of its answers for too long is closed."""
        bound_writes(self._port, self._write_within_s)
        await asyncio.sleep(LOOK_EVERY_S)
        bound_writes(self._port, self._write_within_s)  # also those that had come before the first time and were accepted since
        while True:
            try:
                await self.look()
            except OSError as error:
                self._say("files", "this process can open no further file (%s): it may have %d", error.strerror, self._room.files)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """No address has more than its share any more, and the log says it when it had, or when all places are taken. While there are so
        many, nobody takes its answers by the drop: who is never done with them is done with."""
        room, files = self._room, open_files()
        if len(files) <= min(room.of_one_address, room.connections):
            self._known, self._behind = [], {}
            return
        held = await self._held(files)
        self._known = [*(peer for peer in self._known if peer in held), *(held.keys() - set(self._known))]
        of = self._by_address()
        name, most = max(((name, len(peers)) for name, peers in of.items()), key=lambda each: each[1], default=("", 0))
        if len(held) >= room.connections:
            self._say("full", "all %d places for connections are taken, %d of them from %s: further callers wait", len(held), most, name)
        if most > room.of_one_address:
            self._say("each", "%d connections from %s, where %d may be: idle ones are closed first", most, name, room.of_one_address)
        for peer in [*self._overdue(held), *(peer for peers in of.values() for peer in self._surplus(peers))]:
            close(held[peer], self._port, peer)

    def _overdue(self, held: dict[Peer, int]) -> list[Peer]:
        now = self._clock()
        self._behind = {peer: self._behind.get(peer, now) for peer, number in held.items() if has_unsent(number)}
        return [peer for peer, since_s in self._behind.items() if now - since_s > self._write_within_s]

    def _by_address(self) -> dict[str, list[Peer]]:
        names: dict[str, str] = {}
        of: dict[str, list[Peer]] = {}
        for peer in self._known:
            if peer[0] not in names:
                names[peer[0]] = network(peer[0])
            of.setdefault(names[peer[0]], []).append(peer)
        return of

    def _surplus(self, peers: list[Peer]) -> list[Peer]:
        """Those that ask nothing, the oldest first, since what a caller keeps for later can be opened again; then the newest."""
        count = len(peers) - self._room.of_one_address
        if count <= 0:
            return []
        idle = [peer for peer in peers if peer not in self._busy][:count]
        busy = [peer for peer in reversed(peers) if peer in self._busy]
        return idle + busy[: count - len(idle)]

    async def _held(self, files: Iterable[int]) -> dict[Peer, int]:
        """The connections and their sockets."""
        held: dict[Peer, int] = {}
        for turn, number in enumerate(files, 1):
            if peer := peer_of(number, self._port):
                held[peer] = number
            if turn % AT_ONCE == 0:
                await asyncio.sleep(0)
        return held

    def _say(self, what: str, text: str, *about: object) -> None:
        now = self._clock()
        if now - self._said.get(what, -SAID_EVERY_S) >= SAID_EVERY_S:
            self._said[what] = now
            log.warning(text, *about)


def bound_writes(port: int, seconds: float) -> None:
    """The sockets of this port, and all that the listening one accepts from now on, are closed by the kernel when the other side takes
    nothing of what was sent for so long. Where the kernel cannot, they are not."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    for number in open_files():
        with suppress(OSError), Borrowed(number) as one:
            if is_at(one, port):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


def close(number: int, port: int, peer: Peer) -> None:
    """That connection has ended. Its number may be another file's by now, so it is asked again, by a number that nobody else closes."""
    with suppress(OSError):
        mine = os.dup(number)
        try:
            if peer_of(mine, port) == peer:
                with Borrowed(mine) as one:
                    one.shutdown(socket.SHUT_RDWR)
        finally:
            os.close(mine)


def peer_of(number: int, port: int) -> Peer | None:
    """From where the connection to ``port`` with this file's number comes; None if it is none."""
    try:
        with Borrowed(number) as one:
            if not is_at(one, port):
                return None
            host, its_port, *_ = one.getpeername()
            return host, str(its_port)
    except OSError:  # no socket, one that is not connected, or closed meanwhile
        return None


def has_unsent(number: int) -> bool:
    """Whether something was sent by this socket that the other side has not taken."""
    try:
        return any(fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))
    except OSError:  # closed meanwhile
        return False


def is_at(one: socket.socket, port: int) -> bool:
    return bool(one.getsockname()[1:2] == (port,))  # the name of one of the file system is a text


class Borrowed:
    """A file's number as a socket that somebody else closes, and which stays as it is. With the room for the longer kind of address it can
    be asked for both."""

    def __init__(self, number: int) -> None:
        # without the flag, where a target has set a time-out for all new sockets, no write to the file would wait any more: the log's, too
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0), fileno=number)

    def __enter__(self) -> socket.socket:
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.detach()
