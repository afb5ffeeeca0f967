"""Which process a worker is, so that one that starts on the same host can tell that it has ended (P5).

A process is named by its host's boot, its pid namespace, its pid and when it started (proc(5)): no other ever has that name.
Elsewhere than on Linux there is none, and its death is found out in other ways.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

WORDS = 5
_PROC = Path("/proc")


def own_name() -> str:
    """This process's; empty where there is no such thing."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        space = str((_PROC / "self/ns/pid").readlink())
        return " ".join((socket.gethostname(), boot, space, str(os.getpid()), _look(os.getpid())[1]))
    except (OSError, ValueError, IndexError):
        return ""


def has_ended(name: str) -> bool:
    """Surely: it was a process of this host, and there is none of that name any more."""
    here, there = own_name().split(" "), name.split(" ")
    if len(here) != WORDS or len(there) != WORDS or here[:3] != there[:3]:
        return False
    try:
        pid = int(there[3])
        if pid <= 0:
            return False
        os.kill(pid, 0)  # asked first: /proc may hide what is another user's
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    try:
        state, started = _look(pid)
    except (OSError, ValueError, IndexError):
        return False
    return started != there[4] or state in "ZX"


def _look(pid: int) -> tuple[str, str]:
    """State and start time. The second field is the program's name in brackets, which may hold anything."""
    words = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return words[0], words[19]
