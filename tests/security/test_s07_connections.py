"""S7: connections. Who reads no answers, or opens as many as it can, leaves places for others; the log says when there are none."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from statemq.config import HttpSettings
from statemq.http.connections import Room, bound_writes, peer_of
from statemq.worker.files import open_files
from tests.security.raw import HEALTH, connect, hear
from tests.serving import ROOT, TARGET, Edge, answers
from tests.waiting import block_until

OTHER = "127.0.0.2"
MANY = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
"""Their answers fill every buffer on the way."""


def files_at_most(soft: int, hard: int) -> str:
    """What a process runs first to have such limits."""
    return f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"


def limits(pid: int) -> list[str]:
    """How many files the process may open, and how many it may ask for."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max open files")).split()[3:5]


def connect_from(edge: Edge, address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", edge.port), timeout=20, source_address=(address, 0))


def busy_s(pid: int) -> float:
    """The processor time that the process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def asked(connection: socket.socket) -> int:
    """The status with which a probe on this connection is answered; 0 if it is closed."""
    try:
        connection.sendall(HEALTH + b"\r\n")
        return int(connection.recv(1000).split()[1])
    except (ConnectionError, IndexError):
        return 0


@contextlib.contextmanager
def stalled(edge: Edge, *, read: int = 0) -> Iterator[socket.socket]:
    """A connection asks for more than it takes: nothing, or the first bytes."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(2)
        one.connect(("127.0.0.1", edge.port))
        with contextlib.suppress(TimeoutError):
            one.sendall(MANY)
        while read:
            read -= len(one.recv(read))
        yield one


def drip(connection: socket.socket) -> None:
    """Reads a little now and then until the connection ends; all of it would take a quarter of an hour."""
    connection.settimeout(None)
    with contextlib.suppress(OSError):
        while connection.recv(1024):
            time.sleep(0.05)


@pytest.mark.parametrize("read", [0, 500])
def test_answers_that_nobody_reads_hold_no_place(url: str, namespace: str, read: int) -> None:
    edge = Edge(url, namespace, max_connections=3, write_within_s=1.0)
    try:
        with contextlib.ExitStack() as open_ones:
            for _ in range(3):
                open_ones.enter_context(stalled(edge, read=read))
            with connect(edge, timeout_s=60) as further:
                assert asked(further) == 200
    finally:
        edge.end()


def test_answers_that_are_read_by_the_drop_hold_no_place(url: str, namespace: str) -> None:
    """Something is taken all the time, so the kernel has nothing against it."""
    edge = Edge(url, namespace, max_connections=3, write_within_s=1.0)
    try:
        with ThreadPoolExecutor(3) as pool, contextlib.ExitStack() as open_ones:
            dripping = [open_ones.enter_context(stalled(edge)) for _ in range(3)]
            for one in dripping:
                pool.submit(drip, one)
            with connect(edge, timeout_s=30) as further:
                try:
                    assert asked(further) == 200
                finally:
                    for one in dripping:
                        with contextlib.suppress(OSError):  # it has ended
                            one.shutdown(socket.SHUT_RDWR)
    finally:
        edge.end()


def test_the_soft_limit_of_files_is_raised(url: str, namespace: str) -> None:
    edge = Edge(url, namespace, before=files_at_most(128, 2048))
    try:
        assert limits(edge.process.pid) == ["2048", "2048"]
        held = [connect(edge) for _ in range(200)]
        assert [asked(connection) for connection in held] == [200] * 200
        for connection in held:
            connection.close()
    finally:
        assert edge.end() == (0, "")


def test_a_worker_raises_its_soft_limit_of_files(url: str, namespace: str) -> None:
    code = files_at_most(128, 1024) + "import sys\nfrom statemq.cli.app import entry\nentry()"
    command = [sys.executable, "-c", code, "worker", TARGET, "--redis", url, "--namespace", namespace]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            block_until(lambda: process.poll() is not None or limits(process.pid) == ["1024", "1024"])
            assert process.poll() is None
        finally:
            process.terminate()


def test_at_the_limit_of_files_it_rests_says_so_and_goes_on(url: str, namespace: str) -> None:
    edge = Edge(url, namespace, before=files_at_most(64, 64), header_within_s=60.0)
    try:
        held = [connect(edge) for _ in range(100)]
        time.sleep(1)  # what it does then is what it does all the time
        before = busy_s(edge.process.pid)
        time.sleep(2)
        assert busy_s(edge.process.pid) - before < 0.3, "it tries to accept without a pause"
        assert len(os.listdir(f"/proc/{edge.process.pid}/fd")) < 64, "some are left for Redis"
        with connect_from(edge, OTHER) as further:
            for connection in held:
                connection.close()
            assert asked(further) == 200
    finally:
        _, said = edge.end()
    assert "from 127.0.0.1" in said


@pytest.mark.leaves_work
def test_one_address_leaves_places_for_others(url: str, namespace: str) -> None:
    """Its idle connections are closed, so many as are too many; the one that waits for its answer gets it."""
    edge = Edge(url, namespace, max_connections=20, header_within_s=60.0)
    try:
        with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as open_ones:
            waits = open_ones.enter_context(connect_from(edge, OTHER))
            waits.sendall(b"POST /gate/a/hold?wait=8s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = pool.submit(hear, waits)
            block_until(lambda: edge.get("/gate/a").json["queue"])
            for _ in range(60):
                open_ones.enter_context(connect_from(edge, OTHER))
            with connect(edge, timeout_s=20) as another:
                assert asked(another) == 200
            assert answer.result(30).statuses == [504]
            block_until(lambda: answers(edge))
    finally:
        code, said = edge.end()
    assert code == 0
    assert said.count(f"from {OTHER}, where 15 may be") == 1, said


def test_files_that_are_looked_at_stay_as_they_are() -> None:
    """Also where the code of a target has set a time-out for all new sockets: the log may go to a socket or a pipe."""
    before = socket.getdefaulttimeout()
    with contextlib.ExitStack() as open_ones:
        listening = open_ones.enter_context(socket.create_server(("127.0.0.1", 0)))
        one = open_ones.enter_context(socket.create_connection(listening.getsockname()))
        accepted = open_ones.enter_context(listening.accept()[0])
        ends = os.pipe()
        for end in ends:
            open_ones.callback(os.close, end)
        pair = [open_ones.enter_context(end) for end in socket.socketpair()]
        port = listening.getsockname()[1]
        socket.setdefaulttimeout(5)
        try:
            bound_writes(port, 7.0)
            seen = {number: peer_of(number, port) for number in open_files()}
        finally:
            socket.setdefaulttimeout(before)
        assert {number for number, peer in seen.items() if peer} == {accepted.fileno()}
        assert seen[accepted.fileno()] == ("127.0.0.1", str(one.getsockname()[1]))
        assert all(os.get_blocking(number) for number in (*ends, *(end.fileno() for end in (*pair, one, accepted, listening))))
        timeouts = [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for end in (listening, accepted, one)]
        assert timeouts == [7000, 7000, 0]


@pytest.mark.parametrize(
    ("files", "taken", "settings", "room"),
    [
        (20_000, 30, HttpSettings(), Room(20_000, 12_000, 9_000, 10_000, 5_000)),
        (1024, 24, HttpSettings(), Room(1024, 872, 654, 726, 363)),
        (64, 24, HttpSettings(), Room(64, 24, 18, 20, 10)),
        (16, 24, HttpSettings(), Room(16, 1, 1, 1, 1)),
        (1024, 24, HttpSettings(max_connections=3), Room(1024, 3, 3, 10_000, 5_000)),
        (1024, 24, HttpSettings(max_connections_each=5, max_waiting=7, max_waiting_each=2), Room(1024, 872, 5, 7, 2)),
    ],
)
def test_room(files: int, taken: int, settings: HttpSettings, room: Room) -> None:
    assert Room.within(files, taken, settings) == room
