"""What the embedded server asks of the host: a port to itself, and to end with its parent."""

from __future__ import annotations

import ctypes
import functools
import os
import random
import signal
import socket
import sys
from collections.abc import Callable

from statemq.errors import ServerError

HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below the range from which kernels take the near ends of connections, so that a restart finds its port free."""

PR_SET_PDEATHSIG = 1


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: what only lingers is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A loopback port nobody listens on now."""
    for port in random.sample(PORTS, 100):
        if is_free(port):
            return port
    raise ServerError(f"found no free port between {PORTS.start} and {PORTS.stop}; name one")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def end_with_parent() -> Callable[[], None] | None:
    """What the child does before it becomes the server, so that it gets SIGTERM when this process dies."""
    if sys.platform != "linux":
        return None
    prctl, parent = _libc().prctl, os.getpid()  # looked up here: between fork and exec one does as little as one can

    def ask_the_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return ask_the_kernel
