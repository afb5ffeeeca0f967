"""The command line as people use it: a real Redis, a worker started by its own command, and where the process matters (signals, terminals,
pipes, code that is imported) a process for each command; the others run here."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from statemq.server.host import free_port
from tests.command_line import Done, run_here
from tests.waiting import block_until

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0

GATE = """
import asyncio
from enum import StrEnum
from pathlib import Path

import msgspec

from statemq import Context, Fail, Machine, Reject, query, transition


class State(StrEnum):
    SHUT = "SHUT"
    OPEN = "OPEN"


class Data(msgspec.Struct):
    note: str = ""


class Gate(Machine[Data, State], initial=State.SHUT, partitions=2):
    @transition(source=State.SHUT, target=State.OPEN)
    async def open(self, ctx: Context, note: str = "", width: int = 1) -> dict[str, str | int]:
        self.data.note = note
        return {"note": note, "width": width}

    @transition(source=State.OPEN, target=State.SHUT)
    async def shut(self, ctx: Context) -> str:
        await ctx.step("first", touch, f"{ctx.key}.begun")
        await ctx.step("second", until_there, f"{ctx.key}.go")
        return "shut"

    @transition(source=State.SHUT)
    async def break_down(self, ctx: Context) -> None:
        raise Fail("it is \\x1b[31mbroken")

    @transition(source=State.SHUT)
    async def refuse(self, ctx: Context) -> None:
        raise Reject("not today")

    @query
    def note(self, loud: bool = False) -> str:
        return self.data.note.upper() if loud else self.data.note


async def touch(name: str) -> str:
    Path(name).touch()
    return name


async def until_there(name: str) -> None:
    while not Path(name).exists():
        await asyncio.sleep(0.01)
"""


class Cli:
    """Runs command lines in a folder that has gate.py, against the test's namespace."""

    def __init__(self, folder: Path, url: str, namespace: str) -> None:
        self.folder = folder
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("STATEMQ_")}
        self.env |= {"PYTHONPATH": str(ROOT), "STATEMQ_REDIS": url, "STATEMQ_NAMESPACE": namespace, "COLUMNS": "120"}
        self.started: list[subprocess.Popen[str]] = []
        (folder / "gate.py").write_text(GATE)

    def run(self, *words: str, code: int = 0, stdin: str = "") -> Done:
        done = run_here(*words, env=self.env, cwd=self.folder, stdin=stdin)
        return self.checked(words, done, code)

    def process(self, *words: str, code: int = 0, stdin: str = "") -> Done:
        """The same as a process: for what imports gate.py, and to see that a process says and returns what the others here do."""
        done = subprocess.run(
            self.command(words), cwd=self.folder, env=self.env, input=stdin, capture_output=True, text=True, timeout=WITHIN_S
        )
        return self.checked(words, Done(done.returncode, done.stdout, done.stderr), code)

    def checked(self, words: tuple[str, ...], done: Done, code: int) -> Done:
        assert "Traceback" not in done.stderr
        assert done.returncode == code, f"statemq {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def rows(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*words, "--json").stdout.splitlines()]

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        process = subprocess.Popen(self.command(words), cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, **streams)
        self.started.append(process)
        return process

    def command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "statemq", *words]

    def worker(self, *words: str, count: int = 1) -> subprocess.Popen[str]:
        """A worker that has said it lives; its log is worker.log."""
        with (self.folder / "worker.log").open("w") as log:
            process = self.start("worker", "gate.py", "--log-transitions", *words, stdout=log, stderr=log)
        block_until(lambda: process.poll() is not None or len(self.live()) == count, WITHIN_S)
        assert process.poll() is None, self.log()
        return process

    def live(self) -> list[dict[str, Any]]:
        return [row for row in self.rows("workers") if row["live"]]

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.terminate()
                process.wait(WITHIN_S)
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()


@pytest.fixture
def cli(tmp_path: Path, url: str, namespace: str) -> Iterator[Cli]:
    cli = Cli(tmp_path, url, namespace)
    yield cli
    cli.end()


def test_a_machine_from_declaration_to_history(cli: Cli) -> None:
    assert "no machine is declared yet" in cli.run("machines").stderr
    assert 'no process has declared "gate"' in cli.run("call", "gate", "a", "open", code=2).stderr

    worker = cli.worker()
    done = cli.process("call", "gate", "a", "open", "note=7", "width=7")
    assert done.stdout == '{"note":"7","width":7}\n'
    assert [line for line in done.stderr.splitlines() if "yet; trying for some seconds" not in line] == []  # which a slow machine may hear
    assert cli.process("call", "gate", "b", "open", "-", stdin='{"note": "é\\u001b"}').stdout == '{"note":"é\\u001b","width":1}\n'
    refused = cli.process("call", "gate", "a", "open", code=1)
    assert refused.stdout == ""
    assert "rejected: gate/a is OPEN; open needs SHUT; allowed now: shut" in refused.stderr
    assert "not today" in cli.run("call", "gate", "c", "refuse", code=1).stderr

    assert cli.rows("get", "gate", "a")[0]["data"] == {"note": "7"}
    assert cli.process("query", "gate", "b", "note", "loud=true", "--target", "gate.py").stdout == '"É\\u001b"\n'
    assert cli.run("can", "gate", "a", "shut").stdout.startswith("allowed")
    assert "open needs SHUT" in cli.run("can", "gate", "a", "open", code=1).stdout
    assert {row["key"] for row in cli.rows("list", "gate", "--state", "OPEN")} == {"a", "b"}
    assert [(row["key"], row["outcome"]) for row in cli.rows("history", "gate", "a")] == [("a", "completed"), ("a", "rejected")]
    assert cli.rows("machines")[0]["in_state"]["OPEN"] == 2
    assert {row["owner"] for row in cli.rows("partitions", "gate")} == {cli.live()[0]["id"]}
    assert "\x1b" not in cli.run("get", "gate", "b").stdout
    assert "shut ──▶ SHUT" in cli.run("graph", "gate").stdout

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(WITHIN_S) == 0
    assert "gate/a open SHUT → OPEN completed" in cli.log()
    assert "Traceback" not in cli.log()


def test_send_and_result_with_a_key_that_looks_like_an_option(cli: Cli) -> None:
    cli.worker()
    assert "goes after --" in cli.run("send", "gate", "-5", "open", code=2).stderr
    id = cli.run("send", "gate", "--", "-5", "open", "note=x=y").stdout.strip()
    assert cli.run("result", id, "--timeout", "30s").stdout == '{"note":"x=y","width":1}\n'
    again = [cli.run("send", "gate", "k", "open", "--idempotency-key", "once").stdout for _ in range(2)]
    assert again[0] == again[1]
    assert cli.run("call", "gate", "k", "shut", "--if-state", "SHUT", code=1).stderr
    assert cli.run("send", "gate", "k", "open", "width=x", code=2).stdout == ""
    assert cli.run("result", again[0].strip()).stdout.startswith("{")


@pytest.mark.leaves_work  # a cancelled command lies in the stream until a worker passes it
def test_without_a_worker_it_says_so_and_ends_as_asked(cli: Cli) -> None:
    declare(cli)
    waited = cli.run("call", "gate", "a", "open", "--timeout", "2500ms", code=4)
    assert waited.stdout == ""
    assert "no live worker for gate" in waited.stderr
    (queued,) = cli.rows("queue", "gate")
    assert f"statemq result {queued['id']}" in waited.stderr
    assert cli.run("result", queued["id"], "--timeout", "0", code=4)
    assert cli.run("cancel", queued["id"]).stdout == "cancelled\n"
    assert "cancelled" in cli.run("result", queued["id"], code=1).stderr
    assert cli.rows("show", queued["id"])[0]["status"] == "cancelled"


def test_the_health_check_of_compose_fails_when_no_worker_lives(cli: Cli) -> None:
    worker = (ROOT / "compose.yaml").read_text().split("\n  worker:\n", 1)[1].split("\n  http:\n", 1)[0]
    _, program, *words = json.loads(worker.split("healthcheck:\n      test: ", 1)[1].split(" #", 1)[0].splitlines()[0])
    assert program == "statemq"
    assert "no worker runs" in cli.run(*words, code=1).stderr
    process = cli.worker()
    assert cli.live()[0]["id"] in cli.run(*words).stdout
    process.kill()
    process.wait(WITHIN_S)
    block_until(lambda: not cli.live(), WITHIN_S)
    assert cli.run(*words, "--json", code=1).stdout == ""


@pytest.mark.leaves_work  # a cancelled command lies in the stream until a worker passes it
def test_ctrl_c_ends_the_wait_and_names_the_command(cli: Cli) -> None:
    declare(cli)
    waiting = cli.start("call", "gate", "a", "open", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    (queued,) = block_until(lambda: cli.rows("queue", "gate"), WITHIN_S)
    assert waiting.stderr
    waiting.stderr.readline()  # the remark about the missing worker: the id is known by now
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(WITHIN_S) == 130
    assert f"statemq result {queued['id']}" in waiting.stderr.read()
    cli.run("cancel", queued["id"])


def test_failed_commands_are_listed_retried_and_discarded(cli: Cli) -> None:
    cli.worker()
    broken = cli.run("call", "gate", "a", "break_down", code=1)
    assert "failed" in broken.stderr
    assert "it is \\x1b[31mbroken" in broken.stderr
    (letter,) = cli.rows("failed", "list", "gate")
    assert "\x1b" not in cli.run("failed", "list", "gate", "--traceback").stdout
    (id,) = cli.run("failed", "retry", "gate", letter["letter"]).stdout.split()
    cli.run("result", id, code=1)
    (second,) = cli.rows("failed", "list", "gate")
    assert second["letter"] != letter["letter"]
    assert cli.run("failed", "discard", "gate", "--all").stdout == "1\n"
    assert cli.rows("failed", "list", "gate") == []


def test_a_paused_instance_waits_until_it_is_resumed(cli: Cli) -> None:
    cli.worker()
    assert cli.run("pause", "gate", "a").stdout == "gate/a is paused\n"
    waited = cli.run("call", "gate", "a", "open", "--timeout", "3s", code=4)
    assert "gate/a is paused" in waited.stderr
    assert cli.run("call", "gate", "b", "open").stdout
    assert cli.run("resume", "gate", "a").stdout == "gate/a is resumed\n"
    (row,) = block_until(lambda: cli.rows("list", "gate", "--state", "OPEN")[1:], WITHIN_S)
    assert row["key"] == "a"
    cli.run("pause", "gate", "b")
    assert {row["key"]: row["paused"] for row in cli.rows("list", "gate")} == {"a": False, "b": True}
    assert [line.split()[-1] for line in cli.run("list", "gate").stdout.splitlines()[1:]].count("paused") == 1
    can = cli.run("can", "gate", "b", "shut")
    assert can.stdout.startswith("allowed")
    assert "gate/b is paused: what is sent waits" in can.stderr


def test_on_a_terminal_the_steps_are_shown_while_it_runs(cli: Cli) -> None:
    cli.worker()
    cli.run("call", "gate", "a", "open")
    ours, theirs = pty.openpty()
    call = cli.start("call", "gate", "a", "shut", stderr=theirs)
    os.close(theirs)
    shown = read_until(ours, "✓ first")
    assert "gate/a shut: running" in shown
    assert call.poll() is None
    (cli.folder / "a.go").touch()
    shown = read_until(ours, "gate/a shut: completed")
    assert call.wait(WITHIN_S) == 0
    assert call.stdout
    assert call.stdout.read() == '"shut"\n'
    os.close(ours)


def test_several_processes_share_the_work_and_end_together(cli: Cli) -> None:
    worker = cli.worker("--processes", "2", "--concurrency", "7", "--grace", "1500ms", count=2)
    assert cli.run("call", "gate", "a", "open").stdout
    assert {row["concurrency"] for row in cli.live()} == {7}
    pids = [row["pid"] for row in cli.live()]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(WITHIN_S) == 0
    for pid in pids:
        block_until(lambda pid=pid: not alive(pid), WITHIN_S)  # type: ignore[misc]


def test_no_redis_is_said_and_is_exit_code_3(cli: Cli) -> None:
    cli.env["STATEMQ_REDIS"] = f"redis://user:secret@localhost:{free_port()}"
    done = cli.process("machines", code=3)
    assert "no Redis answers at redis://localhost:" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.quick
def test_a_worker_says_that_it_runs_when_it_does(cli: Cli) -> None:
    away = cli.process("worker", "gate.py", "--redis", f"redis://127.0.0.1:{free_port()}", code=3).stderr
    assert "is away" in away
    assert "runs gate" not in away
    cli.worker()
    block_until(lambda: " runs gate at redis://" in cli.log(), WITHIN_S)


def test_a_running_dev_is_found_from_its_folder(cli: Cli) -> None:
    declare(cli)
    about = {
        "redis": cli.env.pop("STATEMQ_REDIS"),
        "namespace": cli.env.pop("STATEMQ_NAMESPACE"),
        "targets": ["gate"],
        "cwd": str(cli.folder),
        "pid": os.getpid(),
    }
    (cli.folder / ".statemq").mkdir()
    (cli.folder / ".statemq" / "dev.json").write_text(json.dumps(about))
    home, cli.folder = cli.folder, cli.folder / "below"
    cli.folder.mkdir()
    done = cli.process("query", "gate", "a", "note")
    assert done.stdout == '""\n'
    assert f"using the dev server of {home}" in done.stderr


def test_a_closed_pipe_is_no_error_to_talk_about(cli: Cli) -> None:
    shown = cli.start("graph", "gate.py:Gate", "--format", "json")
    assert shown.stdout
    assert shown.stderr
    shown.stdout.close()
    shown.wait(WITHIN_S)
    assert shown.stderr.read() == ""


def declare(cli: Cli) -> None:
    """What a worker does first, without one: a query with the class declares its machine."""
    cli.process("query", "gate", "nobody", "note", "--target", "gate.py")


def read_until(terminal: int, text: str) -> str:
    """What was written to a terminal until ``text`` was among it."""
    shown, deadline = "", time.monotonic() + WITHIN_S
    while text not in shown:
        left = deadline - time.monotonic()
        assert left > 0, f"not shown: {text}\nbut: {shown}"
        if select.select([terminal], [], [], left)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_is_no_redis_is_said_in_one_sentence(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        done = cli.run("get", "gate", "a", "--redis", f"redis://127.0.0.1:{listening.getsockname()[1]}", code=3)
    assert [line.startswith("statemq: no ") for line in done.stderr.splitlines()] == [True, True]
    assert "(what answers there does not speak Redis's protocol)" in done.stderr
