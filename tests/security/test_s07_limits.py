"""S7: what one caller can take: time, bytes, depth, connections, places to wait, numbers in a query."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from statemq.config import LIMITS, HttpSettings
from tests.security.raw import HEALTH, HOST, JSON, SEND, connect, hear, speak
from tests.serving import Edge
from tests.waiting import block_until


@pytest.fixture
def short(url: str, namespace: str) -> Iterator[Edge]:
    """A serving process with little patience."""
    edge = Edge(url, namespace, header_within_s=1.0, body_within_s=1.0)
    yield edge
    assert edge.end() == (0, "")


def drip(connection: socket.socket, piece: bytes, every_s: float) -> threading.Event:
    """Sends a piece now and then until the returned event is set or the server has had enough."""
    stop = threading.Event()

    def go() -> None:
        while not stop.wait(every_s):
            try:
                connection.sendall(piece)
            except OSError:
                return

    threading.Thread(target=go, daemon=True).start()
    return stop


@pytest.mark.parametrize("begun", [b"", b"GET", b"GET /-/health HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_that_drips_is_cut_off(short: Edge, begun: bytes) -> None:
    with connect(short) as connection:
        connection.sendall(begun)
        stop = drip(connection, b"a", 0.1)
        heard = hear(connection)
        stop.set()
    assert heard.closed and heard.statuses in ([], [408])
    assert short.get("/-/health").status == 200


@pytest.mark.parametrize("head", [b"Content-Length: 100000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
@pytest.mark.parametrize("begun", [b"", b"1"])
def test_a_body_that_drips_is_answered_408(short: Edge, head: bytes, begun: bytes) -> None:
    piece = b"1\r\n \r\n" if b"chunked" in head else b" "
    with connect(short) as connection:
        connection.sendall(SEND + head + (begun and piece))
        stop = drip(connection, piece, 0.1) if begun else threading.Event()
        heard = hear(connection)
        stop.set()
    assert (heard.statuses, heard.closed) == ([408], True)


@pytest.mark.parametrize(
    "head", [SEND.replace(b"localhost", b"evil.example"), HEALTH, SEND.replace(JSON, b"Origin: http://evil.example\r\n")]
)
def test_a_body_that_drips_behind_an_answer_is_cut_off(short: Edge, head: bytes) -> None:
    """Answered before its body: it must not hold its connection by sending on."""
    with connect(short) as connection:
        connection.sendall(head + b"Content-Length: 100000\r\n\r\n ")
        stop = drip(connection, b" ", 0.1)
        heard = hear(connection)
        stop.set()
    assert (len(heard.statuses), heard.closed) == (1, True)


def test_a_kept_connection_that_asks_nothing_is_closed(short: Edge) -> None:
    heard = speak(short, HEALTH + b"\r\n")
    assert (heard.statuses, heard.closed) == ([200], True)


@pytest.mark.parametrize("length", [LIMITS.arguments + 1, 10**9, 2**62])
def test_a_length_that_is_too_large_is_refused_before_the_body(served: Edge, length: int) -> None:
    heard = speak(served, SEND + b"Content-Length: %d\r\n\r\n{" % length)
    assert heard.statuses == [413] and heard.closed


def test_a_gigabyte_in_chunks_is_refused_after_the_limit(served: Edge) -> None:
    with connect(served) as connection:
        connection.sendall(SEND + b"Transfer-Encoding: chunked\r\n\r\n")
        sent, chunk = 0, b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            while sent < 10**9:
                connection.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
        heard = hear(connection)
    assert sent < 16 * 1024 * 1024, "what the kernel holds and the limit, not a gigabyte"
    assert heard.closed and heard.statuses in ([], [413])  # a reset may overtake the answer


def test_one_endless_chunk_is_refused_after_the_limit(served: Edge) -> None:
    with connect(served) as connection:
        connection.sendall(SEND + b"Transfer-Encoding: chunked\r\n\r\n3b9aca00\r\n" + b" " * (LIMITS.arguments + 1))
        assert connection.recv(100).split()[1] == b"413"


def test_a_length_that_lies_short_or_long(served: Edge, url: str) -> None:
    with connect(served) as connection:  # shorter than promised, then gone: half a request must not run
        connection.sendall(SEND + b"Content-Length: 4\r\n\r\n{}")
        connection.shutdown(socket.SHUT_WR)
        heard = hear(connection)
    assert heard.statuses in ([], [400])
    heard = speak(served, SEND + b"Content-Length: 2\r\n\r\n{} {}")
    assert (heard.statuses, heard.closed) == ([202, 400], True)  # what is left over is no request


@pytest.mark.parametrize(("size", "status"), [(-1, 200), (0, 200), (1, 431)])
def test_bytes_of_a_head(served: Edge, size: int, status: int) -> None:
    limit = HttpSettings().max_header_bytes
    rest = len("/-/health" + "host" + "localhost" + "x" + "connection" + "close")
    head = HEALTH + b"Connection: close\r\nX: " + b"a" * (limit - rest + size) + b"\r\n\r\n"
    assert speak(served, head).statuses == [status]


@pytest.mark.parametrize("head", [b"GET /-/health?" + b"a" * 100_000 + b" HTTP/1.1\r\n", b"GET /" + b"a" * 10**6, b"a" * 10**6])
def test_a_first_line_without_end(served: Edge, head: bytes) -> None:
    heard = speak(served, head + b"\r\n" + HOST + b"\r\n")
    assert heard.closed and heard.statuses in ([400], [414], [431], [])


@pytest.mark.parametrize(("count", "status"), [(99, 200), (100, 200), (101, 431)])
def test_number_of_headers(served: Edge, count: int, status: int) -> None:
    more = b"".join(b"X-%d: a\r\n" % n for n in range(count - 2))
    assert speak(served, HEALTH + b"Connection: close\r\n" + more + b"\r\n").statuses == [status]


def test_number_of_parameters(served: Edge) -> None:
    answer = served.get("/gate/a/room?" + "&".join(f"a{n}=1" for n in range(101)))
    assert (answer.status, answer.json["error"]) == (400, "parameter")


@pytest.mark.parametrize(("depth", "status"), [(LIMITS.depth - 1, 202), (LIMITS.depth, 202), (LIMITS.depth + 1, 400)])
def test_depth_of_json(served: Edge, depth: int, status: int) -> None:
    nested = "[" * (depth - 1) + "]" * (depth - 1)  # one level is the object of arguments
    answer = served.ask("POST", "/gate/a/keep/send", f'{{"what": {nested}}}', {"Content-Type": "application/json"})
    assert answer.status == status, answer.text


@pytest.mark.parametrize("nested", ["[" * 60_000 + "]" * 60_000, '{"a":' * 20_000 + "1" + "}" * 20_000, "[" * 100_000])
def test_depths_that_would_overflow_a_stack(served: Edge, nested: str) -> None:
    for body in (nested, f'{{"what": {nested}}}'):
        answer = served.ask("POST", "/gate/a/keep/send", body, {"Content-Type": "application/json"})
        assert (answer.status, answer.json["error"]) in ((400, "arguments"), (400, "body"))


@pytest.mark.parametrize("number", ["10000000000000", "1e309", "-1", "99999999999999999999999999d", "NaN", "inf", "1" * 5000])
@pytest.mark.parametrize(
    "path",
    ["/gate/a/hold?wait={}", "/gate/a/hold/send?delay={}", "/-/commands/gate.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12/result?wait={}"],
)
def test_times_without_bounds(served: Edge, path: str, number: str) -> None:
    method = "GET" if "result" in path else "POST"
    answer = served.ask(method, path.format(number), None, {"Content-Type": "application/json"})
    assert (answer.status, answer.json["error"]) in ((400, "parameter"), (413, "too_large")), answer.text


@pytest.mark.parametrize("parameter", ["limit=1000000000000", "days=1000000000", "from=-1", "count=1e99"])
@pytest.mark.parametrize("path", ["/gate/a", "/-/machines", "/-/commands/gate.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12"])
def test_no_page_has_a_size_that_a_caller_could_choose(served: Edge, path: str, parameter: str) -> None:
    answer = served.get(f"{path}?{parameter}")
    assert (answer.status, answer.json["error"]) == (400, "parameter")


def test_versions_without_bounds(served: Edge) -> None:
    assert served.post("/gate/a/hold/send", If_Match='"' + "9" * 100 + '"').json["error"] == "parameter"


def test_connections(url: str, namespace: str) -> None:
    """More than may be open wait their turn; those that are open are answered."""
    edge = Edge(url, namespace, max_connections=3, header_within_s=60.0)
    try:
        held = [connect(edge) for _ in range(3)]
        for connection in held:
            connection.sendall(HEALTH + b"\r\n")
            assert connection.recv(100).split()[1] == b"200"
        with connect(edge, timeout_s=0.5) as further:
            further.sendall(HEALTH + b"\r\n")
            with pytest.raises(TimeoutError):
                further.recv(100)
            held.pop().close()
            further.settimeout(20)
            assert further.recv(100).split()[1] == b"200"
        for connection in held:
            connection.close()
    finally:
        edge.end()


@pytest.mark.leaves_work
def test_places_to_wait(url: str, namespace: str) -> None:
    """One caller has all its places; another is still waited for, and its answer comes when its command ends."""
    other = "second-caller"
    edge = Edge(url, namespace, max_waiting=4, max_waiting_each=2, before=two_tokens("first-caller", other))
    try:
        mine, others = {"Authorization": "Bearer first-caller"}, {"Authorization": f"Bearer {other}"}
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(edge.post, f"/gate/{n}/hold?wait=60s", **mine) for n in range(2)]
            block_until(lambda: all(edge.get(f"/gate/{n}", **mine).json["queue"] for n in range(2)))
            over = edge.post("/gate/over/hold?wait=60s", **mine)
            assert (over.status, over.json["error"]) == (504, "pending")
            waited = pool.submit(edge.post, "/gate/b/hold?wait=60s", **others)
            id = block_until(lambda: edge.get("/gate/b", **mine).json["queue"])[0]["id"]
            assert not waited.done()
            assert edge.post(f"/-/commands/{id}/cancel", **mine).status == 200
            assert waited.result().json["error"] == "cancelled"
            assert not any(answer.done() for answer in waiting)
            edge.process.terminate()
            assert [answer.result().status for answer in waiting] == [504, 504]
    finally:
        edge.end()


def two_tokens(*tokens: str) -> str:
    """What a serving process runs first to know these tokens, all of them for everything."""
    text = "\n".join(f"{token} read submit operate" for token in tokens)
    return f"import statemq.http.server as s\ns.read_tokens = lambda token, file: s.Tokens.parse({text!r})\n"
