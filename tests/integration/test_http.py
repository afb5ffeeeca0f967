"""HTTP from outside: a serving process, a real Redis, a real worker, and the standard library's HTTP client."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
import redis

from statemq.config import LIMITS
from statemq.worker.daemon import Worker
from tests.leaks import leaks, wipe
from tests.serving import Edge, answers, working_thread
from tests.waiting import block_until


@pytest.fixture(scope="module")
def shared(url: str) -> Iterator[str]:
    """A namespace that tests with a key of their own share; nothing unbounded is left in it either."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    yield name
    with redis.Redis.from_url(url, decode_responses=True) as asked:
        left = leaks(asked, name)
        wipe(asked, name)
    assert not left


@pytest.fixture(scope="module")
def edge(url: str, shared: str) -> Iterator[Edge]:
    """One serving process for all tests that neither end it nor need it alone."""
    edge = Edge(url, shared)
    assert edge.said, edge.end()
    yield edge
    assert edge.end() == (0, "")


@pytest.fixture(scope="module")
def worker(url: str, shared: str) -> Iterator[Worker]:
    """A worker in a thread of its own, for the same tests."""
    with working_thread(url, shared) as worker:
        yield worker


@pytest.fixture
def own(url: str, namespace: str) -> Iterator[Edge]:
    """A serving process that the test may end, in a namespace without a worker."""
    edge = Edge(url, namespace)
    assert edge.said, edge.end()
    yield edge
    edge.end()


@pytest.mark.quick
def test_the_seed_s_curl(edge: Edge, worker: Worker) -> None:
    answer = edge.post("/gate/my-machine/setUp")
    assert (answer.status, answer.text) == (200, '"my-machine is now UP"\n')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["statemq-id"].startswith("gate.")
    assert edge.post("/gate/my-machine/setUp").text == '"my-machine is already UP"\n'
    assert edge.ask("POST", "/gate/my-machine/tearDown").text == '"my-machine is now DOWN"\n'


def test_one_client_connection_serves_many_requests(edge: Edge, worker: Worker) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=30)
    for number in range(20):
        connection.request("POST", f"/gate/{number}/setUp", json.dumps({"size": number}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, f"{number} is now UP")
    connection.close()


def test_many_requests_at_once(edge: Edge, worker: Worker) -> None:
    with ThreadPoolExecutor(20) as pool:
        texts = list(pool.map(lambda number: edge.post(f"/gate/at-once-{number % 5}/setUp").text, range(60)))
    for key in range(5):
        assert texts.count(f'"at-once-{key} is now UP"\n') == 1
        assert texts.count(f'"at-once-{key} is already UP"\n') == 11


@pytest.mark.parametrize(
    "key",
    [
        "a/b",
        "/",
        "a/setUp",
        "{gate:1}",
        "}{",
        "%2F",
        "a b+c",
        "line\nbreak\r\n",
        "\0",
        "*?[x]",
        "é" * 256,
        "日本語🎉",
        "..",
        "-",
        "k" * 512,
    ],
)
def test_keys_of_any_characters(edge: Edge, worker: Worker, key: str) -> None:
    path = f"/gate/{quote(key, safe='')}"
    assert edge.post(f"{path}/setUp", {"size": 3}).json == f"{key} is now UP"
    seen = edge.get(path)
    assert (seen.json["key"], seen.json["state"], seen.json["data"]) == (key, "UP", {"size": 3})
    assert edge.get(f"{path}/room").json == {"room": 3}


def test_keys_that_cannot_be(edge: Edge) -> None:
    for path in ("/gate/%FF/setUp", "/gate/%zz/setUp", f"/gate/{'k' * 513}/setUp"):
        answer = edge.post(path)
        assert (answer.status, answer.json["error"]) == (400, "key")
    assert edge.post("/gate//setUp").status == 404


def test_looking_at_an_instance(edge: Edge, worker: Worker) -> None:
    fresh = edge.get("/gate/seen")
    assert (fresh.headers["etag"], fresh.json["exists"], fresh.json["state"]) == ('"0"', False, "DOWN")
    edge.post("/gate/seen/setUp")
    held = edge.post("/gate/seen/hold/send")
    assert held.status == 202
    queued = edge.post("/gate/seen/tearDown/send").json["id"]

    def running() -> Any:
        body = edge.get("/gate/seen").json
        return body if body["running"] and body["running"].get("steps") else None

    body = block_until(running)
    assert body["running"]["id"] == held.json["id"]
    assert ("measure", 7) in [(step["name"], step.get("result")) for step in body["running"]["steps"]]
    assert [entry["id"] for entry in body["queue"]] == [queued]
    assert "tearDown" in body["allowed"]
    assert edge.get(held.headers["location"]).json["transition"] == "hold"
    edge.post(f"/-/commands/{held.json['id']}/cancel")
    assert edge.get(f"/-/commands/{queued}/result").json == "seen is now DOWN"


def test_a_query_with_arguments(edge: Edge, worker: Worker) -> None:
    edge.post("/gate/asked/setUp", {"size": 2})
    assert edge.get("/gate/asked/room?least=5").json == {"room": 5}
    answer = edge.get("/gate/asked/room?least=x")
    assert (answer.status, answer.json["error"]) == (400, "arguments")
    assert edge.get("/gate/asked/nothing").json["error"] == "unknown_transition"


def test_rejections_failures_and_what_cannot_be(edge: Edge, worker: Worker) -> None:
    refused = edge.post("/gate/refused/tearDown")
    assert (refused.status, refused.json["error"]) == (409, "rejected")
    assert refused.json["detail"] == "gate/refused is DOWN; tearDown needs UP"
    assert "setUp" in refused.json["allowed"]
    assert refused.json["id"] == refused.headers["statemq-id"]
    own = edge.post("/gate/refused/refuse").json
    assert (own["status"], own["detail"], own["code"]) == (409, "balance 3 < 5", "funds")
    failed = edge.post("/gate/refused/fail").json
    assert (failed["status"], failed["error"], failed["detail"], failed["code"]) == (500, "failed", "the card is stolen", "stolen")
    for arguments, status, error in [
        ({"size": "x"}, 400, "arguments"),
        ({"colour": 1}, 400, "arguments"),
        ([], 400, "arguments"),
        ({"size": "x" * LIMITS.arguments}, 413, "too_large"),
    ]:
        answer = edge.post("/gate/refused/setUp", arguments)
        assert (answer.status, answer.json["error"]) == (status, error)
    assert edge.ask("POST", "/gate/refused/setUp", b"{", {"Content-Type": "application/json"}).json["error"] == "body"
    unknown = edge.post("/gate/refused/setup")
    assert (unknown.status, unknown.json["error"]) == (404, "unknown_transition")
    assert "setUp" in unknown.json["known"]
    unknown = edge.post("/gatte/a/setUp")
    assert (unknown.status, unknown.json["error"], unknown.json["known"]) == (404, "unknown_machine", ["gate"])
    assert edge.get("/gate/refused").json["exists"] is False


def test_the_state_and_version_that_were_meant(edge: Edge, worker: Worker) -> None:
    assert edge.post("/gate/meant/setUp?if_state=UP").status == 409
    unknown = edge.post("/gate/meant/setUp?if_state=AJAR")
    assert (unknown.status, unknown.json["error"]) == (400, "parameter")
    assert edge.post("/gate/meant/setUp", If_Match='"1"').status == 412
    assert edge.post("/gate/meant/setUp?if_state=DOWN", If_Match='"0"').status == 200
    tag = edge.get("/gate/meant").headers["etag"]
    assert edge.post("/gate/meant/tearDown", If_Match=tag).status == 200
    assert edge.post("/gate/meant/setUp", If_Match=tag).json["error"] == "version"


def test_an_idempotency_key(edge: Edge, worker: Worker) -> None:
    first = edge.post("/gate/once/setUp", {"size": 2}, Idempotency_Key="order-7")
    again = edge.post("/gate/once/setUp", {"size": 2}, Idempotency_Key='"order-7"')
    assert first.text == again.text == '"once is now UP"\n'
    assert first.headers["statemq-id"] == again.headers["statemq-id"]
    other = edge.post("/gate/once/setUp", {"size": 3}, Idempotency_Key="order-7")
    assert (other.status, other.json["error"], other.json["id"]) == (422, "idempotency_conflict", first.headers["statemq-id"])
    assert edge.post("/gate/once-2/setUp", {"size": 3}, Idempotency_Key="order-7").status == 200
    assert edge.post("/gate/once/setUp", Idempotency_Key="k" * 257).status == 413


def test_a_delay_and_a_cancel_before_it_is_over(edge: Edge, worker: Worker) -> None:
    sent = edge.post("/gate/later/setUp/send?delay=1h")
    where = sent.headers["location"]
    assert edge.get(where).json["status"] == "delayed"
    assert edge.get(f"{where}/result?timeout=0").json["error"] == "pending"
    cancelled = edge.post(f"{where}/cancel")
    assert (cancelled.status, cancelled.json["cancel"]) == (200, "cancelled")
    assert edge.get(f"{where}/result").json["error"] == "cancelled"
    soon = edge.post("/gate/later/setUp/send?delay=20ms")
    for wait in ("", "?timeout=0", "?wait=0"):
        assert edge.get(f"{soon.headers['location']}/result{wait}").json == "later is now UP"


def test_a_wait_that_is_over_and_a_cancel_of_what_runs(edge: Edge, worker: Worker) -> None:
    over = edge.post("/gate/held/hold?wait=50ms")
    assert (over.status, over.json["error"]) == (504, "pending")
    id = over.json["id"]
    assert over.headers["location"] == f"/-/commands/{id}/result"
    block_until(lambda: edge.get(f"/-/commands/{id}").json.get("steps"))
    assert edge.post(f"/-/commands/{id}/cancel").status in (200, 202)
    ended = edge.get(over.headers["location"])
    assert (ended.status, ended.json["error"], ended.json["id"]) == (409, "cancelled", id)
    assert edge.post(f"/-/commands/{id}/cancel").status == 200
    assert edge.post(f"/-/commands/{edge.post('/gate/held/setUp').headers['statemq-id']}/cancel").json["error"] == "ended"


def test_ids_nobody_knows(edge: Edge) -> None:
    id = "gate.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12"
    for answer in (edge.get(f"/-/commands/{id}"), edge.get(f"/-/commands/{id}/result"), edge.post(f"/-/commands/{id}/cancel")):
        assert (answer.status, answer.json["error"]) == (404, "unknown")


def test_machines_health_and_openapi(edge: Edge, worker: Worker) -> None:
    assert [machine["name"] for machine in edge.get("/-/machines").json] == ["gate"]
    assert edge.get("/-/health").json == {"status": "ok"}
    assert edge.get("/-/ready").json == {"status": "ready"}
    document = edge.get("/openapi.json").json
    assert "/gate/{key}/setUp" in document["paths"]
    times = [
        p for s in document["components"]["schemas"].values() for p in s.get("properties", {}).values() if p.get("format") == "date-time"
    ]
    assert times
    assert not any("default" in described for described in times)  # an empty text is no time


TWO_COMMANDS = "import msgspec, statemq.config as c\nc.LIMITS = msgspec.structs.replace(c.LIMITS, backlog=2)\n"


@pytest.mark.leaves_work
def test_a_full_backlog(url: str, namespace: str) -> None:
    """Without a worker nothing drains; the serving process has a small limit of its own."""
    small = Edge(url, namespace, before=TWO_COMMANDS)
    try:
        assert [small.post("/gate/a/setUp/send").status for _ in range(2)] == [202, 202]
        answer = small.post("/gate/a/setUp/send")
        assert (answer.status, answer.json["error"], answer.headers["retry-after"]) == (429, "backlog_full", "1")
    finally:
        small.end()


@pytest.mark.leaves_work
def test_sigterm_answers_who_waits_and_ends_soon(own: Edge) -> None:
    """No worker: the command waits. Callers in the middle of their headers or body do not hold it up either."""
    half_head, half_body = (socket.create_connection(("127.0.0.1", own.port)) for _ in range(2))
    half_head.sendall(b"POST /gate/b/set")
    half_body.sendall(b"POST /gate/b/setUp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(own.post, "/gate/a/setUp?wait=60s")
        block_until(lambda: own.get("/gate/a").json["queue"])
        began_s = time.monotonic()
        code, errors = own.end()
        assert (code, errors) == (0, "")
        assert time.monotonic() - began_s < 15
        answer = waiting.result()
        assert (answer.status, answer.json["error"]) == (504, "pending")
    assert half_body.recv(100).split()[1] == b"503"
    half_body.close()
    half_head.close()


def test_ctrl_c(own: Edge) -> None:
    own.process.send_signal(signal.SIGINT)
    assert own.process.wait(20) == 130
    assert own.end() == (130, "")


def test_it_refuses_to_be_reached_by_others_without_a_token(url: str, namespace: str) -> None:
    refused = Edge(url, namespace, host="0.0.0.0")
    code, errors = refused.end()
    assert (code, refused.said) == (1, "")
    assert errors.startswith("UsageError: 0.0.0.0 is reachable by others: set STATEMQ_TOKEN")
    assert len(errors.splitlines()) == 1


def test_with_a_token_it_may_be(url: str, namespace: str) -> None:
    edge = Edge(url, namespace, host="0.0.0.0", token="correct-horse-battery")
    try:
        assert edge.get("/-/machines").status == 401
        assert edge.get("/-/machines", Authorization="Bearer correct-horse-battery").status == 200
        assert edge.get("/-/health").status == 200
        for host in ("evil.example", "10.1.2.3"):  # a probe asks by the address of the moment
            assert [edge.get(path, Host=host).status for path in ("/-/health", "/-/ready", "/-/machines")] == [200, 200, 421]
    finally:
        edge.end()


def test_a_taken_port_is_one_sentence(edge: Edge, url: str, namespace: str) -> None:
    second = Edge(url, namespace, port=edge.port)
    code, errors = second.end()
    assert code == 1
    assert errors == f"PortTaken: port {edge.port} on 127.0.0.1 is taken by another program; choose another with --port\n"
    assert edge.get("/-/health").status == 200


def test_several_processes_share_the_port(url: str, namespace: str) -> None:
    edge = Edge(url, namespace, workers=2)
    try:
        with working_thread(url, namespace):
            block_until(lambda: answers(edge))
            assert {edge.post(f"/gate/{number}/setUp").status for number in range(20)} == {200}
    finally:
        code, errors = edge.end()
    assert code == 0, errors


def test_without_redis_it_starts_and_answers_503(namespace: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"redis://:secret@127.0.0.1:{unused.getsockname()[1]}"
        edge = Edge(url, namespace)
        try:
            assert edge.get("/-/health").status == 200
            for answer in (edge.get("/-/ready"), edge.post("/gate/a/setUp"), edge.get("/gate/a")):
                assert (answer.status, answer.json["error"], answer.headers["retry-after"]) == (503, "redis_away", "1")
                assert "secret" not in answer.text
        finally:
            _, errors = edge.end()
        assert "secret" not in errors


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /gate/a/setUp HTTP/1.1\r\nHost: localhost\r\nContent-Length: +2\r\n\r\n{}",
        b"POST /gate/a/setUp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /gate/a/setUp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /gate/a\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /gate/a HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
)
def test_broken_requests_end_the_connection(edge: Edge, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", edge.port), timeout=20) as connection:
        connection.sendall(raw)
        heard = b""
        while chunk := connection.recv(65536):
            heard += chunk
    assert heard == b"" or heard.split()[1] in (b"400", b"431", b"500")  # 500: garbage between chunks


def test_more_body_than_was_promised_or_allowed(edge: Edge) -> None:
    with socket.create_connection(("127.0.0.1", edge.port), timeout=20) as connection:
        head = b"POST /gate/a/setUp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(4):
            connection.sendall(chunk)
        assert connection.recv(100).split()[1] == b"413"
