"""S14, S15, S17: what is written and answered: no secret, no payload, no line that somebody else made up, no insides."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from statemq import events, log
from statemq.cli.find import Place
from statemq.errors import Failed, Rejected, StatemqError, UsageError
from statemq.http.access import Access, Tokens
from statemq.http.address import Address
from statemq.http.app import create_app, create_service
from statemq.http.server import Serving
from statemq.server import EmbeddedServer
from statemq.store.address import parse
from statemq.store.commands import Queued
from statemq.store.router import Router
from statemq.sync import Client
from statemq.worker.pure import Pure
from tests.security.machines import Echo
from tests.serving import ROOT, Edge
from tests.waiting import block_until

MACHINES = str(Path(__file__).with_name("machines.py"))
PASSWORD, TOKEN, PAYLOAD = "MARK-password-7c1e", "MARK-token-93ab", "MARK-payload-51d0"
SECRETS = (PASSWORD, TOKEN, PAYLOAD)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that asks for the password."""
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as server:
        with redis_py.Redis.from_url(server.url) as redis:
            redis.config_set("requirepass", PASSWORD)
        yield server.url.replace("redis://", f"redis://:{PASSWORD}@")
        with redis_py.Redis.from_url(server.url, password=PASSWORD) as redis:
            redis.config_set("requirepass", "")


class Daemon:
    """A process of the command line, and all that it says."""

    def __init__(self, folder: Path, *words: str, redis: str, namespace: str, **env: str) -> None:
        self.out = folder / f"{words[0]}.{os.urandom(3).hex()}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")}
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "statemq", *words],
                cwd=ROOT,
                env=clean | {"STATEMQ_REDIS": redis, "STATEMQ_NAMESPACE": namespace, "COLUMNS": "200"} | env,
                stdout=out,
                stderr=out,
            )

    @property
    def said(self) -> str:
        return self.out.read_text(errors="surrogateescape")

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(30)
        return self.said


def ask(folder: Path, redis: str, namespace: str, *words: str) -> str:
    daemon = Daemon(folder, *words, redis=redis, namespace=namespace)
    daemon.process.wait(60)
    return daemon.said


def families(pid: int) -> str:
    """The command lines of a process and its children, which everybody on the machine can read."""
    children = subprocess.run(["ps", "-o", "args", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return Path(f"/proc/{pid}/cmdline").read_text() + children


# -- S14 -------------------------------------------------------------------------------------------


def test_s14_daemons_tell_no_secret(locked: str, namespace: str, tmp_path: Path) -> None:
    """A worker and a serving process with the log at INFO, through failures of every kind, and a Redis that goes away."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN} read submit operate\n")
    worker = Daemon(tmp_path, "worker", MACHINES, "--log-transitions", "--processes", "2", redis=locked, namespace=namespace)
    served = Daemon(tmp_path, "serve", MACHINES, "--port", "0", "--token-file", str(tokens), redis=locked, namespace=namespace)
    try:
        with Client(locked, namespace=namespace, machines=[Echo]) as client:
            for key, command in (
                ("a", Echo.say("a", {"deep": PAYLOAD})),
                ("b", Echo.say("b", [PAYLOAD] * 100)),
            ):
                assert client.call(command, timeout=60) and key
            with redis_py.Redis.from_url(locked) as redis:
                for part in (0, 1):
                    stream = f"{namespace}:{{echo:{part}}}:commands"
                    redis.xadd(stream, {"key": "a", "transition": "say", "args": f'{{"what": "{PAYLOAD}"'})
                    redis.xadd(stream, {"key": "a", "transition": "say", "args": f'{{"else": "{PAYLOAD}"}}'})
                    redis.xadd(stream, {"key": "a", "transition": "refuse", "args": f'{{"what": ["{PAYLOAD}"]}}'})
                    redis.xadd(stream, {"key": "a", "args": PAYLOAD})
            block_until(lambda: len(client.failed(Echo)) == 8, 30)
            block_until(lambda: "answering on" in served.said, 30)
            with redis_py.Redis.from_url(locked) as redis:
                redis.client_kill_filter(skipme=True)
            assert client.call(Echo.say("a", PAYLOAD), timeout=60) == PAYLOAD
        assert not [secret for secret in SECRETS if secret in families(worker.process.pid) + families(served.process.pid)]
    finally:
        said = worker.end() + served.end()
    assert "echo" in said and "dead letter" in said
    assert not [secret for secret in SECRETS if secret in said], said


@pytest.mark.parametrize(
    "bad",
    [
        f"redis://:{PASSWORD}@127.0.0.1:1",
        f"redis://user:{PASSWORD}@127.0.0.1:1/0",
        f"redis://:{PASSWORD}@127.0.0.1:port",
        f"redis://:{PASSWORD}@127.0.0.1:1/x",
        f"redis://:{PASSWORD}@127.0.0.1:1?unknown=1",
        f"redis://:{PASSWORD}@127.0.0.1:99999999",
        f"redis://127.0.0.1:1?password={PASSWORD}",
        f"rediss://:{PASSWORD}@127.0.0.1:1",
        f"http://:{PASSWORD}@127.0.0.1",
        f"://{PASSWORD}@",
        f"redis://:{PASSWORD}@[",
        f"redis://:{PASSWORD}@x@127.0.0.1:1",
        f"redis://127.0.0.1:1?unknown={PASSWORD}",
        f"redis://:{PASSWORD}#x@127.0.0.1:1",
        f"redis://:{PASSWORD}/x@127.0.0.1:1",
        f"redis://:x?{PASSWORD}@127.0.0.1:1",
        f"redis://user:{PASSWORD}:y@127.0.0.1:1",
    ],
)
def test_s14_a_url_that_does_not_work_is_not_repeated(bad: str) -> None:
    try:
        with Client(bad, namespace="n", machines=[Echo]) as client:
            client.get(Echo, "a")
    except StatemqError as error:
        chain: BaseException | None = error
        while chain is not None:
            assert PASSWORD not in f"{chain} {chain!r}", repr(chain)
            chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    else:
        raise AssertionError("it answered")


def test_s14_the_command_line_does_not_repeat_it_either(namespace: str, tmp_path: Path) -> None:
    for url in (f"redis://:{PASSWORD}@127.0.0.1:port", f"redis://:{PASSWORD}@127.0.0.1:1"):
        said = ask(tmp_path, url, namespace, "get", "echo", "a")
        assert PASSWORD not in said and "Traceback" not in said and "127.0.0.1" in said


def test_s14_a_wrong_password_is_not_repeated(locked: str, namespace: str, tmp_path: Path) -> None:
    wrong = locked.replace(PASSWORD, "MARK-wrong-0000")
    for words in (("get", "echo", "a"), ("worker", MACHINES), ("serve", MACHINES, "--port", "0")):
        daemon = Daemon(tmp_path, *words, redis=wrong, namespace=namespace)
        daemon.process.wait(60)
        said = daemon.end()
        assert daemon.process.returncode not in (0, 1) and "MARK-wrong" not in said and "Traceback" not in said, said


def test_s14_what_holds_a_secret_does_not_show_it(url: str) -> None:
    secret = url.replace("redis://", f"redis://:{PASSWORD}@")
    address = Address("127.0.0.1", 1)
    serving = Serving(targets=[], url=secret, namespace="n", address=address, allowed_hosts=[], tokens=Tokens({TOKEN: ["read"]}).digests())
    things = [
        parse(secret),
        Router(secret),
        Tokens({TOKEN: ["read"]}),
        Access(Tokens({TOKEN: ["read"]}), ()),
        create_service([Echo], secret, "n"),
        create_app([Echo], secret, "n", tokens=Tokens({TOKEN: ["read"]})),
        serving,
        Place(secret, "n"),
    ]
    for thing in things:
        assert not [mark for mark in SECRETS if mark in f"{thing!r} {thing}"], type(thing)


def test_s14_a_token_that_cannot_be_is_not_repeated(tmp_path: Path) -> None:
    for text in (f"{TOKEN} admin", f"{TOKEN}é read", f"the-first {TOKEN}", f"{TOKEN} read\n{TOKEN} read", f"{TOKEN} # read", TOKEN):
        with pytest.raises(UsageError) as error:
            Tokens.parse(text)
        assert TOKEN not in str(error.value)


# -- S15 -------------------------------------------------------------------------------------------

FORGED = 'x\n12:00:00.000 ERROR   forged\r\x1b[31m\u2028 {"level": "error"}\u202e'
LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) +|  |statemq: ")


@pytest.mark.parametrize("format", ["text", "json"])
def test_s15_a_line_is_one_event(url: str, namespace: str, tmp_path: Path, format: str) -> None:
    worker = Daemon(
        tmp_path, "worker", MACHINES, "--log-transitions", "--log-level", "debug", "--log-format", format, redis=url, namespace=namespace
    )
    try:
        with Client(url, namespace=namespace, machines=[Echo]) as client:
            for command in (Echo.refuse(FORGED, FORGED), Echo.fail(FORGED, FORGED), Echo.crash(FORGED, FORGED)):
                with pytest.raises(StatemqError):
                    client.call(command, timeout=60)
            held = client.send(Echo.step(FORGED, FORGED))
            block_until(lambda: held.status().steps)
            held.cancel()
            with redis_py.Redis.from_url(url) as redis:
                redis.xadd(f"{namespace}:{{echo:0}}:commands", {"key": FORGED, "transition": FORGED})
                redis.xadd(f"{namespace}:{{echo:0}}:commands", {FORGED: FORGED})
            block_until(lambda: len(client.failed(Echo)) == 4)
            held.outcome(timeout=20)
    finally:
        said = worker.end()
    assert "forged" in said
    assert not re.search(r"[^\x20-\x7e\n\u00a1-\u2027\u2030-\uffff]", said.replace("→", "")), repr(said)
    for line in said.rstrip("\n").split("\n"):
        assert json.loads(line) if format == "json" else LINE.match(line), line
        assert not line.startswith("12:00:00.000 ERROR   forged")


def test_s15_an_event_is_one_line_for_any_logger(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever uses the library has handlers of their own, which escape nothing."""
    said = {"machine": "echo", "id": FORGED, "key": FORGED, "transition": FORGED}
    with caplog.at_level("DEBUG", logger="statemq"):
        for event in (
            events.Retried(**said, attempt=1, error=FORGED, wait_ms=1),
            events.Ended(**said, outcome="failed", reason=FORGED, steps=((FORGED, 1),)),
            events.Recorded(**said, step=FORGED, took_ms=1),
            events.Warned(text=FORGED),
            events.Failing(text=FORGED),
        ):
            log.tell(event)
    assert len(caplog.messages) == 5
    assert all(text.isprintable() and "forged" in text for text in caplog.messages), caplog.messages


@pytest.mark.parametrize("key", ["100%", "%s", "%(message)s", "%d%n", "{}", "%%"])
def test_s15_a_key_is_no_format(key: str, caplog: pytest.LogCaptureFixture) -> None:
    """It stands before what a transition logs, with arguments or without."""
    command = Queued("1-1", "echo.1.x", key, "say", b"{}")
    logger = Pure("echo", command, 0).logger
    with caplog.at_level("INFO", logger="statemq.transition"):
        logger.info("%s of %d", "one", 2)
        logger.info("50% done")
        logger.warning("%(a)s", {"a": "named"})
    assert caplog.messages == [f"echo/{key}: one of 2", f"echo/{key}: 50% done", f"echo/{key}: named"]
    assert {record.filename for record in caplog.records} == {Path(__file__).name}, "whose line it is"


def test_s15_a_traceback_is_text_as_well() -> None:
    code = (
        "import logging\nfrom statemq.cli.logs import Format, Level, set_up\nset_up(Format.text, Level.info)\n"
        f"try:\n    raise ValueError({FORGED!r})\nexcept ValueError:\n    logging.getLogger('x').exception({FORGED!r})\n"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stderr
    assert "ValueError: x" in said
    assert "\x1b" not in said and "\u202e" not in said and "\u2028" not in said
    assert [line for line in said.splitlines() if not LINE.match(line)] == []
    assert not [line for line in said.splitlines() if line.startswith("12:00:00.000 ERROR")]


def test_s15_what_the_command_line_shows_is_text(url: str, namespace: str, tmp_path: Path) -> None:
    worker = Daemon(tmp_path, "worker", MACHINES, redis=url, namespace=namespace)
    try:
        with Client(url, namespace=namespace, machines=[Echo]) as client:
            for command in (Echo.say(FORGED, FORGED), Echo.refuse(FORGED, FORGED), Echo.fail(FORGED, FORGED)):
                id = client.send(command, delay=0).id
                with contextlib.suppress(Rejected, Failed):
                    client.handle(id).result(timeout=60)
            client.pause(Echo, FORGED)
            client.resume(Echo, FORGED)
            block_until(lambda: client.queue(Echo, FORGED) == [])
    finally:
        worker.end()
    for words in (
        ("get", "echo", FORGED),
        ("list", "echo"),
        ("history", "echo"),
        ("failed", "list", "echo", "--traceback"),
        ("audit", "echo"),
        ("show", id),
        ("result", id),
    ):
        said = ask(tmp_path, url, namespace, *words)
        assert "forged" in said, (words, said)
        assert "\x1b[31m" not in said and "\u202e" not in said and "\r" not in said and "\u2028" not in said, (words, said)
        assert "\n12:00:00.000 ERROR" not in said, (words, said)


# -- S17 -------------------------------------------------------------------------------------------

INSIDES = re.compile(r'File "|Traceback|\.py\b|site-packages|line \d+|0x[0-9a-f]{6,}|' + re.escape(str(ROOT)))

BROKEN = """
import statemq.client.client as c
def broken(self, *args, **kwargs):
    raise KeyError("/etc/secret/path.py")
c.Client.get = c.Client.show = c.Client.query = c.Client.machines = broken
"""


def test_s17_a_fault_of_ours_shows_no_insides(url: str, namespace: str) -> None:
    edge = Edge(url, namespace, target=Path(MACHINES), before=BROKEN)
    try:
        for path in ("/echo/a", "/echo/a/ask", "/-/machines", "/-/commands/echo.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12"):
            answer = edge.get(path)
            assert (answer.status, answer.json["error"]) == (500, "internal")
            assert answer.json["detail"] == "a fault of the server; its log says more"
            assert answer.headers["x-content-type-options"] == "nosniff"
    finally:
        _, errors = edge.end()
    assert "/etc/secret/path.py" in errors, "the log has it"


def test_s17_a_fault_of_the_machine_s_is_its_type_and_words(url: str, namespace: str, tmp_path: Path) -> None:
    worker = Daemon(tmp_path, "worker", MACHINES, redis=url, namespace=namespace)
    edge = Edge(url, namespace, target=Path(MACHINES))
    try:
        answer = edge.post("/echo/a/crash?wait=60s", {"what": "no room"})
        assert (answer.status, answer.json["error"], answer.json["detail"]) == (500, "failed", "OSError: no room (after 1 attempts)")
        id = answer.json["id"]
        for seen in (answer, edge.get(f"/-/commands/{id}"), edge.get(f"/-/commands/{id}/result"), edge.get("/echo/a")):
            assert not INSIDES.search(seen.text), seen.text
        with Client(url, namespace=namespace, machines=[Echo]) as client:
            (letter,) = client.failed(Echo)
            assert 'File "' in letter.traceback, "who may look into Redis has it"
    finally:
        edge.end()
        worker.end()


def test_s17_damage_in_redis_shows_no_insides(url: str, namespace: str) -> None:
    edge = Edge(url, namespace, target=Path(MACHINES))
    try:
        edge.get("/echo/a")
        with redis_py.Redis.from_url(url) as redis:
            for part in (0, 1):
                redis.set(f"{namespace}:{{echo:{part}}}:instance:a", "no hash", ex=60)
                redis.set(f"{namespace}:{{echo:{part}}}:accepted", "no hash", ex=60)
        for answer in (edge.get("/echo/a"), edge.get("/echo/a/ask"), edge.post("/echo/a/say/send", {"what": 1})):
            assert answer.status >= 500 and answer.json["error"] in ("server", "internal")
            assert not INSIDES.search(answer.text), answer.text
    finally:
        edge.end()
