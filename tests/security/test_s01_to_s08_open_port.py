"""S1 to S8, on an open port: some ninety raw requests, each by callers of every kind, against ``statemq serve`` as it is started by hand.

Each is answered as its caller's roles say, and what is refused leaves nothing in Redis. While they are sent no worker runs, so all that was
queued is there to be seen.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis as redis_py

from statemq.config import LIMITS
from statemq.http.access import OPERATE, READ, ROLES, SUBMIT
from statemq.server import EmbeddedServer
from statemq.sync import Client
from tests.contents import content
from tests.integration.http_machines import Gate
from tests.security.raw import Heard, hear
from tests.serving import ROOT, TARGET, working_thread
from tests.waiting import block_until

TOKENS = {
    READ: "Xk9-reads-Pq27",
    SUBMIT: "Vb4-sends-Tz81",
    OPERATE: "Jm6-turns-Wc35",
    "all": "Rn2-whole-Hd90",
}
WRONG = "Qs8-wrong-Lf16"
NONE, OTHER = "no token", "a wrong token"
CALLERS = {NONE: b"", OTHER: f"Authorization: Bearer {WRONG}\r\n".encode()} | {
    caller: f"Authorization: Bearer {token}\r\n".encode() for caller, token in TOKENS.items()
}
AUTH = b"<token>"
"""Where the caller's token goes in a request."""

JSON = ("Content-Type: application/json",)


def request(method: str, path: str, *headers: str, body: str = "", host: str = "localhost") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "Connection: close"]
    lines += [f"Content-Length: {len(body)}"] if body else []
    head, _, rest = ("\r\n".join(lines) + "\r\n").partition("\r\n")
    return head.encode("latin-1") + b"\r\n" + AUTH + rest.encode("latin-1") + b"\r\n" + body.encode()


def get(path: str, *headers: str) -> bytes:
    return request("GET", path, *headers)


def post(path: str, body: str = "", *headers: str) -> bytes:
    return request("POST", path, *(JSON if body else ()), *headers, body=body)


class Ask(NamedTuple):
    """A request and what is answered to whoever has the role that it needs; without a role, to everybody."""

    raw: bytes
    needs: str
    status: int

    def expected(self, caller: str) -> int:
        """The status of the one answer that this caller hears."""
        if not self.needs:
            return self.status
        if caller in (NONE, OTHER):
            return 401
        return self.status if self.needs == "any" or caller in (self.needs, "all") else 403


ENDED, WAITS, UNKNOWN = "{ended}", "{waits}", "gate.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12"
"""Commands: one that has ended, one that waits, one that never was."""

ASKS = [
    # to look
    *(Ask(request(method, f"/-/{probe}"), "", 200) for method in ("GET", "HEAD") for probe in ("health", "ready")),
    *(Ask(request("GET", f"/-/{probe}", host="10.0.0.7"), "", 200) for probe in ("health", "ready")),
    *(Ask(request(method, path), READ, 200) for method in ("GET", "HEAD") for path in ("/openapi.json", "/-/machines", "/gate/a")),
    Ask(get("/gate/nobody"), READ, 200),
    Ask(get("/gate/a%2Fb%00%F0%9F%92%A9"), READ, 200),
    Ask(get("/gate/a/room"), READ, 200),
    Ask(get("/gate/a/room?least=7"), READ, 200),
    Ask(get("/gate/a/room?least=x"), READ, 400),
    Ask(get("/gate/a/room?most=7"), READ, 400),
    Ask(get("/gate/a/setUp"), READ, 405),
    Ask(get("/gate/a/nothing"), READ, 404),
    Ask(get("/nowhere/a"), READ, 404),
    Ask(get("/gate/a?limit=1"), READ, 400),
    Ask(get("/gate/" + "k" * (LIMITS.key + 1)), READ, 400),
    Ask(get(f"/-/commands/{ENDED}"), READ, 200),
    Ask(get(f"/-/commands/{ENDED}/result"), READ, 200),
    Ask(get(f"/-/commands/{WAITS}"), READ, 200),
    Ask(get(f"/-/commands/{WAITS}/result?wait=0"), READ, 504),
    Ask(get(f"/-/commands/{WAITS}/result?wait=1h"), READ, 400),
    Ask(get(f"/-/commands/{UNKNOWN}"), READ, 404),
    Ask(get("/-/commands/nonsense"), READ, 400),
    Ask(request("OPTIONS", "/gate/a"), READ, 200),
    Ask(request("OPTIONS", "/gate/a/setUp"), READ, 200),
    # to send
    Ask(post("/gate/s/setUp/send"), SUBMIT, 202),
    Ask(post("/gate/s/setUp/send", '{"size": 3}'), SUBMIT, 202),
    Ask(post("/gate/s/setUp/send?delay=1h"), SUBMIT, 202),
    Ask(post("/gate/s/setUp?wait=0"), SUBMIT, 504),
    Ask(post("/gate/s/setUp", "", "Prefer: respond-async"), SUBMIT, 202),
    Ask(post("/gate/s/setUp/send", "", 'If-Match: "1"'), SUBMIT, 202),
    Ask(post("/gate/s/setUp/send", "", "Sec-Fetch-Site: same-origin", "Origin: http://localhost"), SUBMIT, 202),
    Ask(post("/gate/s/setUp/send", '{"size": "large"}'), SUBMIT, 400),
    Ask(post("/gate/s/setUp/send", '{"colour": 3}'), SUBMIT, 400),
    Ask(post("/gate/s/setUp/send", "[]"), SUBMIT, 400),
    Ask(post("/gate/s/setUp/send", '{"size": 3'), SUBMIT, 400),
    Ask(post("/gate/s/keep/send", '{"what": ' + "[" * 200 + "]" * 200 + "}"), SUBMIT, 400),
    Ask(post("/gate/s/setUp/send", "", "If-Match: latest"), SUBMIT, 400),
    Ask(post("/gate/s/setUp/send?delay=31d"), SUBMIT, 400),
    Ask(post("/gate/s/setUp/send?delay=-1"), SUBMIT, 400),
    Ask(post("/gate/s/setUp/send?wait=1"), SUBMIT, 400),
    Ask(post("/gate/s/setUp?wait=1h"), SUBMIT, 400),
    Ask(post("/gate/s/setUp/send?if_state=SIDEWAYS"), SUBMIT, 400),
    Ask(post("/gate/s/setUp/send", "", "Idempotency-Key: @retry"), SUBMIT, 400),
    Ask(post("/gate/s/setUp/send", "", "Idempotency-Key: " + "k" * 1000), SUBMIT, 413),
    Ask(post("/gate/s/@look/send"), SUBMIT, 404),
    Ask(post("/gate/s/nothing/send"), SUBMIT, 404),
    Ask(post("/nowhere/s/setUp/send"), SUBMIT, 404),
    Ask(post("/gate/s/room"), SUBMIT, 405),
    Ask(post("/gate/s"), SUBMIT, 405),
    Ask(request("POST", "/gate/s/setUp/send", "Content-Type: text/plain", body="{}"), SUBMIT, 415),
    Ask(request("POST", "/gate/s/setUp/send", body="{}"), SUBMIT, 415),
    Ask(request("POST", "/gate/s/setUp/send", *JSON, f"Content-Length: {LIMITS.arguments + 1}"), SUBMIT, 413),
    # to turn
    Ask(post(f"/-/commands/{WAITS}/cancel"), OPERATE, 200),
    Ask(post(f"/-/commands/{ENDED}/cancel"), OPERATE, 409),
    Ask(post(f"/-/commands/{UNKNOWN}/cancel"), OPERATE, 404),
    Ask(post("/-/commands/nonsense/cancel"), OPERATE, 400),
    Ask(post(f"/-/commands/{WAITS}/cancel?force=1"), OPERATE, 400),
    Ask(post("/-/machines"), OPERATE, 405),
    Ask(post("/-/health"), "", 405),
    Ask(request("DELETE", f"/-/commands/{WAITS}"), OPERATE, 405),
    # paths that are none, methods that no path takes
    *(Ask(get(path), "any", 404) for path in ("/", "/gate", "/gate/", "//a", "/-/nothing", "/-/audit/gate", "/gate/a/setUp/send/more")),
    *(
        Ask(get(path), "any", 404)
        for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd/", "/gate/a/room/", "/-/commands", "/favicon.ico")
    ),
    Ask(get("/gate/a/..%2f.."), READ, 404),
    *(
        Ask(post(path), "any", 404)
        for path in ("/-/pause/gate", "/gate/s/setUp/cancel", f"/-/commands/{WAITS}/retry", "/-/failed/gate/retry")
    ),
    *(Ask(request(method, "/gate/s"), SUBMIT, 405) for method in ("PUT", "PATCH", "DELETE")),
    Ask(request("TRACE", "/gate/s"), SUBMIT, 405),
    Ask(get("/gate/%zz"), "any", 400),
    Ask(get("/gate/%ff"), "any", 400),
    # hosts, origins
    *(
        Ask(request("GET", "/gate/a", host=host), "", 421)
        for host in ("evil.example", "localhost.evil.example", "127.0.0.2", "", "a, localhost")
    ),
    Ask(post("/gate/s/setUp/send").replace(b"Host: localhost", b"Host: evil.example"), "", 421),
    Ask(post("/gate/s/setUp/send", "", "Origin: http://evil.example"), "", 403),
    Ask(post("/gate/s/setUp/send", "", "Origin: null"), "", 403),
    Ask(post("/gate/s/setUp/send", "", "Sec-Fetch-Site: cross-site"), "", 403),
    Ask(post(f"/-/commands/{WAITS}/cancel", "", "Sec-Fetch-Site: same-site"), "", 403),
    # heads that are none
    Ask(post("/gate/s/setUp/send", "{}", "Content-Length: 3"), "", 400),
    Ask(post("/gate/s/setUp/send", "{}", "Transfer-Encoding: xchunked"), "", 400),
    Ask(get("/gate/a", "Host: localhost"), "", 400),
    Ask(get("/gate/a", "no colon"), "", 400),
    Ask(get("/gate/a").replace(b" HTTP/1.1", b""), "", 400),
    Ask(get("/gate/a").replace(b"HTTP/1.1", b"HTTP/9.9"), "", 400),
    Ask(get("/ga te/a"), "", 400),
    Ask(get("/gate/a", "X: " + "a" * 40_000), "", 431),
    Ask(request("CONNECT", "evil.example:443"), "", 400),
    Ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n" + AUTH, "", 400),
]

FORGED = [
    f"Basic {TOKENS['all']}",
    f"Bearer{TOKENS['all']}",
    f"Bearer {TOKENS['all'][:-1]}",
    f"Bearer {TOKENS['all']}x",
    f"Bearer {TOKENS['all'].lower()}",
    f"Bearer {TOKENS['all']}, Bearer {TOKENS['all']}",
    f"Bearer {TOKENS['all']} {TOKENS['all']}",
    f'Bearer "{TOKENS["all"]}"',
    TOKENS["all"],
    "Bearer",
    "Bearer *",
    "Bearer \xff\xfe",
]
"""None of them is a token, though most hold one."""


class Port:
    """A ``statemq serve`` of the command line with these tokens, and its Redis."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url, self.log = url, folder / "log"
        file = folder / "tokens"
        file.write_text("".join(f"{token} {' '.join(sorted(ROLES)) if role == 'all' else role}\n" for role, token in TOKENS.items()))
        env = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")}
        words = ["serve", TARGET, "--port", "0", "--token-file", str(file), "--redis", url, "--namespace", "port"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "statemq", *words], cwd=ROOT, env=env, stdout=log, stderr=log)
        self.port = int(block_until(self._answering)[1])
        self._addresses = (f"127.0.{n // 250 % 250}.{n % 250 + 2}" for n in itertools.count())
        self.redis = redis_py.Redis.from_url(url)

    def _answering(self) -> Any:
        assert self.process.poll() is None, self.log.read_text()
        return re.search(r"answering on http://127\.0\.0\.1:(\d+)", self.log.read_text())

    def ask(self, raw: bytes) -> Heard:
        """From an address of its own: wrong tokens of one are answered one after the other."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60, source_address=(next(self._addresses), 0)) as connection:
            with contextlib.suppress(OSError):  # closed before it had read all
                connection.sendall(raw)
            return hear(connection)

    def ask_all(self, raws: list[bytes]) -> list[Heard]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self.ask, raws))

    def kept(self) -> dict[bytes, Any]:
        return {name: content(self.redis, name) for name in self.redis.scan_iter(count=1000)}

    def new_since(self, before: dict[bytes, Any]) -> list[bytes]:
        """The keys that are new or changed; what has expired meanwhile is none of them."""
        return [name for name, value in self.kept().items() if value is not None and before.get(name) != value]

    def accepted(self) -> set[str]:
        """The commands that wait, or run; not the hints that the owner of a partition shall look at it."""
        found = {id.decode() for name in self.redis.scan_iter("port:{gate:*}:accepted") for id in self.redis.hkeys(name)}
        return {id for id in found if not id.startswith("@look")}

    def commands(self) -> dict[str, str]:
        """One that a worker has ended, which has gone; and one that waits."""
        with Client(self.url, namespace="port", machines=[Gate]) as client:
            with working_thread(self.url, "port"):
                ended = client.send(Gate.keep("a"))
                ended.result(timeout=60)
            return {ENDED: ended.id, WAITS: client.send(Gate.hold("w")).id}

    def check(self, caller: str, asks: list[Ask], commands: dict[str, str]) -> None:
        """Each is answered, once, as it must be; and the server is well."""
        asks = sorted(asks, key=lambda ask: ENDED.encode() not in ask.raw)  # it is remembered for a minute only
        raws = [with_commands(ask.raw.replace(AUTH, CALLERS[caller]), commands) for ask in asks]
        wrong = [
            (raw[:100], heard.statuses, ask.expected(caller))
            for ask, raw, heard in zip(asks, raws, self.ask_all(raws), strict=True)
            if heard.statuses != [ask.expected(caller)] or not heard.closed
        ]
        assert not wrong, caller
        assert self.ask(with_commands(get("/-/health"), {AUTH.decode(): ""})).statuses == [200]


@pytest.fixture(scope="module")
def port(redis_of_module: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    opened = Port(tmp_path_factory.mktemp("port"), redis_of_module.url)
    yield opened
    opened.process.terminate()
    assert opened.process.wait(30) == 0
    said = [line for line in opened.log.read_text().splitlines() if "a wrong token from" not in line and "INFO" not in line]
    assert not said, "what a caller sends makes no other line"


def with_commands(raw: bytes, commands: dict[str, str]) -> bytes:
    for placeholder, id in commands.items():
        raw = raw.replace(placeholder.encode(), id.encode())
    return raw


def is_done(ask: Ask, caller: str) -> bool:
    """Whether the answer says that something was done, or shown: a result that is not there yet is a 504."""
    return ask.expected(caller) in (200, 202, 504)


def is_look(ask: Ask) -> bool:
    return not ask.raw.startswith(b"POST")


def test_the_requests_are_many_and_of_every_kind() -> None:
    assert len(ASKS) > 90
    answers = {ask.expected(caller) for ask in ASKS for caller in CALLERS}
    assert answers == {200, 202, 400, 401, 403, 404, 405, 409, 413, 415, 421, 431, 504}


def test_what_is_refused_leaves_nothing(port: Port) -> None:
    """But an operator's cancel of what has ended is on record, as every deed is before it is done."""
    commands = port.commands()
    accepted = port.accepted()
    for caller in CALLERS:
        before = port.kept()
        port.check(caller, [ask for ask in ASKS if not is_done(ask, caller)], commands)
        assert port.new_since(before) == ([b"port:{gate}:audit"] if caller in (OPERATE, "all") else []), caller
    assert port.accepted() == accepted


def test_what_is_looked_at_stays_as_it_is(port: Port) -> None:
    commands = port.commands()
    before, accepted = port.kept(), port.accepted()
    for caller in CALLERS:
        port.check(caller, [ask for ask in ASKS if is_done(ask, caller) and is_look(ask)], commands)
        assert port.new_since(before) == [], caller
    assert port.accepted() == accepted


def test_who_may_send_sends_that_and_no_more(port: Port) -> None:
    commands = port.commands()
    for caller in CALLERS:
        asks = [ask for ask in ASKS if is_done(ask, caller) and ask.needs == SUBMIT and not is_look(ask)]
        assert bool(asks) == (caller in (SUBMIT, "all"))
        accepted = port.accepted()
        port.check(caller, asks, commands)
        assert len(port.accepted() - accepted) == len(asks)
        assert accepted <= port.accepted()


def test_who_may_turn_cancels_that_and_no_more(port: Port) -> None:
    for caller in (OPERATE, "all"):
        commands = port.commands()
        accepted = port.accepted()
        port.check(caller, [ask for ask in ASKS if is_done(ask, caller) and ask.needs == OPERATE and not is_look(ask)], commands)
        assert accepted - port.accepted() == {commands[WAITS]}
        assert port.accepted() <= accepted


@pytest.mark.parametrize("ask", [get("/gate/a"), post("/gate/s/setUp/send"), post(f"/-/commands/{WAITS}/cancel")])
def test_what_is_like_a_token_is_none(port: Port, ask: bytes) -> None:
    before = port.kept()
    raws = [ask.replace(AUTH, f"Authorization: {forged}\r\n".encode("latin-1")) for forged in FORGED]
    right = CALLERS["all"]
    raws += [ask.replace(AUTH, header) for header in (right + CALLERS[OTHER], right.replace(b"Authorization", b"Proxy-Authorization"))]
    raws += [ask.replace(b" HTTP", f"?token={TOKENS['all']} HTTP".encode(), 1).replace(AUTH, b"")]
    assert [heard.statuses for heard in port.ask_all(raws)] == [[401]] * len(raws)
    assert port.new_since(before) == []
