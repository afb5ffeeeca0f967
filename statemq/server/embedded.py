"""A Redis of one's own: a server process beside this one, on loopback, with its own data folder.

For ``statemq dev`` and the tests. It ends when its parent does, however that ends, and keeps its data
for the next start in the same folder.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from statemq.errors import ServerError
from statemq.server.binary import find_server
from statemq.server.host import HOST, end_with_parent, free_port, is_free

START_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0
LOCK_WITHIN_S = 2.0
"""A server whose parent was killed a moment ago still needs some milliseconds to end."""

FULL_BYTES = 64 << 10
"""Where less is free than this, that is why a write failed."""

SOCKET_PATH_MAX = 100
"""Kernels refuse longer paths of unix sockets (104 to 108 bytes)."""


class EmbeddedServer:
    """A Redis or Valkey server that this process starts, stops and outlives.

    ``data_dir`` is made if need be, for this user alone, and belongs to one server at a time; ``port`` is chosen once if not given,
    and kept over restarts; ``password`` (letters and digits) is asked of everybody. ``config`` are further words for the
    server's command line. Call ``start`` from a thread that lives as long as the server shall: on Linux the server ends with it.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        password: str = "",
        server_bin: str | Path | None = None,
        appendonly: bool = True,
        cluster: bool = False,
        config: Sequence[str] = (),
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.appendonly, self.cluster, self.config = appendonly, cluster, tuple(config)
        self._password = password
        self.log_path = self.data_dir / "server.log"
        self._server_bin = server_bin
        self._given_port, self._port = port, port
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_pid = os.getpid()
        socket_path = self.data_dir / "server.sock"
        self._socket = socket_path if len(os.fsencode(socket_path)) <= SOCKET_PATH_MAX else None

    @property
    def port(self) -> int:
        if self._port is None:
            raise ServerError("the embedded server has no port before its first start")
        return self._port

    @property
    def url(self) -> str:
        return f"redis://{self._login}{HOST}:{self.port}"

    @property
    def unix_url(self) -> str | None:
        """The same server by its unix socket, unless the folder's path is too long for one."""
        return f"unix://{self._login}{self._socket}" if self._socket else None

    @property
    def _login(self) -> str:
        return f":{self._password}@" if self._password else ""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> str:
        """The server answers, and what it kept is loaded; its URL. One ``ServerError`` says why not."""
        if self.running:
            return self.url
        binary = find_server(self._server_bin)
        self._make_folder()
        lock = self._lock_folder()
        try:
            if self._port is None:
                self._port = free_port()
            elif not is_free(self._port):
                raise ServerError(f"port {self._port} is taken by another program; choose another")
            self._launch(binary, lock)
        finally:
            os.close(lock)
        try:
            self._wait_until_ready()
            if self.cluster:
                self._own_all_slots()
        except BaseException:
            self.kill()
            raise
        atexit.register(self._at_exit)
        return self.url

    def stop(self) -> None:
        """The server has ended in good order; nothing happens if it has not been running."""
        if self._process is not None and self.running:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._ended()

    def kill(self) -> None:
        """The server is gone as by a crash; what it had answered is in its data folder, but for what an fsync held up (``everysec``)."""
        if self._process is not None and self.running:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._ended()

    def pause(self) -> None:
        """The server hangs: it takes connections and answers nobody until ``cont``."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        self._signal(signal.SIGCONT)

    def write_error(self) -> str:
        """Why its last write to the append-only file failed; empty if it did not, or does not tell."""
        try:
            failed = "aof_last_write_status:err" in self._ask("INFO persistence")
        except OSError:
            return ""
        if not failed:
            return ""
        free = shutil.disk_usage(self.data_dir).free
        return "the file system is full" if free < FULL_BYTES else f"its log: {self.log_path}"

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _make_folder(self) -> None:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ServerError(f"cannot make the data folder {self.data_dir}: {error.strerror}") from error

    def _lock_folder(self) -> int:
        """An open, locked file. The server inherits it, so the lock lives exactly as long as the server."""
        path = self.data_dir / "server.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ServerError(f"cannot write {path}: {error.strerror}") from error
        deadline = time.monotonic() + LOCK_WITHIN_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.read(lock, 20).decode(errors="replace").strip()
                    os.close(lock)
                    raise ServerError(
                        f"{self.data_dir} is in use by a running server (process {holder}); use another data folder"
                    ) from None
                time.sleep(0.02)

    def _launch(self, binary: Path, lock: int) -> None:
        try:
            log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ServerError(f"cannot write {self.log_path}: {error.strerror}") from error
        with os.fdopen(log, "ab") as opened:
            try:
                self._process = subprocess.Popen(
                    [str(binary), "-", *self._arguments()],
                    cwd=self.data_dir,
                    stdin=subprocess.PIPE,
                    stdout=opened,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in a terminal is for the parent, which still has to write
                    umask=0o077,
                    pass_fds=(lock,),
                    preexec_fn=end_with_parent(),
                )
            except OSError as error:
                raise ServerError(f"cannot run {binary}: {error.strerror}") from error
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError), self._process.stdin as config:  # a command line is everybody's to read
            config.write(f"requirepass {self._password}\n".encode() if self._password else b"")
        with contextlib.suppress(OSError):  # a full file system: who finds the lock taken is told no number
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(self._process.pid).encode(), 0)

    def _arguments(self) -> list[str]:
        options = {
            "dir": str(self.data_dir),
            "bind": HOST,
            "port": str(self.port),
            "protected-mode": "yes",
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self.appendonly else "no",
            "appendfsync": "everysec",
        }
        if self._socket:
            options |= {"unixsocket": str(self._socket), "unixsocketperm": "700"}
        if self.cluster:
            options |= {"cluster-enabled": "yes", "cluster-port": str(free_port()), "cluster-config-file": "nodes.conf"}
        return [word for name, value in options.items() for word in (f"--{name}", value)] + list(self.config)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline:
            if not self.running:
                raise ServerError(f"the embedded server ended at once: {self._last_words()} (its log: {self.log_path})")
            with contextlib.suppress(OSError):
                # The process id tells our server from one that took the port a moment ago.
                if self._ask("PING") == "PONG" and f"process_id:{self.pid}\r\n" in self._ask("INFO server"):
                    return
            time.sleep(0.01)
        raise ServerError(f"the embedded server did not answer within {START_WITHIN_S:.0f} s (its log: {self.log_path})")

    def _own_all_slots(self) -> None:
        """A cluster of one: this server serves every slot."""
        if "cluster_slots_assigned:16384" not in self._ask("CLUSTER INFO"):
            self._ask("CLUSTER ADDSLOTSRANGE 0 16383")
        deadline = time.monotonic() + START_WITHIN_S
        while "cluster_state:ok" not in self._ask("CLUSTER INFO"):
            if time.monotonic() > deadline:
                raise ServerError(f"the embedded cluster did not come up within {START_WITHIN_S:.0f} s (its log: {self.log_path})")
            time.sleep(0.01)

    def _ask(self, command: str) -> str:
        """The reply to one inline command, without its type mark."""
        with socket.create_connection((HOST, self.port), timeout=2.0) as connection, connection.makefile("rb") as replies:
            if self._password:
                connection.sendall(f"AUTH {self._password}\r\n".encode())
                read_reply(replies)
            connection.sendall(command.encode() + b"\r\n")
            return read_reply(replies)

    def _last_words(self) -> str:
        lines = self.log_path.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def _ended(self) -> None:
        self._process = None
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        if os.getpid() == self._owner_pid:  # a fork of this process has no say over the server
            self.stop()


def read_reply(replies: IO[bytes]) -> str:
    """A simple, error or bulk reply as text."""
    line = replies.readline()
    if line.startswith(b"$"):
        return replies.read(int(line[1:]) + 2)[:-2].decode(errors="replace")
    return line[1:].rstrip().decode(errors="replace")
