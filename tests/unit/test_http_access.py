"""Who may ask: hosts, origins, tokens and roles."""

from __future__ import annotations

import pytest

from statemq.errors import PortTaken, UsageError
from statemq.http.access import OPERATE, READ, ROLES, SUBMIT, Tokens, host_name
from statemq.http.address import find_address
from statemq.http.app import routes
from statemq.http.server import read_tokens
from tests.unit.http_fakes import Edge, problem

SECRET = "correct-horse-battery"
READER, SENDER, OPERATOR = "reader-0000", "sender-0000", "operator-0000"

GETS = [
    "/openapi.json",
    "/-/machines",
    "/-/health",
    "/-/ready",
    "/-/commands/resource.7.x",
    "/-/commands/resource.7.x/result",
    "/resource/a",
    "/resource/a/room",
]
POSTS = ["/resource/a/setUp", "/resource/a/setUp/send", "/-/commands/resource.7.x/cancel"]
OPEN = ["/-/health", "/-/ready"]


def ask(edge: Edge, path: str, headers: dict[str, str]) -> object:
    return edge.ask("POST" if path in POSTS else "GET", path, headers=headers)


def test_the_lists_here_are_whole() -> None:
    edge = Edge()
    templates = {
        template.format(machine="resource", key="a", id="resource.7.x", name=name)
        for template in routes(edge.service)
        for name in ("room", "setUp")
    }
    assert templates - {"/resource/a/room/send"} == {*GETS, *POSTS}


@pytest.mark.parametrize("path", [*GETS, *POSTS, "/nowhere"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil", "", "localhost,evil"])
def test_other_hosts_are_refused_everywhere(path: str, host: str) -> None:
    problem(ask(Edge(), path, {"Host": host}), 421, "host")  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "api.example"])
def test_known_hosts_are_answered(host: str) -> None:
    edge = Edge(allowed_hosts=("api.example",))
    assert edge.get("/-/health", headers={"Host": host}).status_code == 200


def test_any_host_can_be_allowed() -> None:
    assert Edge(allowed_hosts=("*",)).get("/-/health", headers={"Host": "x.example"}).status_code == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [("localhost:8080", "localhost"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]"), ("A.example", "a.example"), ("a:1:2", "a:1")],
)
def test_host_name(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "http://localhost:8080.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_pages_of_other_origins_change_nothing(path: str, headers: dict[str, str]) -> None:
    edge = Edge()
    problem(edge.post(path, headers=headers), 403, "origin")
    assert not edge.client.sent


def test_pages_of_this_server_may_write() -> None:
    headers = {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}
    assert Edge().post("/resource/a/setUp", body={}, headers=headers).status_code == 200


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""])
@pytest.mark.parametrize("path", ["/resource/a/setUp", "/resource/a/setUp/send"])
def test_a_body_that_a_form_can_send_is_refused(path: str, kind: str) -> None:
    edge = Edge()
    problem(edge.post(path, body='{"size": 2}', headers={"Content-Type": kind} if kind else {}), 403, "content_type")
    assert not edge.client.sent


@pytest.mark.parametrize("path", [*GETS, *POSTS, "/nowhere"])
def test_every_answer_is_hardened(path: str) -> None:
    headers = ask(Edge(), path, {}).headers  # type: ignore[attr-defined]
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"].startswith("application/")
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", [*GETS, *POSTS, "/nowhere"])
@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong-token", f"Basic {SECRET}", f"Bearer {SECRET}x", SECRET])
def test_without_the_token_nothing_but_health_is_answered(path: str, given: str | None) -> None:
    edge = Edge(tokens=Tokens({SECRET: ROLES}))
    result = ask(edge, path, {"Authorization": given} if given else {})
    if path in OPEN:
        assert result.status_code == 200  # type: ignore[attr-defined]
        return
    problem(result, 401, "token")  # type: ignore[arg-type]
    assert result.headers["www-authenticate"] == "Bearer"  # type: ignore[attr-defined]
    assert not edge.client.sent


@pytest.mark.parametrize("path", [*GETS, *POSTS, "/nowhere"])
@pytest.mark.parametrize("token", [READER, SENDER, OPERATOR])
def test_each_role_may_do_its_own(path: str, token: str) -> None:
    edge = Edge(tokens=Tokens({READER: [READ], SENDER: [SUBMIT], OPERATOR: [OPERATE]}))
    needed = {"/-/commands/resource.7.x/cancel": OPERATOR}.get(path, SENDER if path in POSTS else READER)
    result = ask(edge, path, {"Authorization": f"bearer {token}"})
    refused = result.status_code == 403  # type: ignore[attr-defined]
    assert refused == (token != needed and path not in OPEN and path != "/nowhere")


def test_token_files() -> None:
    tokens = Tokens.parse(f"# ours\n\n{READER} read\n{SENDER} read submit # the shop\n{OPERATOR}\n")
    assert tokens is not None
    assert tokens.roles(READER) == {READ}
    assert tokens.roles(SENDER) == {READ, SUBMIT}
    assert tokens.roles(OPERATOR) == ROLES
    assert tokens.roles("") is None
    assert Tokens.parse("\n# nothing\n") is None


@pytest.mark.parametrize("text", ["short", f"{READER} admin", "pässword-000"])
def test_token_files_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError):
        Tokens.parse(text)


def test_where_the_token_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.delenv("STATEMQ_TOKEN", raising=False)
    assert read_tokens(None, None) == ""
    monkeypatch.setenv("STATEMQ_TOKEN", f" {SECRET}\n")
    assert read_tokens(None, None) == SECRET
    assert read_tokens(READER, None) == READER
    file = tmp_path / "tokens"  # type: ignore[operator]
    with pytest.raises(UsageError, match="cannot read the token file"):
        read_tokens(None, file)
    file.write_text("# empty")
    with pytest.raises(UsageError, match="no token in it"):
        read_tokens(None, file)
    file.write_text(f"{SENDER} submit")
    assert read_tokens(None, file) == f"{SENDER} submit"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_only_loopback_without_a_token(host: str) -> None:
    with pytest.raises(UsageError, match="STATEMQ_TOKEN"):
        find_address(host, 0, protected=False)


def test_a_port_that_is_taken_is_said_in_one_sentence() -> None:
    import socket

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken by another program; choose another with --port"):
            find_address("127.0.0.1", port, protected=False)
    assert find_address("localhost", 0, protected=False).port > 0


def test_a_host_that_is_none() -> None:
    with pytest.raises(UsageError, match="no address"):
        find_address("no.such.host.invalid", 8080, protected=True)
