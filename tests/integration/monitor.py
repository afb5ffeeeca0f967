"""Who sends what: MONITOR's lines, each told to the user whose connection it came over, scripts' calls to who ran them."""

from __future__ import annotations

import re
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from statemq.store.acl import CONTAINERS
from tests.waiting import block_until

LINE = re.compile(rb'^\+[\d.]+ \[\d+ (\S+)\] "([^"]*)"(?: "([^"]*)")?')


class Monitor:
    """``used``: user → commands, as ACL rules name them. Connections have to be ``seen`` while they are open."""

    def __init__(self, admin: Redis) -> None:
        self._admin = admin
        self._lines: list[tuple[str, str]] = []
        self._users: dict[str, str] = {}

    def feed(self, line: bytes) -> None:
        if found := LINE.match(line):
            where, name, sub = (part.decode() if part else "" for part in found.groups())
            name, sub = name.upper(), sub.upper()
            self._lines.append((where, f"{name}|{sub}" if name in CONTAINERS else name))

    def seen(self) -> None:
        """Learns whose the open connections are."""
        for row in self._admin.client_list():
            self._users[row["addr"]] = row["user"]

    def used(self) -> dict[str, set[str]]:
        """Up to now: the admin's own last call ends the look."""
        mark = f"mark {len(self._lines)}"
        self._admin.echo(mark)
        block_until(lambda: "ECHO" in {name for _, name in self._lines[-200:]})
        by_user: dict[str, set[str]] = defaultdict(set)
        caller, ours = "", set[str]()
        for where, name in self._lines:
            if name in ("HELLO", "AUTH"):  # a new connection: the tests' own begin by HELLO, statemq's by AUTH; the port may be used again
                ours.add(where) if name == "HELLO" else ours.discard(where)
            if where in ours:
                caller = "the test"
            elif where in self._users:
                caller = self._users[where]
            elif ":" in where:
                caller = f"nobody known at {where}"
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
        yield monitor
        connection.shutdown(socket.SHUT_RDWR)
        thread.join()
        replies.close()
