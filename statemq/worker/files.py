"""How many files a process may have open, sockets included, and which ones it has."""

from __future__ import annotations

import os
import resource

ENOUGH = 65_536
"""No more than this is asked for: some programs that a handler starts close every file that they could have."""

OPEN = "/dev/fd"


def raise_limit() -> int:
    """This process may open as many files as the system lets it, 65,536 at most unless it could open more already. How many that is.

    Most systems begin with 1,024 for the sake of programs of another time, and leave it to each process to ask for more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # macOS has a lower limit, which it does not tell
            pass
    return ENOUGH if soft == resource.RLIM_INFINITY else soft


def open_files() -> list[int]:
    """The numbers of the files that this process has open. Raises OSError when it cannot open one more to look."""
    with os.scandir(OPEN) as found:
        return [int(entry.name) for entry in found]
