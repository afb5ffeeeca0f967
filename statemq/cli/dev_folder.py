"""The data folder of `dev`: ``.statemq/``, one `dev` at a time, invisible to git.

dev.json   where the running `dev` is, for the other commands; removed when it ends
dev.lock   held while it runs; the kernel lets go of it however it ends
redis/     the embedded server's data, log and lock
port       the server's last port, so that a redis-cli in another window finds it again
password   what the server asks for
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
from pathlib import Path

import msgspec

from statemq.cli.dev_trust import MAX_BYTES, NO_WAIT
from statemq.errors import UsageError

ABOUT, PASSWORD = "dev.json", "password"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | NO_WAIT


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
    """Open it, and no second `dev` can; close it, and nothing of the running one is left in it.

    Only this user may look into it, and nothing is read or written through a link in it: each file is opened in the open folder, and
    written anew beside the former one, whose name it takes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.redis = self.path / "redis"
        self._folder = self._lock = -1

    def check_free(self) -> None:
        """No `dev` runs on it now. Raises UsageError that names the one that does; nothing is made."""
        with contextlib.suppress(OSError):
            self._folder = os.open(self.path, FOLDER)
        try:
            with contextlib.suppress(OSError):
                lock = os.open("dev.lock", os.O_RDONLY | NO_WAIT, dir_fd=self._folder)
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageError(self._in_use()) from None
                finally:
                    os.close(lock)
        finally:
            self._close_folder()

    def open(self) -> None:
        """The folder is there and ours. Raises UsageError in one sentence."""
        try:
            str(self.path).encode()
            if self.path.is_symlink():
                raise UsageError(f"{self.path} is a link; name the folder that it leads to with --data, or remove it")
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = os.open(self.path, FOLDER)
            self._keep_others_out()
            self._write(".gitignore", b"*\n")
            self._lock = os.open("dev.lock", os.O_RDWR | os.O_CREAT | NO_WAIT, 0o600, dir_fd=self._folder)
        except UnicodeEncodeError:
            raise UsageError("the data folder's path is not valid UTF-8; give this one another --data DIR") from None
        except OSError as error:
            self._close_folder()
            what = f" (in it, {error.filename})" if error.filename and "/" not in str(error.filename) else ""
            raise UsageError(f"cannot use {self.path} as the data folder{what}: {error.strerror}") from error
        except UsageError:
            self._close_folder()
            raise
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            in_use = self._in_use()
            self._close_folder()
            raise UsageError(in_use) from None
        self._remove(ABOUT)  # of one that was killed

    def forget(self) -> None:
        """What the embedded server kept is gone. Raises UsageError."""
        try:
            if self.redis.exists():
                shutil.rmtree(self.redis)
        except OSError as error:
            raise UsageError(f"cannot remove {error.filename or self.redis}: {error.strerror}") from error

    def last_port(self) -> int | None:
        """The port that is remembered; None for what can be none."""
        said = self._read("port", 16).strip()
        return int(said) if said.isdigit() and 1024 <= int(said) < 1 << 16 else None

    def remember_port(self, port: int) -> None:
        """Raises UsageError."""
        self._keep("port", f"{port}\n".encode())

    def password(self) -> str:
        """What the server asks for, the same at each start, so that a redis-cli in another window goes on. Raises UsageError."""
        said = self._read(PASSWORD, 128).strip()
        if re.fullmatch(rb"[0-9a-f]{32,}", said):
            return said.decode()
        made = secrets.token_hex(16)
        self._keep(PASSWORD, f"{made}\n".encode())
        return made

    def write(self, about: About) -> None:
        """Others find the running `dev`, and never half a file. Raises UsageError."""
        self._keep(ABOUT, msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")

    def close(self) -> None:
        self._remove(ABOUT)
        os.close(self._lock)
        self._close_folder()

    def _keep(self, name: str, content: bytes) -> None:
        try:
            self._write(name, content)
        except OSError as error:
            raise UsageError(f"cannot write {self.path / name}: {error.strerror}") from error

    def _write(self, name: str, content: bytes) -> None:
        new = f"{name}.new"
        self._remove(new)
        made = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_WAIT, 0o600, dir_fd=self._folder)
        with os.fdopen(made, "wb") as file:
            file.write(content)
        os.replace(new, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _read(self, name: str, most: int) -> bytes:
        """The beginning of a file; nothing if there is none that can be read."""
        try:
            file = os.open(name, os.O_RDONLY | NO_WAIT, dir_fd=self._folder)
        except OSError:
            return b""
        try:
            return os.read(file, most) if stat.S_ISREG(os.fstat(file).st_mode) else b""
        finally:
            os.close(file)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._folder)

    def _close_folder(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _keep_others_out(self) -> None:
        """Nobody else may look into what is ours, whatever the umask: who could write chose the code and the Redis of those who ask here.
        A folder that holds more is the user's; there only the right to write is taken. The server follows links, so there is none among
        its files. Raises UsageError."""
        about = os.fstat(self._folder)
        if about.st_uid != os.geteuid():
            raise UsageError(f"{self.path} belongs to another user; give this dev another --data DIR")
        names = os.listdir(self._folder)  # noqa: PTH208 - of the open folder
        os.fchmod(self._folder, 0o700 if not names or "dev.lock" in names else about.st_mode & 0o7755)
        ours = [self.path / name for name in (".gitignore", ABOUT, "dev.lock", PASSWORD, "port", "redis") if name in names]
        for path in [*ours, *(path for path in self.redis.rglob("*") if not self.redis.is_symlink())]:
            about = path.lstat()
            if stat.S_ISLNK(about.st_mode):
                raise UsageError(f"{path} is a link, and nothing is written through one; remove it")
            if about.st_mode & 0o077 and stat.S_IFMT(about.st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                path.chmod(about.st_mode & 0o700)

    def _in_use(self) -> str:
        """Who is there already, as far as it says."""
        try:
            about = msgspec.json.decode(self._read(ABOUT, MAX_BYTES), type=About)
        except msgspec.DecodeError:
            return f"a statemq dev that is just starting uses {self.path} already; give this one another --data DIR"
        return (
            f"a statemq dev runs on {self.path} already (process {about.pid}, {about.http}); "
            "stop it, or give this one --data DIR and --port N"
        )


def from_anywhere(target: str) -> str:
    """A file target by its full path; a module target as it is."""
    place, colon, name = target.partition(":")
    return f"{Path(place).absolute()}{colon}{name}" if place.endswith(".py") or "/" in place else target
