"""POST of a command: what is sent, what comes back, and every way it can be refused."""

from __future__ import annotations

import msgspec
import pytest

from statemq.config import LIMITS, HttpSettings
from statemq.errors import (
    BacklogFull,
    IdempotencyConflict,
    InvalidArguments,
    InvalidKey,
    NamespaceLost,
    PartitionMismatch,
    RedisAway,
    ServerError,
    StatemqError,
    TooLarge,
    Unknown,
    UnknownMachine,
    UnknownTransition,
)
from statemq.records import Outcome
from tests.unit.http_fakes import Edge, problem

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def edge() -> Edge:
    return Edge()


def test_the_answer_is_the_result_as_json(edge: Edge) -> None:
    result = edge.post("/resource/my-machine/setUp", headers=JSON)
    assert (result.status_code, result.text) == (200, '"a is now UP"\n')
    assert result.headers["content-type"] == "application/json"
    id = result.headers["statemq-id"]
    assert id.startswith("resource.7.")
    assert result.headers["location"] == f"/-/commands/{id}"
    (sent,) = edge.client.sent
    assert (sent.machine, sent.key, sent.transition, sent.args, sent.options) == ("resource", "my-machine", "setUp", {}, {})


@pytest.mark.parametrize("headers", [{}, JSON, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "text/plain"}])
def test_an_empty_body_needs_no_content_type(edge: Edge, headers: dict[str, str]) -> None:
    assert edge.post("/resource/a/setUp", headers=headers).status_code == 200


def test_arguments_are_passed_on(edge: Edge) -> None:
    edge.post("/resource/a/setUp", body={"size": 2})
    assert edge.client.sent[0].args == {"size": 2}


def test_options_of_a_command(edge: Edge) -> None:
    headers = {"Idempotency-Key": '"order-7"', "If-Match": '"3"'}
    assert edge.post("/resource/a/setUp?if_state=DOWN&wait=2s", headers=headers).status_code == 200
    assert edge.client.sent[0].options == {"idempotency_key": "order-7", "if_version": 3, "if_state": "DOWN"}


def test_send_answers_with_the_id(edge: Edge) -> None:
    result = edge.post("/resource/a/setUp/send?delay=1500ms", body={"size": 2})
    assert result.status_code == 202
    assert result.json == {"id": result.headers["statemq-id"]}
    assert result.headers["location"] == f"/-/commands/{result.json['id']}"
    assert edge.client.sent[0].options == {"delay": 1.5}


def test_prefer_respond_async_only_sends(edge: Edge) -> None:
    edge.client.ended.clear()
    result = edge.post("/resource/a/setUp", headers={"Prefer": "wait=10, respond-async"})
    assert (result.status_code, result.headers["preference-applied"]) == (202, "respond-async")


@pytest.mark.parametrize("how", [{"path": "?timeout=10ms"}, {"path": "?wait=10ms"}, {"headers": {"Prefer": "wait=0"}}])
def test_a_wait_that_is_over_answers_504_with_the_id(edge: Edge, how: dict[str, object]) -> None:
    edge.client.ended.clear()
    result = edge.ask("POST", f"/resource/a/setUp{how.get('path', '')}", headers=how.get("headers"))  # type: ignore[arg-type]
    body = problem(result, 504, "pending")
    assert body["id"] == result.headers["statemq-id"]
    assert result.headers["location"] == f"/-/commands/{body['id']}/result"


@pytest.mark.parametrize("live", [0, 1])
def test_a_wait_without_a_worker_says_so(edge: Edge, live: int) -> None:
    edge.client.ended.clear()
    edge.client.live = live
    detail = problem(edge.post("/resource/a/setUp?wait=0"), 504, "pending")["detail"]
    assert ("no worker of resource runs now" in detail) == (live == 0)


def test_without_a_wait_the_outcome_is_asked_for(edge: Edge) -> None:
    edge.client.ended.clear()
    edge.client.late = True
    assert edge.post("/resource/a/setUp?wait=0").text == '"a is now UP"\n'


def test_the_default_wait_is_bounded() -> None:
    edge = Edge(settings=HttpSettings(wait_s=0.01))
    edge.client.ended.clear()
    problem(edge.post("/resource/a/setUp"), 504, "pending")


def test_long_waits_end_when_the_server_stops() -> None:
    edge = Edge(settings=HttpSettings(wait_s=3600.0))
    edge.client.ended.clear()
    edge.service.waiting.stop()
    problem(edge.post("/resource/a/setUp"), 504, "pending")


def test_more_waiting_requests_than_allowed_are_answered_at_once() -> None:
    edge = Edge(settings=HttpSettings(wait_s=3600.0, max_waiting=0))
    edge.client.ended.clear()
    assert problem(edge.post("/resource/a/setUp"), 504, "pending")["id"]


def test_a_rejection_says_why_and_what_is_allowed(edge: Edge) -> None:
    why = "resource/a is UP; setUp needs DOWN"
    edge.client.outcome = Outcome("", "rejected", "a", "setUp", reason=why, code="rejected", state="UP", allowed=["tearDown"])
    result = edge.post("/resource/a/setUp")
    body = problem(result, 409, "rejected")
    assert body.pop("id") == result.headers["statemq-id"]
    assert body == {
        "title": "Conflict",
        "status": 409,
        "error": "rejected",
        "detail": why,
        "machine": "resource",
        "key": "a",
        "transition": "setUp",
        "state": "UP",
        "allowed": ["tearDown"],
    }


@pytest.mark.parametrize(
    ("outcome", "code", "status", "error"),
    [
        ("rejected", "rejected", 409, "rejected"),
        ("rejected", "if_state", 409, "rejected"),
        ("rejected", "if_version", 412, "version"),
        ("cancelled", "cancelled", 409, "cancelled"),
        ("failed", "failed", 500, "failed"),
        ("failed", "funds", 500, "failed"),
    ],
)
def test_outcomes(edge: Edge, outcome: str, code: str, status: int, error: str) -> None:
    edge.client.outcome = Outcome("", outcome, "a", "setUp", reason="because", code=code)
    body = problem(edge.post("/resource/a/setUp"), status, error)
    assert body.get("code") == (code if code in ("if_state", "funds") else None)


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (InvalidArguments("resource", "setUp", 'argument "x" is unknown'), 400, "arguments"),
        (InvalidKey("a key has at most 512 bytes"), 400, "key"),
        (UnknownMachine("x", "statemq", ["order"]), 404, "unknown_machine"),
        (UnknownTransition("resource", "x", ["setUp"]), 404, "unknown_transition"),
        (TooLarge("arguments", 200_000, 131_072), 413, "too_large"),
        (IdempotencyConflict("order-7", "resource.7.1"), 422, "idempotency_conflict"),
        (BacklogFull("resource", 7, 1000), 429, "backlog_full"),
        (PartitionMismatch("resource", 16, 8), 500, "partition_mismatch"),
        (RedisAway("cannot connect to redis://:secret@host:6379"), 503, "redis_away"),
        (NamespaceLost("it was wiped"), 503, "namespace_lost"),
        (StatemqError("x"), 500, "internal"),
    ],
)
def test_what_the_client_raises(edge: Edge, fault: StatemqError, status: int, error: str) -> None:
    edge.client.fault = fault
    result = edge.post("/resource/a/setUp")
    problem(result, status, error)
    assert "secret" not in result.text
    assert ("retry-after" in result.headers) == (error in ("backlog_full", "redis_away", "namespace_lost"))


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (RedisAway("the client was closed"), 504, "redis_away"),
        (NamespaceLost("it was wiped"), 504, "namespace_lost"),
        (ServerError("damaged"), 504, "server"),
        (StatemqError("x"), 500, "internal"),
        (Unknown("nothing is known of it"), 404, "unknown"),
        (ZeroDivisionError("x"), 500, "internal"),
    ],
)
def test_what_goes_wrong_once_a_command_is_queued_is_answered_with_its_id(edge: Edge, fault: Exception, status: int, error: str) -> None:
    edge.client.outcome = fault
    result = edge.post("/resource/a/setUp")
    body = problem(result, status, "pending" if status == 504 else error)  # 503 would say that nothing was queued
    assert body["id"] == result.headers["statemq-id"]
    assert result.headers["location"] == f"/-/commands/{body['id']}"
    assert "try again" not in body["detail"]
    asked = edge.get(f"/-/commands/{body['id']}/result")
    assert problem(asked, 503 if status == 504 else status, error)["id"] == asked.headers["statemq-id"] == body["id"]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel")])
def test_who_asks_for_a_command_is_answered_with_its_id(edge: Edge, method: str, path: str) -> None:
    edge.client.fault = RedisAway("away")
    id = "resource.7.01a22a9f7ec8775386f29c54f74cf11f"
    assert problem(edge.ask(method, f"/-/commands/{id}{path}"), 503, "redis_away")["id"] == id


def test_a_fault_shows_nothing_of_the_inside(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    edge.client.fault = ZeroDivisionError("/etc/secret")  # type: ignore[assignment]
    result = edge.post("/resource/a/setUp")
    problem(result, 500, "internal")
    assert "secret" not in result.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("body", ["{", "nul", '{"a":1}x', b"\xff", '{"a": NaN}', b'{"a": "\xed\xa0\x80"}', '{"a": "\\ud800"}'])
def test_what_is_no_json(edge: Edge, body: bytes | str) -> None:
    problem(edge.post("/resource/a/setUp", body=body, headers=JSON), 400, "body")


@pytest.mark.parametrize("body", [[], 1, "text", None, True])
def test_arguments_are_an_object(edge: Edge, body: object) -> None:
    problem(edge.post("/resource/a/setUp", body=msgspec.json.encode(body), headers=JSON), 400, "arguments")


def test_nesting_without_end_is_refused(edge: Edge) -> None:
    deep = '{"a":' + "[" * 50_000 + "]" * 50_000 + "}"
    problem(edge.post("/resource/a/setUp", body=deep, headers=JSON), 400, "body")


def test_a_body_over_the_limit(edge: Edge) -> None:
    exact = b'{"a":"' + b"x" * (LIMITS.arguments - 8) + b'"}'
    assert edge.post("/resource/a/setUp", body=exact, headers=JSON).status_code == 200
    problem(edge.post("/resource/a/setUp", body=exact + b" ", headers=JSON), 413, "too_large")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("?wait=long", {}),
        ("?wait=6m", {}),
        ("?wait=-1", {}),
        ("?wait=1&wait=2", {}),
        ("?timeout=long", {}),
        ("?timeout=6m", {}),
        ("?timeout=1&wait=1", {}),
        ("/send?timeout=1", {}),
        ("?delay=5s", {}),
        ("/send?delay=x", {}),
        ("/send?wait=1", {}),
        ("?if_state=%FF", {}),
        ("", {"If-Match": "3"}),
        ("", {"If-Match": "*"}),
        ("", {"Prefer": "wait=x"}),
    ],
)
def test_parameters_are_read_strictly(edge: Edge, path: str, headers: dict[str, str]) -> None:
    problem(edge.post(f"/resource/a/setUp{path}", headers=headers), 400, "parameter")
    assert not edge.client.sent
