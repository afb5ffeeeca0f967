"""Bytes to a server and what comes back, without a library between that would mend them."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import NamedTuple

from tests.serving import Edge

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
SEND = b"POST /gate/a/setUp/send HTTP/1.1\r\n" + HOST + JSON
HEALTH = b"GET /-/health HTTP/1.1\r\n" + HOST


class Heard(NamedTuple):
    statuses: list[int]
    closed: bool
    raw: bytes


def connect(edge: Edge, timeout_s: float = 20) -> socket.socket:
    return socket.create_connection(("127.0.0.1", edge.port), timeout=timeout_s)


def speak(edge: Edge, raw: bytes, *, timeout_s: float = 20) -> Heard:
    """Everything that comes back until the server closes, or for so long."""
    with connect(edge, timeout_s) as connection:
        with contextlib.suppress(OSError):  # closed before it had read all; what it said is still there
            connection.sendall(raw)
        return hear(connection)


def hear(connection: socket.socket) -> Heard:
    heard, closed = b"", True
    try:
        while chunk := connection.recv(65536):
            heard += chunk
    except TimeoutError:
        closed = False
    except ConnectionResetError:
        pass
    return Heard([int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", heard)], closed, heard)
