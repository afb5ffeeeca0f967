"""Who may ask: hosts, origins, tokens and roles."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from statemq.config import HttpSettings
from statemq.errors import PortTaken, RedisAway, ServerError, UnknownMachine, UsageError
from statemq.http.access import OPERATE, READ, ROLES, SUBMIT, Tokens, host_name
from statemq.http.address import find_address
from statemq.http.app import routes
from statemq.http.server import read_tokens, serve
from statemq.server.host import free_port
from tests.unit.http_fakes import Edge, problem

SECRET = "correct-horse-battery"
UNSLOWED = HttpSettings(wrong_token_s=0)
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
def test_other_hosts_are_refused_everywhere_but_at_the_probes(path: str, host: str) -> None:
    result = ask(Edge(), path, {"Host": host})
    if path in OPEN:
        assert result.status_code == 200  # type: ignore[attr-defined]
    else:
        problem(result, 421, "host")  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["10.1.2.3", "10.1.2.3:8080", "[fd00::7]:8080", "pod-7.shop.svc", ""])
@pytest.mark.parametrize("token", [None, "not-the-token"])
def test_probes_ask_by_any_host_and_hear_no_reason(host: str, token: str | None) -> None:
    """A kubelet asks by the pod's address, a load balancer by its own name."""
    for tokens in (None, Tokens({SECRET: ROLES})):
        edge = Edge(tokens=tokens, settings=UNSLOWED)
        headers = {"Host": host} | ({"Authorization": f"Bearer {token}"} if token else {})
        assert [edge.get(path, headers=headers).status_code for path in OPEN] == [200, 200]
        for fault in (UnknownMachine("x", "secret-namespace", ["order"]), RedisAway("no Redis at secret"), ServerError("secret")):
            edge.client.fault = fault
            for path in (*OPEN, "/-/ready?x=1"):
                result = edge.get(path, headers=headers)
                assert "secret" not in result.text and "order" not in result.text
                if path != "/-/health":
                    problem(result, 503, "not_ready")


def test_who_has_a_token_hears_why_it_is_not_ready() -> None:
    edge = Edge(tokens=Tokens({SECRET: [SUBMIT]}))
    edge.client.fault = UnknownMachine("x", "n", ["order"])
    headers = {"Authorization": f"Bearer {SECRET}"}
    assert "order" in problem(edge.get("/-/ready", headers=headers), 503, "not_ready")["detail"]
    assert "order" not in problem(edge.get("/-/ready"), 503, "not_ready")["detail"]
    edge.client.fault = RedisAway("away")
    problem(edge.get("/-/ready", headers=headers), 503, "redis_away")


@pytest.mark.parametrize("path", ["/-/health/", "/-/ready/x", "//-/health", "/-/%68ealt", "/%FF/-/health", "/-/health%2Fx", "/-/machines"])
def test_nothing_else_is_a_probe(path: str) -> None:
    problem(Edge().get(path, headers={"Host": "evil.example"}), 421, "host")
    problem(Edge(tokens=Tokens({SECRET: ROLES})).get(path), 401, "token")


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
    problem(edge.post(path, body='{"size": 2}', headers={"Content-Type": kind} if kind else {}), 415, "content_type")
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
    edge = Edge(tokens=Tokens({SECRET: ROLES}), settings=UNSLOWED)
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
    tokens = Tokens.parse(f"# ours\n\n{READER} read\n{SENDER} read submit # the shop\n{OPERATOR} read submit operate\n")
    assert tokens is not None
    assert tokens.roles(READER) == {READ}
    assert tokens.roles(SENDER) == {READ, SUBMIT}
    assert tokens.roles(OPERATOR) == ROLES
    assert tokens.roles("") is None
    assert Tokens.parse("\n# nothing\n") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("short", "at least 8 characters"),
        ("pässword-000", "printable ASCII"),
        (f"{READER} admin", "line 1 .* no role: operate, read, submit are"),
        (f"# ours\n{READER} read#comment", "line 2 .* no role"),
        (f"{READER} # read", "line 1 .* in its comment only"),
        (f"{READER} #submit, nothing else", "in its comment only"),
        (f"{READER} read\n{SENDER} submit\n{READER} submit", "line 3 .* repeats a token"),
        *(
            (f"{READER} read\n{SENDER}{rest}", "line 2 .* no role behind its token")
            for rest in ("", "\t", " # the shop", "\r\n", " #", "#")
        ),
        *((f"{READER}{char}{SENDER}", "printable ASCII") for char in "\v\f\x1c\x1e\x85\xa0\u2028\x00\x7f\ufeff"),
    ],
)
def test_token_files_that_cannot_be(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Tokens.parse(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("short", 1),
        (f"# ours\n\n{READER} read\n{SENDER} submit\npassword1 read\n", 5),
        (f"{READER} read\r\n  changeme1\r\n", 2),
        (f"{READER} read\n{SENDER}\u00a0read submit", 2),
        (f"{READER} read\n{SENDER}", 2),
        (f"{READER} read\n{SENDER} admin", 2),
        (f"{READER} read\n{SENDER} # submit", 2),
        (f"{READER} read\n{READER} read", 2),
    ],
)
def test_a_line_that_cannot_be_is_named_with_its_file(text: str, line: int, tmp_path: Path) -> None:
    file = tmp_path / "my tokens"
    file.write_text(text, newline="")
    with pytest.raises(UsageError) as refused:
        read_tokens(None, file)
    assert str(refused.value).startswith(f"line {line} of the token file {file}"), refused.value
    words = text.split("\n")[line - 1].split()
    assert words[0] not in str(refused.value), "a token is a secret, also one that is refused"


def test_a_refused_token_of_the_environment_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("password1", "short"):
        monkeypatch.setenv("STATEMQ_TOKEN", token)
        with pytest.raises(UsageError, match=r"^STATEMQ_TOKEN: a token "):
            read_tokens(None, None)


def every_token() -> list[str]:
    """Each printable character in each place of a token."""
    return list(dict.fromkeys("S3cr3tAB-"[:place] + chr(code) + "S3cr3tAB-"[place:] for code in range(0x21, 0x7F) for place in range(10)))


def opens(tokens: Tokens | None, token: str) -> frozenset[str]:
    """What the token may do; nothing that is shorter than it, or the `#` apart from it, may do anything."""
    assert tokens is not None, f"nobody is asked for {token}"
    assert not any(tokens.roles(token[:end]) for end in range(len(token))), token
    assert not any(tokens.roles(token[begin:]) for begin in range(1, len(token) + 1)), token
    return tokens.roles(token) or frozenset()


def test_each_character_of_a_token_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the environment, from Python, from a file, and in each of several serving processes."""
    file = tmp_path / "tokens"
    for token in every_token():
        monkeypatch.setenv("STATEMQ_TOKEN", token)
        for tokens in (read_tokens(None, None), read_tokens(token, None)):
            assert opens(tokens, token) == ROLES
            assert tokens is not None
            passed = msgspec.json.decode(msgspec.json.encode(tokens.digests()), type=dict[str, list[str]])
            assert opens(Tokens.of_digests(passed), token) == ROLES
        for line, roles in (
            (f"{token} read", {READ}),
            (f"\t{token}\tread submit  # the shop\r", {READ, SUBMIT}),
            (f"{token} operate read submit", ROLES),
        ):
            file.write_text(f"{line}\n")
            if token.startswith("#"):
                with pytest.raises(UsageError, match="no token in it; a line that begins with # is a comment"):
                    read_tokens(None, file)
            else:
                assert opens(read_tokens(None, file), token) == roles


def test_where_the_token_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STATEMQ_TOKEN", raising=False)
    assert read_tokens(None, None) is None
    monkeypatch.setenv("STATEMQ_TOKEN", "")
    assert read_tokens(None, None) is None
    monkeypatch.setenv("STATEMQ_TOKEN", f" {SECRET}\n")
    assert opens(read_tokens(None, None), SECRET) == ROLES
    assert opens(read_tokens(READER, None), READER) == ROLES
    for nonsense in (" ", "\n", f"{READER} read", f"{READER}\n{SENDER}"):  # something was meant, and no token is in it
        monkeypatch.setenv("STATEMQ_TOKEN", nonsense)
        with pytest.raises(UsageError, match="a token has at least 8 characters"):
            read_tokens(None, None)
    file = tmp_path / "tokens"
    with pytest.raises(UsageError, match="cannot read the token file"):
        read_tokens(None, file)
    file.write_text("# empty")
    with pytest.raises(UsageError, match="no token in it"):
        read_tokens(None, file)
    file.write_text(f"{SENDER} submit")
    assert opens(read_tokens(None, file), SENDER) == {SUBMIT}


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


@pytest.mark.parametrize("processes", [1, 2])
def test_keys_of_tokens_need_tokens(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    """Without any, callers would share their keys all the same."""
    monkeypatch.delenv("STATEMQ_TOKEN", raising=False)
    with pytest.raises(UsageError, match=r"only where tokens are asked for: set STATEMQ_TOKEN \(or --token-file\)"):
        serve([], "redis://127.0.0.1:1", "n", port=free_port(), keys_by_token=True, workers=processes)
