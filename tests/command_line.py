"""A command line run in this process: what a process of its own would print and end with, without the start of one."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from statemq.cli.app import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run_here(*words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: str = "") -> Done:
    """The command ended with ``returncode``; ``env`` is its whole environment. For what imports no target: that would stay imported."""
    streams = [_stream(stdin), _stream(), _stream()]
    with (
        contextlib.chdir(cwd or Path.cwd()),
        patch.dict(os.environ, os.environ if env is None else env, clear=True),
        _standing_for(*streams),
    ):
        code = main(words)
    return Done(code, *(_said(stream) for stream in streams[1:]))


def _stream(text: str = "") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", write_through=True)


def _said(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


@contextlib.contextmanager
def _standing_for(stdin: io.TextIOWrapper, stdout: io.TextIOWrapper, stderr: io.TextIOWrapper) -> Iterator[None]:
    with patch.object(sys, "stdin", stdin), patch.object(sys, "stdout", stdout), patch.object(sys, "stderr", stderr):
        yield
