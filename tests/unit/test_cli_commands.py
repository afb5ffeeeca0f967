"""Commands of the command line against a client that answers what the test wants: output, exit codes, errors."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from statemq import errors
from statemq.cli import connect, follow
from statemq.cli.app import main
from statemq.examples.order import Order
from statemq.records import (
    CommandStatus,
    DeadLetter,
    HistoryEntry,
    Instance,
    Listed,
    MachineInfo,
    Outcome,
    PartitionInfo,
    Queued,
    Step,
    StepRetry,
    Verdict,
    WorkerInfo,
)

ROOT = Path(__file__).parents[2]
ID = "order.3.01930c2e5b7a7c3e8f6a2b4c6d8e0f12"


class FakeHandle:
    def __init__(self, client: FakeClient) -> None:
        self.client, self.id = client, ID

    async def outcome(self, timeout: float | None = None) -> Outcome:
        self.client.asked.append(("outcome", (timeout,), {}))
        await self.client.until()
        return self.client.answer("outcome")


class FakeClient:
    """Notes what it is asked; answers from ``answers`` (an exception is raised)."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"graph": Order.spec.graph(), "live_workers": 1, "get": Instance("order", "o-1", "NEW")} | answers
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.until: Callable[[], Any] = self.at_once

    async def at_once(self) -> None: ...

    def answer(self, name: str) -> Any:
        answer = self.answers[name]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def __aenter__(self) -> FakeClient:
        self.answers.setdefault("connect", None)
        self.answer("connect")
        return self

    async def __aexit__(self, *error: object) -> None: ...

    def handle(self, id: str) -> FakeHandle:
        return FakeHandle(self)

    async def send(self, *args: Any, **kwargs: Any) -> FakeHandle:
        self.asked.append(("send", args, kwargs))
        self.answers.setdefault("send", None)
        self.answer("send")
        return FakeHandle(self)

    def __getattr__(self, name: str) -> Any:
        async def ask(*args: Any, **kwargs: Any) -> Any:
            self.asked.append((name, args, kwargs))
            return self.answer(name)

        return ask

    def was_asked(self, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return next((args, kwargs) for asked, args, kwargs in self.asked if asked == name)


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STATEMQ_REDIS", "STATEMQ_NAMESPACE", "STATEMQ_TARGET", "STATEMQ_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


class Run:
    """Runs a command line with a fake client; afterwards ``out`` and ``err``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.client = FakeClient()
        self.opened: list[tuple[Any, ...]] = []
        self.out = self.err = ""

    def __call__(self, *words: str, **answers: Any) -> int:
        self.client = FakeClient(**answers)
        self.monkeypatch.setattr(connect, "open_client", self.open)
        code = main(words)
        self.out, self.err = self.capsys.readouterr()
        assert "Traceback" not in self.out + self.err
        return code

    def open(self, *args: Any) -> FakeClient:
        self.opened.append(args)
        return self.client


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


def completed(result: bytes) -> Outcome:
    return Outcome(ID, "completed", result=msgspec.Raw(result), state="PAID", version=1)


def test_call_prints_the_result_as_json_and_nothing_else(run: Run) -> None:
    assert run("call", "order", "o-1", "pay", "cents=12", "--timeout", "5s", outcome=completed('"é \\u001b"'.encode())) == 0
    assert run.out == '"é \\u001b"\n'
    assert run.err == ""
    assert run.client.was_asked("send") == (("order", "o-1", "pay", {"cents": 12}), {"idempotency_key": None, "if_state": None})
    assert run.client.was_asked("outcome")[0] == (5.0,)
    assert run.opened == [("redis://localhost:6379", "statemq", ())]


def test_call_passes_on_where_and_under_what_condition(run: Run) -> None:
    words = ["call", "order", "pay", "pay", '{"cents": 1}', "--idempotency-key", "once", "--if-state", "NEW"]
    assert run(*words, "--redis", "redis://there", "--namespace", "ns", outcome=completed(b"null")) == 0
    assert run.out == "null\n"
    assert run.client.was_asked("send")[1] == {"idempotency_key": "once", "if_state": "NEW"}
    assert run.opened == [("redis://there", "ns", ())]


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (
            Outcome(ID, "rejected", reason="order/o-1 is PAID; pay needs NEW", state="PAID", allowed=["ship"]),
            "rejected: order/o-1 is PAID; pay needs NEW; allowed now: ship",
        ),
        (Outcome(ID, "rejected", reason="no\x1b[2J", code="rejected"), "rejected: no\\x1b[2J; allowed now: nothing"),
        (Outcome(ID, "failed", reason="boom", error="RuntimeError", attempts=20), "failed: RuntimeError: boom (after 20 attempts)"),
        (Outcome(ID, "failed", reason="boom (after 20 attempts)", attempts=20), "failed: boom (after 20 attempts)"),
        (Outcome(ID, "rejected", transition="pay", reason="no funds", allowed=["pay", "ship"]), "rejected: no funds"),
        (Outcome(ID, "cancelled", code="cancelled"), "cancelled"),
        (Outcome(ID, "cancelled", reason="cancelled on request"), "cancelled on request"),
    ],
)
def test_how_a_command_ended_badly_is_one_sentence_and_exit_code_1(run: Run, outcome: Outcome, said: str) -> None:
    assert run("call", "order", "o-1", "pay", "cents=1", outcome=outcome) == 1
    assert (run.out, run.err) == ("", f"statemq: {said}\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            errors.UnknownMachine("order", "statemq", ["resource"]),
            2,
            'no process has declared "order" in namespace statemq yet; known: res',
        ),
        (errors.InvalidKey("a key cannot be empty"), 2, "a key cannot be empty"),
        (errors.IdempotencyConflict("k", ID), 2, "was used for another request"),
        (errors.BacklogFull("order", 3, 10), 1, "order has 10 commands waiting"),
        (errors.RedisAway("Redis is not reachable at redis://localhost:6379"), 3, "Redis is not reachable"),
        (errors.SchemaTooNew("this namespace is of a later version"), 3, "later version"),
        (errors.Rejected("order/o-1 is PAID"), 1, "rejected: order/o-1 is PAID"),
        (
            errors.Pending("not ended within 5 s", id=ID),
            4,
            f"not ended within 5 s\nstatemq: ask again with: statemq result {ID}",
        ),
        (errors.StatemqError("two\nlines \x1b"), 1, "two\n  lines \\x1b"),
        (ZeroDivisionError("by zero"), 1, "unexpected ZeroDivisionError: by zero (STATEMQ_TRACEBACK=1 shows where)"),
    ],
)
def test_every_error_has_its_sentence_and_exit_code(run: Run, error: Exception, code: int, said: str) -> None:
    assert run("call", "order", "o-1", "pay", "cents=1", send=error) == code
    assert run.out == ""
    assert run.err.startswith("statemq: ")
    assert said in run.err


def test_no_redis_is_exit_code_3_for_every_command_that_asks(run: Run) -> None:
    away = errors.RedisAway("Redis is not reachable at redis://localhost:6379")
    for words in ("machines", "workers", "get m k", "list m", "queue m", "history m", "partitions m", "failed list m", "pause m"):
        assert run(*words.split(), connect=away) == 3
        assert (run.out, run.err) == ("", "statemq: Redis is not reachable at redis://localhost:6379\n")
    for words in (f"show {ID}", f"result {ID}", f"cancel {ID}", "call m k t", "send m k t", "can m k t", "graph m"):
        assert run(*words.split(), connect=away) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("call order", "Missing argument 'KEY'. Help: statemq call --help"),
        ("nonsense", "No such command 'nonsense'"),
        ("fail", "Did you mean 'failed'? Help: statemq --help"),
        ("call order o-1 summary", "summary is a query of order: statemq query order KEY summary"),
        ("query order o-1 pay --target statemq.examples.order", "pay is a transition of order: statemq call order KEY pay"),
        ("get order -5", "A key that begins with - goes after --: statemq get ... -- -5"),
        ("send order -5 pay", "A key that begins with - goes after --: statemq send ... -- -5"),
        ("get order --namespace ns -5", "A key that begins with - goes after --: statemq get ... -- -5"),
        ("empty order a --yes", "No such option: --yes, and none is needed: statemq empty asks no questions. Help: statemq empty --help"),
        ("failed discard order --all -y", "none is needed: statemq failed discard asks no questions. Help"),
        ("empty order a --all", "No such option: --all. Help: statemq empty --help"),
        ("call order o-1 pay --cents=3", "Arguments are written cents=value, without dashes"),
        ("send order o-1 pay cents=1 --delay 5x", '"5x" is no duration; write 500ms, 30s, 5m, 2h or 1d'),
        ("get order o-1 --namespace a:b", '"a:b" is no namespace'),
        ("call order o-1 buy", 'order has no transition "buy"; it has: pay, ship'),
        ("call order o-1 pay cents=x", 'order.pay: cents is an integer, not "x"'),
        ("failed retry order", "name the failed commands (as failed list shows them), or say --all"),
        ("failed discard order 3/1-0 --all", "name the failed commands"),
        ("query order o-1 summary", "a query runs where the class is"),
        ("query order o-1 summary --target no.such.module", 'there is no module "no"'),
        ("query switch s flips --target statemq.examples.order", 'the target has no machine "switch"; it has: order'),
        ("graph statemq.examples.nothing", "there is no module"),
        ("get order \udcff", '"\\udcff" is not valid UTF-8'),
        ("history order --limit 0", "greater than or equal to 1"),
        ("worker no_such_module", 'there is no module "no_such_module"'),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_to_write(run: Run, words: str, said: str) -> None:
    assert run(*words.split()) == 2
    assert run.out == ""
    assert said in run.err


def test_a_group_without_a_command_shows_its_help(run: Run) -> None:
    assert run("failed") == 2
    assert "Usage: statemq failed" in run.out
    assert run.err == ""


def test_a_key_that_begins_with_a_dash_goes_after_two(run: Run) -> None:
    assert run("get", "order", "--", "-5", get=Instance("order", "-5", "NEW")) == 0
    assert run.out.startswith("order/-5\n")
    assert "no command has changed it yet" in run.out


def test_send_prints_the_id(run: Run) -> None:
    assert run("send", "order", "o-1", "ship", "address=Rue A=1", "--delay", "2m") == 0
    assert (run.out, run.err) == (f"{ID}\n", "")
    args, kwargs = run.client.was_asked("send")
    assert args == ("order", "o-1", "ship", {"address": "Rue A=1"})
    assert kwargs["delay"] == 120.0


def test_can_answers_by_its_exit_code_too(run: Run) -> None:
    assert run("can", "order", "o-1", "pay", "cents=1", can=Verdict(True, state="NEW")) == 0
    assert run.out.splitlines()[0] == "allowed"
    assert run("can", "order", "o-1", "ship", "address=x", can=Verdict(False, "it is NEW", "NEW", ["pay"], guards=False)) == 1
    assert run.out.splitlines() == ["refused", "  why    it is NEW", "  state  NEW", "allowed now: pay"]
    assert run.err == ""
    guarded = Order.spec.graph()
    guarded["transitions"][1]["guard"] = "only on Mondays"
    assert run("can", "order", "o-1", "ship", "address=x", graph=guarded, can=Verdict(True, guards=False)) == 0
    assert "guards were not asked" in run.err
    assert run("can", "order", "o-1", "pay", "--json", can=Verdict(False, "no")) == 1
    assert json.loads(run.out) == {
        "allowed": False,
        "reason": "no",
        "state": "",
        "transitions": [],
        "guards": True,
        "paused": "",
        "behind": "",
    }


def test_query_runs_with_the_class_of_the_target(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("query", "order", "o-1", "summary", "--target", "statemq.examples.order", query="o-1 is NEW") == 0
    assert run.out == '"o-1 is NEW"\n'
    assert run.client.was_asked("query")[0] == (Order, "o-1", "summary", {})
    assert run.opened[-1][2] == [Order]
    monkeypatch.setenv("STATEMQ_TARGET", "statemq.examples.order:Order")
    assert run("query", "order", "o-1", "summary", query={"a": 1}) == 0
    assert run.out == '{"a":1}\n'


def test_result_waits_as_call_does(run: Run) -> None:
    assert run("result", ID, "--timeout", "0", outcome=completed(b"3")) == 0
    assert run.out == "3\n"
    assert run.client.was_asked("outcome")[0] == (0.0,)
    assert run("result", ID, outcome=errors.Unknown("nothing is known of it", id=ID)) == 2
    assert run.err == "statemq: nothing is known of it\n"


def test_cancel_says_how_far_it_came(run: Run) -> None:
    assert run("cancel", ID, cancel="cancelled") == 0
    assert run.out == "cancelled\n"
    goes_on = "statemq: it has begun, and is being ended\n"
    halted = "statemq: order/o-1 is paused: it ends when that is resumed (statemq resume order o-1)\n"
    whole = "statemq: order is paused: it ends when that is resumed (statemq resume order)\n"
    for status, paused, said in (
        ("running", "", goes_on),
        ("waiting", "", goes_on),
        ("queued", "order/o-1", halted),
        ("waiting", "order", whole),
    ):
        assert run("cancel", ID, cancel="asked", show=CommandStatus(ID, status, "order", "o-1", "pay", paused=paused)) == 0
        assert (run.out, run.err) == ("asked\n", said)
    assert run("cancel", ID, cancel="asked", show=errors.Unknown("it has ended", id=ID)) == 0
    assert (run.out, run.err) == ("asked\n", "")
    assert run("cancel", ID, cancel="ended") == 1
    assert run.out == ""


@pytest.mark.parametrize(
    ("words", "answers", "text"),
    [
        ("machines", {"machines": [MachineInfo("order", 16, "NEW", ["NEW"], ["pay"], in_state={"NEW": 2, "PAID": 0})]}, "NEW=2"),
        ("list order --state NEW --older 1h", {"list": [Listed("o-1", "NEW", 1_700_000_000_000)]}, "2023-11-14T22:13:20.000Z"),
        ("queue order o-1", {"queue": [Queued(ID, "o-1", "pay", "queued", "stream", args={"cents": 1})]}, '{"cents":1}'),
        ("history order", {"history": [HistoryEntry("1-0", ID, "o-1", "pay", "completed", "NEW", "PAID", 1)]}, "NEW → PAID"),
        ("partitions order", {"partitions": [PartitionInfo(3, "w", lease_left_ms=-1500)]}, "1.5 s overdue"),
        ("workers", {"workers": [WorkerInfo("w", "host", 7, live=False, partitions=[0, 1, 2])]}, "0-2"),
        ("failed list order", {"failed": [DeadLetter("3/1-0", ID, "o-1", "pay", reason="boom", error="ValueError")]}, "ValueError: boom"),
    ],
)
def test_lists_are_tables_or_one_object_a_line(run: Run, words: str, answers: dict[str, Any], text: str) -> None:
    (records,) = answers.values()
    assert run(*words.split(), **answers) == 0
    title, row = run.out.splitlines()
    assert title == title.upper()
    assert text in row
    twice = dict.fromkeys(answers, records * 2)
    assert run(*words.split(), "--json", **twice) == 0
    lines = run.out.splitlines()
    assert len(lines) == 2
    assert set(json.loads(lines[0])) == set(records[0].__struct_fields__)
    assert run(*words.split(), **{name: [] for name in answers}) == 0
    assert run.out == ""
    assert run.err.startswith("statemq: ")


def test_list_passes_on_what_is_wanted(run: Run) -> None:
    assert run("list", "order", "--state", "NEW", "--older", "1h", "-n", "5", list=[]) == 0
    assert run.client.was_asked("list") == (("order",), {"state": "NEW", "older": 3600.0, "limit": 5})


def test_show_tells_the_whole_story(run: Run) -> None:
    status = CommandStatus(
        ID,
        "completed",
        "order",
        "o-1",
        "pay",
        args={"cents": 1},
        steps=[Step("charge", result="receipt", took_ms=5)],
        outcome=completed(b'"o-1 is paid"'),
    )
    assert run("show", ID, show=status) == 0
    assert run.out.splitlines()[0] == "order/o-1 pay: completed"
    assert '  result     "o-1 is paid"' in run.out
    assert '  ✓ charge  5 ms  "receipt"' in run.out
    assert run("show", ID, "--json", show=status) == 0
    assert json.loads(run.out)["outcome"]["result"] == "o-1 is paid"


def test_operators_verbs(run: Run) -> None:
    assert run("pause", "order", pause=None) == 0
    assert run.out == "order is paused\n"
    assert run("resume", "order", "o\x1b", resume=None) == 0
    assert run.out == "order/o\\x1b is resumed\n"
    assert run("failed", "retry", "order", "3/1-0", failed_retry=[ID]) == 0
    assert run.out == f"{ID}\n"
    assert run.client.was_asked("failed_retry")[0] == ("order", ["3/1-0"])
    cut = DeadLetter("3/1-0", ID, "o-1", "pay", unfit="its arguments were cut")
    assert run("failed", "retry", "order", "--all", failed_retry=[ID], failed=[cut, DeadLetter("3/2-0", ID, "o-1", "pay")]) == 0
    assert run.out == f"{ID}\n"
    assert run.err.splitlines() == ["statemq: 3/1-0 cannot be retried: its arguments were cut"]
    assert run("failed", "discard", "order", "--all", failed_discard=4) == 0
    assert run.out == "4\n"
    assert run.client.was_asked("failed_discard")[0] == ("order", None)


def test_a_traceback_of_a_dead_letter_is_harmless(run: Run) -> None:
    letter = DeadLetter("3/1-0", ID, "o-1", "pay", traceback='File "x"\n  boom \x1b[2J')
    assert run("failed", "list", "order", "--traceback", failed=[letter]) == 0
    assert run.out.splitlines()[-2:] == ['  File "x"', "    boom \\x1b[2J"]


def test_graph_of_code_and_of_a_declared_machine(run: Run) -> None:
    assert run("graph", "statemq.examples.order", "--format", "mermaid") == 0
    assert run.out.startswith("stateDiagram-v2\n")
    assert run("graph", "order", "--format", "json") == 0
    assert json.loads(run.out) == Order.spec.graph()
    assert run("graph", "nothing", graph=errors.UnknownMachine("nothing", "statemq", [])) == 2


def test_init_writes_a_machine_that_works_and_overwrites_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert run("init", "shop.py") == 0
    assert run.out == "shop.py\n"
    assert "statemq dev shop.py" in run.err
    assert "statemq dev shop.py" in Path("shop.py").read_text()
    assert importlib.import_module("shop").Order.spec.name == "order"
    assert run("init", "shop.py") == 2
    assert "shop.py is there already" in run.err
    assert run("init", "shop") == 2


def test_help_names_every_command_and_is_no_error(run: Run) -> None:
    assert run("--help") == 0
    everything = [
        "init",
        "worker",
        "serve",
        "call",
        "send",
        "can",
        "query",
        "machines",
        "get",
        "list",
        "queue",
        "history",
        "audit",
        "show",
        "result",
        "partitions",
        "workers",
        "graph",
    ]
    overview = run.out
    for name in [*everything, "cancel", "pause", "resume", "failed"]:
        assert name in overview
        assert run(name, "--help") == 0
        if name != "failed":
            assert "Example: statemq" in run.out
    assert run() == 0
    assert "Usage: statemq" in run.out
    assert run("--version") == 0
    assert run.out.startswith("statemq ")


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys, statemq.cli.app; print([m for m in ('redis', 'hiredis', 'rich', 'falcon', 'granian', 'uvloop') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", "import these inside commands: --help and completion stay quick"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_S", "SHOW_AFTER_S", "EXPECT_WORKER_S"):
        monkeypatch.setattr(follow, name, 0.001)


@pytest.mark.usefixtures("quick")
def test_waiting_without_a_worker_is_said_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    class Alone(FakeClient):
        async def live_workers(self, machine: str) -> int:
            nonlocal looked
            looked += 1
            return 0

    client = Alone(outcome=completed(b"1"), show=CommandStatus(ID, "queued", "order", "o-1", "pay"))
    client.until = lambda: _until(lambda: looked > 3)
    monkeypatch.setattr(connect, "open_client", lambda *args: client)
    assert main(["call", "order", "o-1", "pay", "cents=1"]) == 0
    out, err = run.capsys.readouterr()
    assert out == "1\n"
    assert err == "statemq: no live worker for order; waiting for one (statemq worker TARGET starts it)\n"


@pytest.mark.usefixtures("quick")
def test_without_a_terminal_each_thing_is_said_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    class Retried(FakeClient):
        async def show(self, id: str) -> CommandStatus:
            nonlocal looked
            looked += 1
            attempts = 1 + (looked > 6)
            return CommandStatus(ID, "waiting", "order", "o-1", "pay", attempts=attempts, error="ValueError: no\x1b[31m money")

        async def live_workers(self, machine: str) -> int:
            return looked % 2  # comes and goes

    client = Retried(outcome=completed(b"1"), machines=[])
    client.until = lambda: _until(lambda: looked > 12)
    monkeypatch.setattr(connect, "open_client", lambda *args: client)
    assert main(["call", "order", "o-1", "pay", "cents=1"]) == 0
    failed = "statemq: attempt {} failed: ValueError: no\\x1b[31m money"
    nobody = "statemq: no live worker for order; waiting for one (statemq worker TARGET starts it)"
    assert run.capsys.readouterr().err.splitlines() == [failed.format(1), nobody, failed.format(2)]


@pytest.mark.usefixtures("quick")
def test_on_a_terminal_progress_is_drawn_beside_the_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    story = [
        CommandStatus(ID, "queued", "order", "o-1", "pay", behind="slow, which runs"),
        CommandStatus(ID, "running", "order", "o-1", "pay", steps=[Step("charge", result="\x1b[2J[bold]", took_ms=3)]),
        CommandStatus(ID, "waiting", "order", "o-1", "pay", attempts=2, error="ValueError: boom", due=1),
    ]
    seen = 0

    class Telling(FakeClient):
        async def show(self, id: str) -> CommandStatus:
            nonlocal seen
            seen += 1
            return story[min(seen // 4, 2)]

    client = Telling(outcome=completed(b'"done"'))
    client.until = lambda: _until(lambda: seen > 20)
    monkeypatch.setattr(connect, "open_client", lambda *args: client)
    assert main(["call", "order", "o-1", "pay", "cents=1"]) == 0
    assert run.capsys.readouterr().out == '"done"\n'
    drawn = screen.getvalue()
    assert "waits behind slow, which runs" in drawn
    assert '✓ charge  3 ms  "\\u001b[2J[bold]"' in drawn
    assert "ValueError: boom" in drawn
    assert "order/o-1 pay: completed" in drawn


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_imports_are_not_taken_for_a_silent_redis(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the client's own imports take longer than the time after which a silent Redis is said."""

    class Connecting(FakeClient):
        async def __aenter__(self) -> FakeClient:
            await asyncio.sleep(0)
            return self

    def slow(*args: object) -> FakeClient:
        time.sleep(0.05)
        return Connecting(machines=[])

    monkeypatch.setattr(connect, "SILENT_S", 0.01)
    monkeypatch.setattr(connect, "open_client", slow)
    assert main(["machines"]) == 0
    assert "no answer" not in run.capsys.readouterr().err


def test_a_silent_redis_is_named_without_its_password(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def examine(*args: object, **kwargs: object) -> list[object]:
        await asyncio.sleep(0.2)
        return []

    monkeypatch.setattr("statemq.cli.check.SILENT_S", 0.01)
    monkeypatch.setattr("statemq.doctor.examine.examine", examine)
    for url in ("redis://127.0.0.1:1?password=s3cr3t-word", "redis://me:s3cr3t-word@127.0.0.1:1"):
        main(["doctor", "--redis", url])
        err = run.capsys.readouterr().err
        assert "no answer from Redis at 127.0.0.1:1 yet" in err.replace("redis://", "") and "s3cr3t" not in err


def test_of_a_long_story_the_screen_has_the_title_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    screen = follow._Screen(FakeClient(), ID)  # type: ignore[arg-type]
    steps = [Step(f"step {n}") for n in range(100)]
    retrying = [StepRetry("charge", 3, "ConnectionError: " + "no answer " * 6, 1_700_000_000_000)]
    status = CommandStatus(ID, "running", "order", "k" * 90, "pay", steps=steps, retrying=retrying)
    lines = screen.picture(status, 40, 24).plain.split("\n")
    assert len(lines) < 24
    assert all(len(line) <= 40 for line in lines)
    assert "".join(lines[:3]).startswith("order/" + "k" * 34)
    assert "pay: running" in " ".join(lines[:5])
    assert "  ✓ step 99" in lines
    assert "↻ charge has failed 3 times since 14 Nov 2023 22:13Z: ConnectionError:" in " ".join(line.strip() for line in lines)


def test_steps_that_are_tried_again_stand_in_queue_and_show_and_what_waits_says_behind_what(run: Run) -> None:
    step = StepRetry("charge", 3, "ConnectionError: no answer", 1_700_000_000_000, 1_700_000_009_000)
    assert run("queue", "order", queue=[Queued(ID, "o-1", "pay", "running", "stream", retrying=[step])]) == 0
    title, row = run.out.splitlines()
    assert title.split()[-4:] == ["TRIES", "SINCE", "STEP'S", "ERROR"]
    assert row.split()[-6:] == ["charge", "3", "2023-11-14T22:13:20.000Z", "ConnectionError:", "no", "answer"]
    assert run("queue", "order", "--json", queue=[Queued(ID, "o-1", "pay", "running", "stream", retrying=[step])]) == 0
    assert json.loads(run.out)["retrying"][0] == {
        "name": "charge",
        "tries": 3,
        "error": "ConnectionError: no answer",
        "since": "2023-11-14T22:13:20.000Z",
        "due": "2023-11-14T22:13:29.000Z",
    }
    assert run("show", ID, show=CommandStatus(ID, "running", "order", "o-1", "pay", retrying=[step])) == 0
    assert "  ↻ charge has failed 3 times since 14 Nov 2023 22:13Z: ConnectionError: no answer" in run.out
    assert run("show", ID, show=CommandStatus(ID, "queued", "order", "o-1", "pay", behind="slow, which runs")) == 0
    assert "  … waits behind slow, which runs" in run.out
    assert run("can", "order", "o-1", "pay", "cents=1", can=Verdict(True, behind="slow, which runs")) == 0
    assert run.err == "statemq: what is sent waits behind slow, which runs\n"
