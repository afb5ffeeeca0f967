"""Who sends what: MONITOR's lines, each told to the user whose connection it came over, scripts' calls to who ran them."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from redis import Redis

from statemq.store.acl import CONTAINERS
from statemq.store.wire import Wire
from tests.waiting import block_until

LINE = re.compile(rb'^\+[\d.]+ \[\d+ (\S+)\] "([^"]*)"(?: "([^"]*)")?')


class Monitor:
    """``used``: user → commands, as ACL rules name them."""

    def __init__(self, admin: Redis) -> None:
        self._admin = admin
        self._lines: list[tuple[str, str]] = []
        self._users: dict[str, list[str]] = defaultdict(list)
        self._looks = 0

    def feed(self, line: bytes) -> None:
        if found := LINE.match(line):
            where, name, sub = (part.decode() if part else "" for part in found.groups())
            name, sub = name.upper(), sub.upper()
            self._lines.append((where, f"{name}|{sub}" if name in CONTAINERS else name))

    def connected(self, wire: Wire, transport: asyncio.BaseTransport) -> None:
        """A connection of statemq's that will log in; its port may be used again later, by somebody else."""
        if wire.address.password:
            host, port = transport.get_extra_info("sockname")
            self._users[f"{host}:{port}"].append(wire.address.username)

    def used(self) -> dict[str, set[str]]:
        """Up to now: the admin's own last call ends the look."""
        self._admin.echo("look")
        self._looks += 1
        block_until(lambda: sum(name == "ECHO" for _, name in self._lines) == self._looks)
        by_user: dict[str, set[str]] = defaultdict(set)
        caller, logged_in = "", dict[str, str]()
        lines = list(self._lines)  # before the users: whoever logs in meanwhile is in neither
        turns = {where: iter(users) for where, users in self._users.items()}
        for where, name in lines:
            if name == "HELLO":  # the tests' own connections begin by it
                logged_in.pop(where, None)
            elif name == "AUTH":
                logged_in[where] = next(turns[where])
            if where != "lua":
                caller = logged_in.get(where, "the test")
            by_user[caller].add(name.lower())
        return by_user


@contextmanager
def monitoring(port: int) -> Iterator[Monitor]:
    """MONITOR over a connection of its own, read by a thread."""
    with Redis(port=port, decode_responses=True) as admin, socket.create_connection(("127.0.0.1", port)) as connection:
        monitor = Monitor(admin)
        connection.sendall(b"MONITOR\r\n")
        replies = connection.makefile("rb")
        assert replies.readline() == b"+OK\r\n"

        def read() -> None:
            for line in iter(replies.readline, b""):
                monitor.feed(line)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        made = Wire.connection_made

        def connection_made(wire: Wire, transport: asyncio.BaseTransport) -> None:
            monitor.connected(wire, transport)
            made(wire, transport)

        with patch.object(Wire, "connection_made", connection_made):
            yield monitor
        connection.shutdown(socket.SHUT_RDWR)
        thread.join()
        replies.close()
