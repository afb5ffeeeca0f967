"""The processes of a bench: started, asked, measured, and ended with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from statemq.bench.jobs import Done, Job, Wiring, decode_done, encode_line
from statemq.errors import ServerError
from statemq.server.host import end_with_parent

ANSWER_WITHIN_S = 120.0
"""Beyond the seconds of a job: a process that says nothing for so long ends the bench."""

END_WITHIN_S = 10.0


class Process:
    """Runs from here on; it ends with this process, however that ends. What it says on stderr is in ``log``."""

    def __init__(self, name: str, argv: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.name, self.log = name, folder / f"{name.replace(' ', '-')}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_s(self) -> float | None:
        """User and system time so far; None where the kernel does not tell (only Linux does)."""
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self.pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return None

    def most_rss(self) -> int | None:
        """The most memory it has held, in bytes."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text("utf-8", "replace").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None

    def end(self) -> None:
        """It has ended, in good order if it could."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def kill(self) -> None:
        """It is gone as by a crash."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()

    def broken(self, what: str) -> ServerError:
        """The error that ends the bench, with the process's last words."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return ServerError(f"the bench's {self.name} {what}" + (f"; it said: {lines[-1]}" if lines else ""))


class Talker(Process):
    """A process that is told its wiring, says ``ready``, and does jobs if it is a client."""

    def __init__(self, name: str, module: str, wiring: Wiring, folder: Path) -> None:
        super().__init__(name, ["-m", module], folder)
        self._unread = b""
        self._write(encode_line(wiring))
        self._line(ANSWER_WITHIN_S)

    def ask(self, job: Job) -> Done:
        self._write(encode_line(job))
        return decode_done(self._line(job.seconds + ANSWER_WITHIN_S))

    def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.broken("ended") from None

    def _line(self, within_s: float) -> bytes:
        assert self.process.stdout is not None
        while b"\n" not in self._unread:
            if not select.select([self.process.stdout], [], [], within_s)[0]:
                raise self.broken(f"did not answer within {within_s:.0f} s")
            received = os.read(self.process.stdout.fileno(), 1 << 16)
            if not received:
                raise self.broken("ended")
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return line
