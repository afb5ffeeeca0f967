"""A connected socket to a name: its addresses are tried side by side, and looked up in a thread of our own.

A name may have several addresses, and nobody may answer at one of them: the next one gets its chance after a moment (RFC 8305). The
loop's own threads look up names for whoever asks, but the user's code fills them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

NEXT_S = 0.25
"""How long an address may take before the next one is tried beside it."""

Place = tuple[int, int, int, Any]
"""Family, type and protocol of a socket, and where it leads."""


class Looks:
    """Looks at names of this process: one at a time for each, in a daemon thread, since none can be ended and some hang."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, int], Future[list[Place]]] = {}

    async def look(self, host: str, port: int) -> list[Place]:
        """The name's addresses, families in turn. Raises OSError."""
        if (place := literal(host, port)) is not None:
            return [place]
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[list[Place]] = loop.create_future()

        def tell(asked: Future[list[Place]]) -> None:
            with contextlib.suppress(RuntimeError):  # who asked has ended its loop
                loop.call_soon_threadsafe(_pass_on, asked, heard)

        self._ask(host, port).add_done_callback(tell)
        return await heard

    def _ask(self, host: str, port: int) -> Future[list[Place]]:
        with self._lock:
            asked = self._asked.get((host, port))
            if asked is None:
                asked = Future()
                threading.Thread(target=self._look, args=(host, port, asked), name="statemq-name", daemon=True).start()
                self._asked[host, port] = asked
            return asked

    def _look(self, host: str, port: int, asked: Future[list[Place]]) -> None:
        try:
            found: list[Place] | BaseException = in_turn(
                [(family, kind, proto, where) for family, kind, proto, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
            )
        except BaseException as error:  # noqa: BLE001 - whatever a resolver raises is for who asked
            found = error if isinstance(error, OSError) else OSError(f"{host} cannot be looked up: {error}")
        with self._lock:  # whoever asks from now on asks anew
            del self._asked[host, port]
        asked.set_exception(found) if isinstance(found, BaseException) else asked.set_result(found)


def _pass_on(asked: Future[list[Place]], heard: asyncio.Future[list[Place]]) -> None:
    if not heard.done():
        error = asked.exception()
        heard.set_exception(error) if error is not None else heard.set_result(asked.result())


_looks = Looks()


_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""All sockets of this process that lead to Redis."""


def _forked() -> None:
    """The connections are the parent's, and the threads that look: closed here, nothing is said over them, and its death closes them."""
    global _looks
    _looks = Looks()
    for sock in list(_open):
        sock.close()
    _open.clear()


os.register_at_fork(after_in_child=_forked)


def literal(host: str, port: int) -> Place | None:
    """Where an address leads that is written as numbers; None for a name.

    >>> literal("127.0.0.1", 6379)[-1], literal("localhost", 6379)
    (('127.0.0.1', 6379), None)
    """
    for family, more in ((socket.AF_INET, ()), (socket.AF_INET6, (0, 0))):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, (host, port, *more)
    return None


def in_turn(places: Sequence[Place]) -> list[Place]:
    """One of each family after the other, each family in its order: a network may lack one of them altogether."""
    families: dict[int, list[Place]] = {}
    for place in places:
        families.setdefault(place[0], []).append(place)
    rows = itertools.zip_longest(*families.values())
    return [place for row in rows for place in row if place is not None]


class Dialled(NamedTuple):
    """A connection to the address of this number, ``of`` so many that the name has."""

    sock: socket.socket
    number: int
    of: int


async def dial(host: str, port: int, first: int = 0) -> Dialled:
    """A connection to the first of the name's addresses that answers; number ``first`` is tried before the others.

    Raises OSError when none does.
    """
    places = await _looks.look(host, port)
    if not places:
        raise OSError(f"{host} has no address")
    begin = first % len(places)
    sock, number = await _race([(n % len(places), places[n % len(places)]) for n in range(begin, begin + len(places))])
    return Dialled(sock, number, len(places))


async def _race(places: Sequence[tuple[int, Place]]) -> tuple[socket.socket, int]:
    waiting = list(places)
    trying: dict[asyncio.Task[socket.socket], int] = {}
    errors: list[BaseException] = []
    try:
        while waiting or trying:
            if waiting:
                number, place = waiting.pop(0)
                trying[asyncio.ensure_future(connect(*place))] = number
            done, _ = await asyncio.wait(trying, timeout=NEXT_S if waiting else None, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.exception()) is None:
                    number = trying.pop(task)
                    return task.result(), number
                del trying[task]
                errors.append(error)
    finally:
        for task in trying:
            task.cancel()
            task.add_done_callback(_close)  # one may have been connected at this very moment
    raise errors[0] if len(errors) == 1 else OSError("; ".join(dict.fromkeys(map(str, errors))))


def _close(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def connect(family: int, kind: int, proto: int, where: Any) -> socket.socket:
    """A connected socket. Raises OSError."""
    sock = socket.socket(family, kind, proto)
    _open.add(sock)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
        if proto == socket.IPPROTO_TCP:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock
