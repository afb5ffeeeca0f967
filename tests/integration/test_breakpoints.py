"""``breakpoint()`` in a handler: usable in a worker's terminal and in that of `dev`, else one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from statemq import Client, Failed
from statemq.server.host import free_port
from tests.waiting import block_until, wait_until

ROOT = Path(__file__).parents[2]

LAMP = """
from statemq import Context, Machine, transition

def half(n):
    breakpoint()
    return n // 2

class Lamp(Machine, initial="OFF", partitions=4):
    @transition(source="OFF", target="ON")
    async def turn_on(self, ctx: Context, n: int = 41) -> int:
        n += 1
        breakpoint()
        return await ctx.step("after", lambda: n)

    @transition(source="OFF", target="ON")
    async def in_a_step(self, ctx: Context) -> int:
        return await ctx.step("half", half, 42)
"""


class Terminal:
    """A program that has a terminal of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.said = ""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("STATEMQ_", "PYTHON"))}
        env |= {"PYTHONPATH": str(ROOT), "TERM": "dumb"}
        self.ours, theirs = pty.openpty()
        os.set_blocking(self.ours, False)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "statemq", *words],
            cwd=folder,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def heard(self, pattern: str) -> bool:
        with contextlib.suppress(BlockingIOError, OSError):  # it has said nothing, or has ended
            while part := os.read(self.ours, 4096):
                self.said += part.decode()
        assert self.process.poll() is None or re.search(pattern, self.said), self.said
        return bool(re.search(pattern, self.said))

    async def until(self, pattern: str) -> None:
        await wait_until(lambda: self.heard(pattern), 60)

    def type(self, line: str) -> None:
        self.said = ""
        os.write(self.ours, line.encode() + b"\n")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            block_until(lambda: self.heard("$^") or self.process.poll() is not None, 30)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lamp.py").write_text(LAMP)
    return tmp_path


@pytest.fixture
def terminal(request: pytest.FixtureRequest, folder: Path, url: str, namespace: str) -> Iterator[Terminal]:
    place = ["--redis", url, "--namespace", namespace]
    words = ["dev", "lamp.py", "--port", str(free_port())] if request.param == "dev" else ["worker", "lamp.py", "--stuck-after", "1s"]
    started = Terminal(folder, *words, *place)
    yield started
    started.close()


@pytest.mark.parametrize("terminal", ["worker", "dev"], indirect=True)
@pytest.mark.parametrize("transition", ["turn_on", "in_a_step"])
async def test_it_asks_in_the_terminal_and_the_command_goes_on(terminal: Terminal, url: str, namespace: str, transition: str) -> None:
    await terminal.until("runs lamp at")
    async with Client(url, namespace=namespace) as client:
        call = asyncio.ensure_future(client.call("lamp", "a", transition, timeout=60))
        await terminal.until(r"\(Pdb\) ")
        if "worker" in terminal.process.args:  # type: ignore[operator]
            await asyncio.sleep(2)  # longer than a process may be stuck
        terminal.type("p n * 100")
        await terminal.until("4200")
        terminal.type("c")
        assert await call == (42 if transition == "turn_on" else 21)
    assert "has not turned" not in terminal.said


async def test_where_there_is_no_terminal_one_sentence_says_how(folder: Path, url: str, namespace: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")} | {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "statemq", "worker", "lamp.py", "--redis", url, "--namespace", namespace]
    with subprocess.Popen(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as worker:
        try:
            async with Client(url, namespace=namespace) as client:
                assert worker.stderr and any("runs lamp at" in line for line in worker.stderr)
                for transition in ("turn_on", "in_a_step"):
                    with pytest.raises(Failed, match=r"breakpoint\(\) has no terminal here; run `statemq dev` or a single") as failed:
                        await client.call("lamp", "a", transition, timeout=60)
                    assert failed.value.code == "usage"
        finally:
            worker.terminate()
            worker.communicate()
