"""S1 to S4 against a serving process: where it listens, who may do what, by which name, from which page."""

from __future__ import annotations

import hmac
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from statemq.http.access import OPERATE, READ, ROLES, SUBMIT, Tokens
from statemq.server import EmbeddedServer
from tests.contents import content
from tests.security.raw import speak
from tests.serving import ROOT, TARGET, Edge
from tests.waiting import block_until

ID = "gate.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12"
GETS = [
    "/openapi.json",
    "/-/machines",
    "/-/health",
    "/-/ready",
    f"/-/commands/{ID}",
    f"/-/commands/{ID}/result?wait=0",
    "/gate/a",
    "/gate/a/room",
]
POSTS = ["/gate/a/setUp?wait=0", "/gate/a/setUp/send", f"/-/commands/{ID}/cancel"]
OPEN = ["/-/health", "/-/ready"]


def method(path: str) -> str:
    return "POST" if path in POSTS else "GET"


# -- S1 --------------------------------------------------------------------------------------------


def serve(url: str, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")}
    command = [sys.executable, "-m", "statemq", "serve", TARGET, "--redis", url, *words]
    return subprocess.run(command, cwd=ROOT, env=clean | (env or {}), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_s1_others_are_not_let_in_without_a_token(url: str, host: str, tmp_path: Path) -> None:
    comment = tmp_path / "comment"
    comment.write_text("#begins-with-it read\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for env, words, why in (
        ({}, (), f"{host} is reachable by others"),
        ({"STATEMQ_TOKEN": ""}, (), f"{host} is reachable by others"),
        ({"STATEMQ_TOKEN": "short"}, (), "a token has at least 8 characters"),
        ({"STATEMQ_TOKEN": " "}, (), "a token has at least 8 characters"),
        ({}, ("--token-file", str(tmp_path / "none")), "cannot read the token file"),
        ({}, ("--token-file", str(comment)), "has no token in it; a line that begins with # is a comment"),
    ):
        ended = serve(url, "--host", host, "--port", str(port), *words, env=env)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert why in ended.stderr and len(ended.stderr.splitlines()) == 1
        with socket.socket() as caller:
            assert caller.connect_ex(("127.0.0.1", port)) != 0, "it listens"


def test_s1_the_default_is_loopback(served: Edge) -> None:
    listening = Path(f"/proc/{served.process.pid}/net/tcp").read_text()
    where = [line.split()[1] for line in listening.splitlines()[1:] if line.split()[1].endswith(f":{served.port:04X}")]
    assert where and set(where) == {f"0100007F:{served.port:04X}"}


# -- S2 --------------------------------------------------------------------------------------------

TOKENS = {"reader-0000": {READ}, "sender-0000": {SUBMIT}, "operator-0000": {OPERATE}, "both-000000": {READ, SUBMIT}, "all-0000000": ROLES}


@pytest.fixture(scope="module")
def guarded(redis_of_module: EmbeddedServer) -> Iterator[Edge]:
    text = "\n".join(f"{token} {' '.join(sorted(roles))}" for token, roles in TOKENS.items())
    edge = Edge(
        redis_of_module.url,
        "security",
        before=f"import statemq.http.server as s\ns.read_tokens = lambda *_: s.Tokens.parse({text!r})\n",
        wrong_token_s=0,
    )
    assert edge.said, edge.end()
    yield edge
    code, errors = edge.end()
    assert code == 0
    assert "a wrong token from 127.0.0.1" in errors and not any(token in errors for token in TOKENS)


@pytest.mark.parametrize("path", [*GETS, *POSTS])
def test_s2_each_route_takes_the_roles_it_should(guarded: Edge, path: str) -> None:
    needed = OPERATE if path.endswith("cancel") else SUBMIT if path in POSTS else READ
    for token, roles in TOKENS.items():
        answer = guarded.ask(method(path), path, None, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        if needed in roles or path in OPEN:
            assert answer.status not in (401, 403), (token, answer.text)
        else:
            assert (answer.status, answer.json["error"]) == (403, "role"), (token, answer.text)


@pytest.mark.parametrize("path", [*GETS, *POSTS, "/nowhere", "/-/nowhere", "/"])
def test_s2_who_is_nobody_learns_nothing(guarded: Edge, path: str) -> None:
    if path in OPEN:
        return
    wrong = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer reader-000",
        "Bearer reader-00000",
        "Basic cmVhZGVyLTAwMDA6",
        "bearer\treader-0000",
        "reader-0000",
    ]
    answers = [guarded.ask(method(path), path, None, {"Authorization": value} if value else {}) for value in wrong]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1, "one answer, whatever was wrong, and whether the path exists or not"
    assert answers[0].text == guarded.get("/gate/a").text
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert not any(token in answers[0].text for token in TOKENS)


def test_s2_a_token_in_the_query_or_a_cookie_is_none(guarded: Edge) -> None:
    assert guarded.get("/gate/a?token=all-0000000&access_token=all-0000000").status == 401
    assert guarded.get("/gate/a", Cookie="token=all-0000000").status == 401
    heard = speak(guarded, b"GET http://all-0000000@localhost/gate/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert heard.statuses in ([401], [400])


def test_s2_two_authorizations_are_none(guarded: Edge) -> None:
    head = b"GET /gate/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer all-0000000\r\n"
    assert speak(guarded, head + b"\r\n").statuses == [200]
    assert speak(guarded, head + b"Authorization: Bearer wrong-00000\r\n\r\n").statuses == [401]


@pytest.mark.parametrize("given", ["reader-0000", "all-0000000", "x", "", "reader-0001"])
def test_s2_every_token_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """One comparison of equally long digests for each known token, by the function that does not stop at the first difference."""
    compared: list[tuple[int, int]] = []
    whole = hmac.compare_digest

    def compare(a: Any, b: Any) -> bool:
        compared.append((len(a), len(b)))
        return whole(a, b)

    monkeypatch.setattr("statemq.http.access.hmac.compare_digest", compare)
    Tokens(TOKENS).roles(given)
    assert compared == [(32, 32)] * len(TOKENS)


def test_s2_no_token_is_kept() -> None:
    assert "reader-0000" not in repr(vars(Tokens(TOKENS)))


def test_s2_tokens_from_the_environment_and_from_a_file(url: str, namespace: str) -> None:
    edge = Edge(url, namespace, token="from-the-environment")
    try:
        assert edge.get("/-/machines").status == 401
        assert edge.get("/-/machines", Authorization="Bearer from-the-environment").status == 200
        assert "from-the-environment" not in Path(f"/proc/{edge.process.pid}/cmdline").read_text()
    finally:
        edge.end()


@pytest.mark.parametrize("token", ["#begins-with-it", "has-it-#-within", "ends-with-it#"])
@pytest.mark.parametrize("workers", [1, 2])
def test_s2_the_whole_token_is_asked_for(url: str, namespace: str, token: str, workers: int) -> None:
    edge = Edge(url, namespace, token=token, workers=workers)
    try:
        assert block_until(lambda: answers(edge))
        before, _, behind = token.partition("#")
        for wrong in ("", before, behind, "#", f"#{behind}", f"{before}#"):
            if wrong != token:
                assert edge.get("/-/machines", **({"Authorization": f"Bearer {wrong}"} if wrong else {})).status == 401, wrong
        assert edge.post("/gate/a/setUp/send").status == 401
        assert edge.get("/-/machines", Authorization=f"Bearer {token}").status == 200
    finally:
        edge.end()


def answers(edge: Edge) -> bool:
    """Of several processes, whether one listens yet."""
    try:
        return edge.get("/-/health").status == 200
    except OSError:
        return False


# -- S3 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*GETS, *POSTS, "/nowhere", "/static/x.js", "//evil.example/"])
def test_s3_another_name_is_answered_421_everywhere(served: Edge, path: str) -> None:
    for host in (
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "169.254.169.254",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
    ):
        answer = served.ask(method(path), path, None, {"Host": host})
        if path in OPEN:
            assert answer.status == 200 and answer.json["status"] in ("ok", "ready")
            continue
        assert (answer.status, answer.json["error"]) == (421, "host")
        assert host not in answer.text


def test_s3_names_of_loopback_are_its_own(served: Edge) -> None:
    for host in ("localhost", f"localhost:{served.port}", "127.0.0.1", "LOCALHOST", "[::1]:1"):
        assert served.ask("GET", "/-/health", None, {"Host": host}).status == 200


# -- S4 --------------------------------------------------------------------------------------------

PAGES: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "file://"},
    {"Referer": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: " ".join(page.values()))
def test_s4_pages_of_others_change_nothing(served: Edge, redis_of_module: EmbeddedServer, path: str, page: dict[str, str]) -> None:
    before = everything(redis_of_module)
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
        answer = served.ask("POST", path, "", page | {"Content-Type": kind})
        assert (answer.status, answer.json["error"]) == (403, "origin")
    assert everything(redis_of_module) == before


@pytest.mark.parametrize("path", POSTS[:2])
@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "text/json", "application/jsonp"]
)
def test_s4_a_body_that_a_form_can_send_changes_nothing(served: Edge, redis_of_module: EmbeddedServer, path: str, kind: str) -> None:
    before = everything(redis_of_module)
    for body in ('{"size": 2}', 'size=2&{"a":"=b"}', "x"):
        answer = served.ask("POST", path, body, {"Content-Type": kind, "Cookie": "session=1"})
        assert (answer.status, answer.json["error"]) == (415, "content_type")
    assert everything(redis_of_module) == before


def test_s4_looking_changes_nothing(served: Edge, redis_of_module: EmbeddedServer) -> None:
    served.post("/gate/seen/setUp/send", Idempotency_Key="k")
    before = everything(redis_of_module)
    assert before
    for path in [*GETS, "/gate/seen", "/gate/seen/setUp", "/gate/seen/setUp/send", f"/-/commands/{ID}/cancel", "/gate/seen?_method=POST"]:
        for verb in ("GET", "HEAD", "OPTIONS"):
            served.ask(verb, path, None, {"X-HTTP-Method-Override": "POST", "Content-Type": "application/json"})
    for verb in ("PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"):
        assert served.ask(verb, "/gate/seen", None).status in (400, 405)
    assert everything(redis_of_module) == before


@pytest.mark.quick
@pytest.mark.parametrize("path", [*GETS, *POSTS, "/nowhere"])
def test_s4_no_page_of_others_may_read(served: Edge, path: str) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for verb in ("GET", "OPTIONS", "POST"):
        answer = served.ask(verb, path, None, asked)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "set-cookie" not in answer.headers


def everything(server: EmbeddedServer) -> dict[bytes, Any]:
    with redis_py.Redis.from_url(server.url) as redis:
        return {name: content(redis, name) for name in redis.scan_iter("security:*") if b":outcomes:" not in name}
