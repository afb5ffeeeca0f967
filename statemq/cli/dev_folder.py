"""The data folder of `dev`: ``.statemq/``, one `dev` at a time, invisible to git.

dev.json   where the running `dev` is, for the other commands; removed when it ends
dev.lock   held while it runs; the kernel lets go of it however it ends
redis/     the embedded server's data, log and lock
port       the server's last port, so that a redis-cli in another window finds it again
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

import msgspec

from statemq.errors import UsageError


class About(msgspec.Struct, frozen=True):
    """The content of ``dev.json``."""

    redis: str
    http: str
    namespace: str
    targets: list[str]
    """A module as it was named, to be imported from ``cwd``; a file by its full path."""
    cwd: str
    pid: int


class Folder:
    """Open it, and no second `dev` can; close it, and nothing of the running one is left in it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.redis = self.path / "redis"
        self._about = self.path / "dev.json"
        self._port = self.path / "port"
        self._lock = -1

    def check_free(self) -> None:
        """No `dev` runs on it now. Raises UsageError that names the one that does; nothing is made."""
        with contextlib.suppress(OSError), (self.path / "dev.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(self._in_use()) from None

    def open(self) -> None:
        """The folder is there and ours. Raises UsageError in one sentence."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._keep_others_out()
            (self.path / ".gitignore").write_text("*\n")
            self._lock = os.open(self.path / "dev.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UsageError(f"cannot use {self.path} as the data folder: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UsageError(self._in_use()) from None
        self._about.unlink(missing_ok=True)  # of one that was killed

    def forget(self) -> None:
        """What the embedded server kept is gone."""
        if self.redis.exists():
            shutil.rmtree(self.redis)

    def last_port(self) -> int | None:
        try:
            return int(self._port.read_text())
        except (OSError, ValueError):
            return None

    def remember_port(self, port: int) -> None:
        self._port.write_text(f"{port}\n")

    def write(self, about: About) -> None:
        """Others find the running `dev`, and never half a file."""
        new = self._about.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # a Redis URL may hold a password
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")
        new.replace(self._about)

    def close(self) -> None:
        self._about.unlink(missing_ok=True)
        os.close(self._lock)

    def _keep_others_out(self) -> None:
        """Nobody else may write to it, whatever the umask: who could would choose the code and the Redis of those who ask here."""
        found = self.path.stat()
        if found.st_uid == os.geteuid() and found.st_mode & 0o022:
            self.path.chmod(found.st_mode & 0o7755)

    def _in_use(self) -> str:
        """Who is there already, as far as it says."""
        try:
            about = msgspec.json.decode(self._about.read_bytes(), type=About)
        except (OSError, msgspec.DecodeError):
            return f"a statemq dev that is just starting uses {self.path} already; give this one another --data DIR"
        return (
            f"a statemq dev runs on {self.path} already (process {about.pid}, {about.http}); "
            "stop it, or give this one --data DIR and --port N"
        )


def from_anywhere(target: str) -> str:
    """A file target by its full path; a module target as it is."""
    place, colon, name = target.partition(":")
    return f"{Path(place).absolute()}{colon}{name}" if place.endswith(".py") or "/" in place else target
