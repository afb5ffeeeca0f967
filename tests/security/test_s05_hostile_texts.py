"""S5: whatever text comes in anywhere comes out as JSON text, under headers that let no browser make more of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis as redis_py

from statemq.server import EmbeddedServer
from statemq.worker.daemon import Worker
from tests.security.machines import Echo
from tests.serving import Answer, Edge, working_thread
from tests.waiting import block_until

TEXTS = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "javascript:alert(1)",
    "a\r\nSet-Cookie: a=b\r\n\r\n<html>",
    "\0\x01\x1b[31m\x7f",
    "\u202eltr\u2066\u200b\ufeff",
    "\u2028\u2029",
    "{{7*7}}${7*7}<%=7*7%>",
    "'; DROP TABLE x; --",
    '"}],"error":"x"',
    "../../etc/passwd",
    "🎉\U0010ffff\uffff",
    "%s%n%x{}{0}",
]


@pytest.fixture(scope="module")
def echo(redis_of_module: EmbeddedServer) -> Iterator[Edge]:
    edge = Edge(redis_of_module.url, "security", target=Path(__file__).with_name("machines.py"))
    assert edge.said, edge.end()
    yield edge
    edge.end()


@pytest.fixture(scope="module")
def worker(redis_of_module: EmbeddedServer) -> Iterator[Worker]:
    with working_thread(redis_of_module.url, "security", Echo) as worker:
        yield worker


def harmless(answer: Answer) -> Answer:
    """It is JSON, says so, and a browser takes it for nothing else. No header was made of a text."""
    assert answer.headers["content-type"] in ("application/json", "application/problem+json")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "set-cookie" not in answer.headers
    assert answer.status != 500 or answer.json["error"] == "failed", answer.text
    assert all(value.isascii() and value.isprintable() for value in answer.headers.values())
    assert not [c for c in answer.text.rstrip("\n") if c < " "], "control characters are escaped"
    json.loads(answer.text)
    return answer


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_as_key_argument_result_reason_and_code(echo: Edge, worker: Worker, text: str) -> None:
    where = f"/echo/{quote(text, safe='')}"
    assert harmless(echo.post(f"{where}/say", {"what": text})).json == text
    assert harmless(echo.post(f"{where}/say", {"what": {text: [text]}})).json == {text: [text]}
    seen = harmless(echo.get(where)).json
    assert (seen["key"], seen["data"]) == (text, {"kept": {text: [text]}})
    refused = harmless(echo.post(f"{where}/refuse", {"what": text})).json
    assert (refused["detail"], refused["code"], refused["key"]) == (text, text, text)
    failed = harmless(echo.post(f"{where}/fail", {"what": text})).json
    assert (failed["detail"], failed["code"]) == (text, text)
    crashed = harmless(echo.post(f"{where}/crash", {"what": text})).json
    assert crashed["detail"] == f"OSError: {text} (after 1 attempts)"
    assert harmless(echo.get(f"{where}/ask?what={quote(text, safe='')}")).json == text


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_as_a_name_of_a_step_and_in_a_queue(echo: Edge, worker: Worker, text: str) -> None:
    where = f"/echo/step {quote(text, safe='')}".replace(" ", "%20")
    held = harmless(echo.post(f"{where}/step/send", {"what": text})).json["id"]
    behind = harmless(echo.post(f"{where}/say/send", {"what": text})).json["id"]
    try:
        running = block_until(lambda: (found := harmless(echo.get(where)).json["running"]) and found.get("steps") and found)
        assert text[:50] in [step["name"] for step in running["steps"]]
        assert running["arguments"] == {"what": text}
        assert harmless(echo.get(f"/-/commands/{behind}")).json["arguments"] == {"what": text}
    finally:
        for id in (behind, held):
            harmless(echo.post(f"/-/commands/{id}/cancel"))


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_as_a_name_of_what_is_not_there(echo: Edge, text: str) -> None:
    name = quote(text, safe="")
    for path in (f"/{name}", f"/{name}/a", f"/echo/a/{name}", f"/-/{name}", f"/-/commands/{name}", f"/-/commands/{name}/result"):
        assert harmless(echo.get(path)).status in (400, 404)
    for path in (f"/{name}/a/say", f"/echo/a/{name}", f"/echo/a/{name}/send", f"/-/commands/{name}/cancel"):
        assert harmless(echo.post(path)).status in (400, 404)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_as_a_command_id(echo: Edge, redis_of_module: EmbeddedServer, text: str) -> None:
    """Ids go into headers; one can be written into Redis by hand."""
    id = f"echo.1.{text}"
    for path in (f"/-/commands/{quote(id, safe='')}", f"/-/commands/{quote(id, safe='')}/result?wait=0"):
        assert harmless(echo.get(path)).status in (400, 404)
    assert harmless(echo.post(f"/-/commands/{quote(id, safe='')}/cancel")).status in (400, 404)
    with redis_py.Redis.from_url(redis_of_module.url) as redis:
        for partition in (0, 1):
            redis.hset(f"security:{{echo:{partition}}}:once:1:k:own", mapping={"id": id, "digest": "x" * 12})
    try:
        answer = harmless(echo.post("/echo/k/say/send", {"what": 1}, Idempotency_Key="own"))
        assert answer.status == 422
    finally:
        with redis_py.Redis.from_url(redis_of_module.url) as redis:
            for partition in (0, 1):
                redis.delete(f"security:{{echo:{partition}}}:once:1:k:own")


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_as_a_parameter_and_in_a_body(echo: Edge, text: str) -> None:
    name = quote(text, safe="")
    for path in (f"/echo/a?{name}=1", f"/echo/a/ask?{name}=1", f"/-/machines?x={name}"):
        assert harmless(echo.get(path)).status == 400
    for path in (f"/echo/a/say?if_state={name}", f"/echo/a/say?wait={name}", f"/echo/a/say/send?delay={name}"):
        assert harmless(echo.post(path, {"what": 1})).status in (400, 404)
    assert harmless(echo.post("/echo/a/say", {text: 1})).status == 400
    assert harmless(echo.ask("POST", "/echo/a/say", text.encode(), {"Content-Type": "application/json"})).status == 400


@pytest.mark.parametrize("text", [t for t in TEXTS if "\n" not in t and "\0" not in t and "\x7f" not in t])
def test_as_a_header(echo: Edge, text: str) -> None:
    value = text.encode().decode("latin-1")
    for name in ("Idempotency-Key", "If-Match", "Prefer", "Content-Type", "Origin", "X-Forwarded-For", "User-Agent", "Cookie"):
        sent = {"Content-Type": "application/json", name: value} if name != "Content-Type" else {name: value}
        answer = echo.ask("POST", "/echo/header/say/send", '{"what": 1}', sent)
        assert harmless(answer).status in ((403, 415) if name == "Content-Type" else (202, 400, 403))


def test_nothing_here_makes_html(sources: list[Path]) -> None:
    for path in sources:
        text = path.read_text()
        assert not [word for word in ("innerHTML", "|safe", "text/html", "Markup(") if word in text], path
