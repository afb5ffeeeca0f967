"""``statemq doctor`` and ``statemq acl`` as people call them: exit codes, table, JSON; and a worker on a server that evicts (fault 29)."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest
from redis import Redis

from statemq.cli.app import main
from statemq.server import EmbeddedServer
from statemq.server.host import free_port, is_free
from tests.waiting import block_until

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0
TARGET = "tests.integration.box"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    folder = Path(tmp_path_factory.mktemp("own"))
    with EmbeddedServer(folder) as server:
        yield server


@pytest.fixture
def redis(own: EmbeddedServer) -> Iterator[Redis]:
    with Redis.from_url(own.url, decode_responses=True) as opened:
        opened.flushall()
        yield opened
        opened.config_set("maxmemory-policy", "noeviction")
        opened.config_set("appendonly", "yes")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "statemq", *words]


def env(url: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")}
    return inherited | {"PYTHONPATH": str(ROOT), "STATEMQ_REDIS": url, "COLUMNS": "120"}


class Done(NamedTuple):
    stdout: str
    stderr: str


class Cli:
    """A command line in this process."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._patch = capsys, monkeypatch
        for name, value in env(url).items():
            monkeypatch.setenv(name, value)
        for name in set(os.environ) - set(env(url)):
            monkeypatch.delenv(name)

    def __call__(self, *words: str, code: int = 0) -> Done:
        self._capsys.readouterr()
        ended = main(words)
        done = Done(*self._capsys.readouterr())
        assert ended == code, f"statemq {' '.join(words)} ended with {ended}:\n{done.stdout}{done.stderr}"
        return done


@pytest.fixture
def run(own: EmbeddedServer, redis: Redis, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    return Cli(own.url, capsys, monkeypatch)


def test_exit_codes_and_both_outputs(own: EmbeddedServer, redis: Redis, run: Cli) -> None:
    done = run("doctor")
    assert [line.split() for line in done.stdout.splitlines() if "eviction" in line] == [
        ["ok", own.url, "eviction", "maxmemory-policy", "is", "noeviction"]
    ]
    assert "      → statemq worker TARGET declares its machines; is --namespace right?" in done.stdout.splitlines()
    assert "0 bad, " in done.stderr
    redis.config_set("appendonly", "no")
    run("doctor")
    done = run("doctor", "--durability", "everysec", "--json", code=1)
    [line] = [row for row in map(json.loads, done.stdout.splitlines()) if row["check"] == "persistence"]
    assert line == {
        "level": "bad",
        "check": "persistence",
        "where": own.url,
        "text": "appendonly is off: a restart loses what is not in a snapshot",
        "todo": "CONFIG SET appendonly yes, and in its file",
    }
    assert "1 bad, " in done.stderr
    assert 'no process has declared "nope"' in run("doctor", "nope", code=2).stderr
    assert "secret" not in run("doctor", "--redis", f"redis://user:secret@localhost:{free_port()}", code=3).stderr
    assert "does not let us in" in run("doctor", "--redis", own.url.replace("redis://", "redis://user:secret@"), code=3).stderr


def test_older_is_what_counts_as_stuck(own: EmbeddedServer, redis: Redis, run: Cli) -> None:
    worker = subprocess.Popen(command("worker", TARGET), cwd=ROOT, env=env(own.url), stderr=subprocess.DEVNULL)
    try:
        block_until(lambda: redis.hget("statemq:{box:0}:lease", "owner") and redis.hget("statemq:{box:1}:lease", "owner"), WITHIN_S)
        run("send", "box", "a", "hold")
        block_until(lambda: any(redis.xpending(f"statemq:{{box:{p}}}:commands", "workers")["pending"] for p in range(2)), WITHIN_S)
        assert "nothing has waited or run longer than 300 s" in run("doctor", "box").stdout
        assert "has been in progress for" in run("doctor", "box", "--older", "1ms").stdout
    finally:
        worker.kill()
        worker.wait()


def test_the_rule_of_acl_goes_into_acl_setuser_as_it_is_printed(own: EmbeddedServer, redis: Redis, run: Cli) -> None:
    rule = run("acl", "worker", "--namespace", "shop").stdout
    # as `| xargs redis-cli ACL SETUSER` gives it on
    assert redis.execute_command("ACL", "SETUSER", "shop-worker", "on", ">secret", *shlex.split(rule)) == "OK"
    url = own.url.replace("redis://", "redis://shop-worker:secret@")
    worker = subprocess.Popen(command("worker", TARGET, "--namespace", "shop"), cwd=ROOT, env=env(url), stderr=subprocess.PIPE, text=True)
    try:
        block_until(lambda: redis.hget("shop:{box:0}:lease", "owner"), WITHIN_S)
        assert run("call", "box", "a", "put", "--namespace", "shop").stdout == "1\n"
    finally:
        worker.terminate()
        _, said = worker.communicate(timeout=WITHIN_S)
    assert worker.returncode == 0
    assert "INFO is denied" not in said
    assert "+fcall" not in rule
    assert "+function" not in rule
    assert run("acl", "worker", "--no-functions", "--namespace", "shop").stdout == rule  # as it could be asked for before
    assert " %R~statemq:* " in run("acl", "reader").stdout
    assert "+waitaof" in run("acl", "client", "--durability", "fsync").stdout
    assert "is no durability" in run("acl", "client", "--durability", "much", code=2).stderr
    assert "reader, client, operator or worker" in run("acl", "--help").stdout
    run("acl", "root", code=2)


def test_http_runs_as_a_client(own: EmbeddedServer, redis: Redis, run: Cli) -> None:
    """``serve`` needs no more than the rule of a client."""
    urls = {}
    for role in ("worker", "client"):
        rule = run("acl", role, "--namespace", "shop").stdout
        redis.execute_command("ACL", "SETUSER", role, "reset", "on", ">secret", *shlex.split(rule))
        urls[role] = own.url.replace("redis://", f"redis://{role}:secret@")
    redis.execute_command("ACL", "LOG", "RESET")
    port = free_port()
    words = {"worker": ["worker", TARGET], "client": ["serve", TARGET, "--port", str(port)]}
    started = [
        subprocess.Popen(command(*words[role], "--namespace", "shop"), cwd=ROOT, env=env(urls[role]), stderr=subprocess.DEVNULL)
        for role in urls
    ]
    try:
        block_until(lambda: redis.hget("shop:{box:0}:lease", "owner") and not is_free(port), WITHIN_S)
        assert ask(port, "/box/a/put", b'{"n":3}') == 3
        assert ask(port, "/box/a")["state"] == "open"
    finally:
        for process in started:
            process.terminate()
            process.wait(WITHIN_S)
    assert {(row["username"], row["object"]) for row in redis.acl_log()} <= {
        (role, asked) for role in urls for asked in ("acl|users", "function|list")
    }


def ask(port: int, path: str, body: bytes | None = None) -> Any:
    request = Request(f"http://127.0.0.1:{port}{path}", data=body, headers={"content-type": "application/json"})
    with urlopen(request, timeout=WITHIN_S) as answer:
        return json.loads(answer.read())


def test_a_worker_refuses_a_server_that_evicts_and_warns_where_it_cannot_see(own: EmbeddedServer, redis: Redis, run: Cli) -> None:
    """Fault 29."""
    redis.config_set("maxmemory-policy", "allkeys-lru")
    refused = subprocess.run(command("worker", TARGET), cwd=ROOT, env=env(own.url), capture_output=True, text=True, timeout=WITHIN_S)
    assert refused.returncode == 3
    assert "may evict keys (maxmemory-policy allkeys-lru)" in refused.stderr
    assert "set maxmemory-policy to noeviction" in refused.stderr
    assert redis.keys() == []
    redis.execute_command("ACL", "SETUSER", "blind", "reset", "on", ">secret", "~*", "&*", "+@all", "-info")
    url = own.url.replace("redis://", "redis://blind:secret@")
    worker = subprocess.Popen(command("worker", TARGET), cwd=ROOT, env=env(url), stderr=subprocess.PIPE, text=True)
    try:
        block_until(lambda: worker.poll() is not None or redis.hget("statemq:{box:0}:lease", "owner"), WITHIN_S)
    finally:
        worker.terminate()
        _, said = worker.communicate(timeout=WITHIN_S)
    assert worker.returncode == 0
    assert said.count("does not tell its maxmemory-policy (INFO is denied): make sure that it is noeviction") == 1
    assert "secret" not in said
