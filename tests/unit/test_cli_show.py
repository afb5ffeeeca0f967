"""Answers: harmless on a terminal, the same JSON for programs, times as RFC 3339."""

from __future__ import annotations

import json
import sys

import msgspec
import pytest

from statemq.cli import draw, show
from statemq.cli.escape import clean, json_text
from statemq.cli.see import ranges
from statemq.cli.status import headline, progress
from statemq.codec import duration_text
from statemq.examples.order import Order
from statemq.examples.switch import Switch
from statemq.records import CommandStatus, Instance, Outcome, Queued, Step

NASTY = "a\x1b[31m\x00\x7f\x9b\r\n\t\u202e\u2028\ud800[bold]é日"
HARMLESS = "a\\x1b[31m\\x00\\x7f\\x9b\\r\\n\\t\\u202e\\u2028\\ud800[bold]é日"


class Terminal:
    """A stdout that says it is one."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_text_of_users_cannot_steer_the_terminal() -> None:
    assert clean(NASTY) == HARMLESS


def test_json_is_harmless_and_means_the_same() -> None:
    value = {"k\x9b": "\x1b[31m\u202e\x7fé"}
    text = json_text(value)
    assert text.isprintable()
    assert json.loads(text) == value


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_shows_text_as_it_is(terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Terminal()
    if terminal:
        monkeypatch.setattr(sys, "stdout", shown)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
    columns: show.Columns[Queued] = {"KEY": lambda q: q.key, "STATUS": lambda q: q.status}
    show.rows([Queued("i", NASTY, "t", "queued", "stream")], columns, False, "none")
    text = shown.text if terminal else capsys.readouterr().out
    assert HARMLESS in text
    assert "\x9b" not in text


def test_nothing_to_show_is_said_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    show.rows([], {}, False, "nothing waits")
    assert capsys.readouterr() == ("", "statemq: nothing waits\n")
    show.rows([], {}, True, "nothing waits")
    assert capsys.readouterr() == ("", "")


def test_columns_line_up_as_wide_as_a_terminal_shows_them() -> None:
    assert show.align([["A", "B"], ["日本", "x"], ["b", ""]]) == ["A     B", "日本  x", "b"]


def test_records_become_json_with_every_field_and_times_in_words() -> None:
    status = CommandStatus(
        "resource.7.x",
        "completed",
        due=1_700_000_000_123,
        steps=[Step("allocate", result={"at": 5}, at=1_700_000_000_000)],
        outcome=Outcome("resource.7.x", "completed", result=msgspec.Raw(b'{"at":1}'), at=0),
    )
    read = json.loads(json_text(show.plain(status)))
    assert read["due"] == "2023-11-14T22:13:20.123Z"
    assert read["steps"][0]["at"] == "2023-11-14T22:13:20.000Z"
    assert read["steps"][0]["result"] == {"at": 5}  # the user's own data is not touched
    assert read["outcome"]["result"] == {"at": 1}
    assert read["outcome"]["at"] is None
    assert read["worker"] == ""
    assert json.loads(json_text(show.plain(Instance("m", "k", "S", data={"due": 3}))))["data"] == {"due": 3}


def test_progress_of_a_command_that_is_retried() -> None:
    status = CommandStatus(
        "resource.7.x",
        "waiting",
        machine="resource",
        key="a",
        transition="setUp",
        attempts=2,
        error="RuntimeError: A failure\nhappened!",
        due=5_000,
        steps=[Step("allocate", result="10.0.0.1", took_ms=12), Step("boot", error="Fail: no", took_ms=1200)],
    )
    assert headline(status) == "resource/a setUp: waiting"
    assert progress(status, 4_000) == [
        '✓ allocate  12 ms  "10.0.0.1"',
        "✗ boot      1.2 s  Fail: no",
        "↻ attempt 2 failed: RuntimeError: A failure\\nhappened!",
        "… tries again in 1 s",
    ]


def test_a_sleep_that_is_under_way_is_not_ticked_off() -> None:
    status = CommandStatus("m.0.x", "running", steps=[Step("pack"), Step("sleep@1")])
    assert progress(status, 0) == ["✓ pack", "… sleep"]
    assert progress(msgspec.structs.replace(status, status="completed"), 0) == ["✓ pack", "✓ sleep"]


def test_durations_and_ranges_are_short() -> None:
    assert [duration_text(ms) for ms in (0, 999, 1234, 125_000, 120_000, 90_000_000)] == ["0 ms", "999 ms", "1.2 s", "2m 5s", "2m", "1d 1h"]
    assert duration_text(3_600_000) == "1h"
    assert ranges([5, 0, 1, 2, 7, 8]) == "0-2 5 7-8"
    assert ranges([]) == ""


def test_drawings_of_a_machine() -> None:
    drawn = draw.text(Order.spec.graph())
    assert "│ NEW │  initial" in drawn
    assert " └─ pay ──▶ PAID" in drawn
    assert "│ SHIPPED │  final" in drawn
    assert "steps ──↺ stays" in draw.text(Switch.spec.graph())
    assert draw.mermaid(Order.spec.graph()).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> NEW",
        "    NEW --> PAID : pay",
        "    PAID --> SHIPPED : ship",
        "    SHIPPED --> [*]",
    ]
    assert '    "PAID" -> "SHIPPED" [label="ship"];' in draw.dot(Order.spec.graph())


def test_a_guard_in_a_drawing_cannot_break_it() -> None:
    graph = {
        "name": "m",
        "initial": "A",
        "final": [],
        "states": ["A"],
        "transitions": [{"name": "go", "source": ["A"], "target": ["A"], "guard": 'a "b"; c: \x1bd\\'}],
    }
    assert draw.mermaid(graph).splitlines()[2] == '    A --> A : go [a "b"#59; c#58; \\x1bd\\]'
    assert '[label="go [a \\"b\\"; c: \\\\x1bd\\\\]"]' in draw.dot(graph)
    assert "\x1b" not in draw.text(graph)
    assert "│ A │  initial, legacy" in draw.text({**graph, "legacy": ["A"]})
