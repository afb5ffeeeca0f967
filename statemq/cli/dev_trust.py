"""Whether the `dev` that a folder tells of is this user's own: any folder above the working one may be another's."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Any

from statemq.errors import UsageError

NO_WAIT = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link leads to what somebody else has chosen; a pipe is opened by nobody else."""

MAX_BYTES = 1 << 20


class NotOurs(Exception):
    """Somebody else has written the file, or could have; nothing of its content was read."""


def read_own(path: Path) -> dict[str, Any] | None:
    """What our file in our folder says; None if there is none.

    Both are looked at once they are open, so that nobody exchanges them meanwhile. Raises NotOurs; UsageError for a file of ours that
    says nothing.
    """
    try:
        folder = os.open(path.parent, os.O_DIRECTORY | NO_WAIT)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and path.parent.is_symlink():
            raise NotOurs(f"{path.parent} is a link") from None
        return None  # there is none, or one that others do not let us look into
    try:
        file = os.open(path.name, os.O_RDONLY | NO_WAIT, dir_fd=folder)
    except FileNotFoundError:
        os.close(folder)
        return None
    except OSError as error:
        why = _not_ours(path.parent, folder)
        os.close(folder)
        raise NotOurs(why or f"it cannot be opened ({error.strerror})") from None
    try:
        if why := _not_ours(path.parent, folder) or _not_ours(path, file):
            raise NotOurs(why)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise NotOurs(f"{path} is no file")
        with open(file, "rb", closefd=False) as opened:
            return _decoded(path, opened.read(MAX_BYTES))
    finally:
        os.close(file)
        os.close(folder)


def runs_as_ours(pid: Any) -> bool:
    """Whether that is a process which lives, and is this user's."""
    if type(pid) is not int or not 0 < pid < 1 << 31:
        return False
    try:
        os.kill(pid, 0)
    except OSError:  # it has ended, or is another user's
        return False
    try:
        return Path(f"/proc/{pid}").stat().st_uid == os.geteuid()  # root may signal everybody's
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # where there is no /proc, the signal was the answer


def is_free(folder: Path) -> bool:
    """The lock that a `dev` holds as long as it runs is there, and nobody holds it: the process of that number is another program."""
    try:
        lock = os.open(folder / "dev.lock", os.O_RDONLY | NO_WAIT)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(lock)


def _not_ours(path: Path, opened: int) -> str:
    """Why not; empty if it is ours alone."""
    found = os.fstat(opened)
    if found.st_uid != os.geteuid():
        return f"{path} belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {path}; take that from them with chmod go-w"
    return ""


def _decoded(path: Path, content: bytes) -> dict[str, Any]:
    from statemq.codec import decode

    try:
        about = decode(content)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{path} cannot be read ({why}); remove it, or name the Redis with --redis") from None
    if not isinstance(about, dict) or not isinstance(about.get("redis"), str):
        raise UsageError(f'{path} names no "redis"; remove it, or name the Redis with --redis')
    targets = about.get("targets") or []
    if not (
        isinstance(targets, list)
        and all(isinstance(text, str) for text in (*targets, about.get("namespace") or "", about.get("cwd") or ""))
    ):
        raise UsageError(f"{path} was written by something else than statemq dev; remove it, or name the Redis with --redis")
    return about
