"""S6: who turns something needs the role for it, names it exactly, and is on record."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from statemq import keys
from statemq.sync import Client
from tests.security.machines import Echo
from tests.serving import ROOT, Edge, working_thread
from tests.waiting import block_until

ME = f"{getpass.getuser()}@{socket.gethostname()}"


@pytest.fixture
def client(url: str, namespace: str) -> Iterator[Client]:
    with Client(url, namespace=namespace, machines=[Echo]) as opened:
        yield opened


def statemq(url: str, namespace: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "statemq", *words, "--redis", url, "--namespace", namespace]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "COLUMNS": "200"})


def test_the_command_line_s_deeds_are_on_record(client: Client, url: str, namespace: str) -> None:
    with working_thread(url, namespace, Echo):
        for _ in range(2):
            with pytest.raises(Exception, match="bad"):
                client.call(Echo.fail("a", "bad"), timeout=20)
        block_until(lambda: len(client.failed(Echo)) == 2)
        first, second = (letter.letter for letter in client.failed(Echo))
        waiting = client.send(Echo.say("b", 1), delay=3600).id
        for words in (
            ("pause", "echo", "a"),
            ("resume", "echo", "a"),
            ("pause", "echo"),
            ("resume", "echo"),
            ("failed", "retry", "echo", first),
            ("failed", "discard", "echo", second),
            ("cancel", waiting),
        ):
            ended = statemq(url, namespace, *words)
            assert ended.returncode == 0, ended.stderr
        expected = [("pause", "a"), ("resume", "a"), ("pause", "the machine"), ("resume", "the machine")]
        expected += [("retry", first), ("discard", second), ("cancel", waiting)]
        assert [(entry.did, entry.what) for entry in client.audit(Echo)] == expected
        assert {entry.by for entry in client.audit(Echo)} == {ME}
        shown = statemq(url, namespace, "audit", "echo").stdout
        assert len(shown.splitlines()) == 1 + len(expected) and ME in shown and waiting in shown
        block_until(lambda: len(client.failed(Echo)) == 1)  # the retried one failed again


def test_what_is_not_there_is_not_on_record(client: Client, url: str, namespace: str) -> None:
    client.get(Echo, "a")
    for words in (
        ("cancel", "echo.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12"),
        ("cancel", "nothing.1.01930c2e5b7a7c3e8f6a2b4c6d8e0f12"),
        ("failed", "discard", "echo"),
        ("failed", "discard", "echo", "x"),
        ("failed", "retry", "echo", "0/1-1"),
        ("pause", "nothing"),
    ):
        assert statemq(url, namespace, *words).returncode != 0
    with redis_py.Redis.from_url(url) as redis:
        assert not redis.exists(keys.audit(namespace, "echo"), keys.audit(namespace, "nothing"))


@pytest.mark.leaves_work
def test_a_deed_over_http_names_its_token_s_mark_and_needs_the_role(client: Client, url: str, namespace: str) -> None:
    roles = {"reader-0000": "read", "sender-0000": "submit", "operator-0000": "operate"}
    text = "\n".join(f"{token} {role}" for token, role in roles.items())
    before = f"import statemq.http.server as s\ns.read_tokens = lambda *_: s.Tokens.parse({text!r})\n"
    edge = Edge(url, namespace, target=Path(__file__).with_name("machines.py"), before=before)
    try:
        id = client.send(Echo.say("a", 1), delay=3600).id
        for token in ("reader-0000", "sender-0000"):
            assert edge.post(f"/-/commands/{id}/cancel", Authorization=f"Bearer {token}").status == 403
        assert client.audit(Echo) == []
        assert edge.post(f"/-/commands/{id}/cancel", Authorization="Bearer operator-0000").status == 200
        (entry,) = client.audit(Echo)
        assert (entry.did, entry.what) == ("cancel", id)
        assert entry.by.startswith("HTTP, token ") and "operator" not in entry.by
    finally:
        edge.end()
    open_edge = Edge(url, namespace, target=Path(__file__).with_name("machines.py"))
    try:
        id = client.send(Echo.say("a", 1), delay=3600).id
        assert open_edge.post(f"/-/commands/{id}/cancel").status == 200
        assert client.audit(Echo)[-1].by == "HTTP, 127.0.0.1"
    finally:
        open_edge.end()


@pytest.mark.leaves_work
def test_the_record_stays_small(client: Client, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statemq.store.audit.AUDIT_CAP", 100)
    for _ in range(220):
        client.pause(Echo, "a", by="x" * 100)
    client.resume(Echo, "a")
    with redis_py.Redis.from_url(url) as redis:
        assert redis.xlen(keys.audit(namespace, "echo")) <= 210
    assert client.audit(Echo, limit=1)[0].did == "resume"
