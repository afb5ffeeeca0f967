"""A server whose wall clock can be set: a small library, preloaded into it, shifts what the kernel says.

Steps are whole hours. So the real moment of any Redis time in the evidence can still be told (``steady``), whatever the clock was then.
"""

from __future__ import annotations

import shlex
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from statemq.server.binary import find_server

HOUR_MS = 3_600_000
BEFORE_MS = 60_000
"""What is in the evidence is no older than this when the run begins."""

_SOURCE = Path(__file__).with_name("clock.c")


class ServerClock:
    """``server_bin``: a program to start the server by. ``set`` moves its wall clock, also while it runs."""

    def __init__(self, folder: Path, server_bin: str | Path | None = None) -> None:
        compiler = shutil.which("cc")
        assert compiler is not None, "needs a C compiler"
        folder.mkdir(parents=True, exist_ok=True)
        library, self._file = folder / "clock.so", folder / "clock"
        self.server_bin = folder / "server"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
        self.set(0)
        words = f"exec env LD_PRELOAD={shlex.quote(str(library))} STATEMQ_TEST_CLOCK={shlex.quote(str(self._file))}"
        self.server_bin.write_text(f'#!/bin/sh\n{words} {shlex.quote(str(find_server(server_bin)))} "$@"\n')
        self.server_bin.chmod(0o755)

    def set(self, hours: int) -> None:
        """So far the server's clock is ahead of the host's from now on."""
        self.hours = hours
        mode = "r+b" if self._file.exists() else "wb"
        with self._file.open(mode, buffering=0) as file:
            file.write(struct.pack("d", hours * 3600.0))


def can_be_set() -> bool:
    return shutil.which("cc") is not None


def steady(record: Any, began_ms: int) -> Any:
    """The record with its Redis times as they would be if nobody had set the clock. ``began_ms``: when the run began, by the host's."""
    since = began_ms - BEFORE_MS
    names = [name for name in ("at_ms", "committed_ms") if getattr(record, name, 0)]
    at_ms = getattr(record, "at_ms", 0)
    shift = at_ms - since - (at_ms - since) % HOUR_MS if at_ms else 0
    times = {n: getattr(record, n) - shift if at_ms else since + (getattr(record, n) - since) % HOUR_MS for n in names}
    return msgspec.structs.replace(record, **times) if times else record
