"""Lines that fit the terminal: prose is folded, ids and headers are whole, and a command to copy is the same command on several lines."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from statemq.cli import ends, show
from statemq.cli.fold import Line, fold, hanging, in_colour, room
from statemq.records import HistoryEntry, Listed, PartitionInfo

ID = "order.3.01930c2e5b7a7c3e8f6a2b4c6d8e0f12"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(records: list[object], columns: show.Columns[object], monkeypatch: pytest.MonkeyPatch, wide: int = 80) -> list[str]:
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", str(wide))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", terminal)
    show.rows(records, columns, False, "none")
    return terminal.getvalue().splitlines()


def test_prose_is_broken_between_words_and_within_one_only_if_it_alone_is_wider() -> None:
    assert fold("one two three", 7) == ["one two", "three"]
    assert fold("an abcdefgh", 4) == ["an", "abcd", "efgh"]
    assert fold("日本語 日本", 6) == ["日本語", "日本"]
    assert fold("  kept", 20) == ["  kept"]
    assert fold("", 20) == [""]
    assert fold("a\x1bb", 20) == ["a\\x1bb"]
    assert hanging("  why  ", "a b " * 20, 40)[1].startswith("       b a")


@pytest.mark.parametrize("key", ["plain", "a b", "k" * 300, "it's " * 40, "日本語" * 60, "a\x1b\n" * 60, "\\" * 90, "--", "end\n"])
def test_a_command_to_copy_is_the_same_command_on_several_lines(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    line = ends.to_copy("resume", "order", key)
    ends.say(f"order/k is paused: it ends when that is resumed ({line})", line)
    lines = terminal.getvalue().splitlines()
    first = next(number for number, text in enumerate(lines) if text.lstrip().startswith("statemq resume"))
    assert all(text == "" or len(text) <= 40 for text in lines)
    script = "statemq() { printf '%s\\0' \"$@\"; }\n" + "\n".join(lines[first:])
    told = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode()
    assert tuple(told.split("\0")[:-1]) == line.words[1:]


def test_where_no_terminal_reads_lines_are_as_long_as_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert room(sys.stdout) is None
    ends.say("word " * 40 + "end")
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert room(Terminal()) == 80  # it does not say how wide it is
    monkeypatch.setenv("COLUMNS", "5")
    assert room(Terminal()) == 20


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert in_colour(Terminal())
    assert not in_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not in_colour(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not in_colour(Terminal())


def test_what_does_not_fit_into_a_table_stands_below_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    columns: show.Columns[object] = {
        "AT": lambda h: show.when(h.at),  # type: ignore[attr-defined]
        "KEY": lambda h: h.key,  # type: ignore[attr-defined]
        "OUTCOME": lambda h: h.outcome,  # type: ignore[attr-defined]
        "REASON": lambda h: h.reason,  # type: ignore[attr-defined]
        "ID": lambda h: h.id,  # type: ignore[attr-defined]
    }
    entry = HistoryEntry("1-0", ID, "o-1", "pay", "failed", reason="no money " * 10, at=1_700_000_000_000)
    plain = HistoryEntry("2-0", ID, "o-22", "pay", "completed", at=1_700_000_000_000)
    assert printed([entry, plain], columns, monkeypatch) == [
        "AT                  KEY   OUTCOME",
        "14 Nov 2023 22:13Z  o-1   failed",
        "  reason no money no money no money no money no money no money no money no money",
        "         no money no money ",
        f"  id {ID}",
        "14 Nov 2023 22:13Z  o-22  completed",
        f"  id {ID}",
    ]
    assert len(printed([plain], columns, monkeypatch, wide=200)) == 2


def test_a_first_column_that_does_not_fit_is_the_title_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    columns: show.Columns[object] = {"KEY": lambda i: i.key, "STATE": lambda i: i.state, "": lambda i: "paused" if i.paused else ""}  # type: ignore[attr-defined]
    lines = printed([Listed("k" * 100, "UP", 0, paused=True), Listed("a", "DOWN", 0)], columns, monkeypatch)
    assert lines == ["k" * 80, "k" * 20, "  state UP  paused", "", "a", "  state DOWN"]


def test_columns_in_which_nothing_stands_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    columns: show.Columns[object] = {"NUMBER": lambda p: str(p.number), "OWNER": lambda p: p.owner, "READY": lambda p: str(p.ready)}  # type: ignore[attr-defined]
    assert printed([PartitionInfo(3)], columns, monkeypatch) == ["NUMBER  READY", "3       0"]


def test_a_line_is_its_words() -> None:
    line = Line("statemq", "get", "a b")
    assert (line, line.words) == ("statemq get 'a b'", ("statemq", "get", "a b"))
