"""Which process a worker is, so that others on the same host can tell for sure whether it has ended (P5).

A process is named by its host's boot, its pid namespace, its pid and when it started (proc(5)): no other ever has that name.
Elsewhere than on Linux there is none, and its death is found out in other ways.
"""

from __future__ import annotations

import os
import socket
from enum import Enum
from pathlib import Path

WORDS = 5
_PROC = Path("/proc")


def own_name() -> str:
    """This process's; empty where there is no such thing."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        space = str((_PROC / "self/ns/pid").readlink())
        return " ".join((socket.gethostname(), boot, space, str(os.getpid()), _look(os.getpid())[1]))
    except (OSError, ValueError, IndexError):
        return ""


class Fate(Enum):
    """What is known of a process."""

    ended = "ended"
    lives = "lives"
    unknown = "unknown"
    """It is another host's, or what there is of it cannot be seen."""


def fate_of(name: str) -> Fate:
    """What this host knows for sure of the process of that name: it is here, or it was here and there is none of that name any more."""
    here, there = own_name().split(" "), name.split(" ")
    if len(here) != WORDS or len(there) != WORDS or here[:3] != there[:3]:
        return Fate.unknown
    try:
        pid = int(there[3])
        if pid <= 0:
            return Fate.unknown
        os.kill(pid, 0)  # asked first: /proc may hide what is another user's
    except ProcessLookupError:
        return Fate.ended
    except (OSError, ValueError, OverflowError):
        return Fate.unknown
    try:
        state, started = _look(pid)
    except (OSError, ValueError, IndexError):
        return Fate.unknown
    return Fate.ended if started != there[4] or state in "ZX" else Fate.lives


def has_ended(name: str) -> bool:
    """Surely."""
    return fate_of(name) is Fate.ended


def _look(pid: int) -> tuple[str, str]:
    """State and start time. The second field is the program's name in brackets, which may hold anything."""
    words = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return words[0], words[19]
