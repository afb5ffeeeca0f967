"""Which tests run, and in how many processes: what `bin/test` asks for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScheduling
from xdist.workermanage import WorkerController

PROCESSES_A_CORE = 3
"""Tests mostly wait."""

QUICK = ("unit", "house", "tour", "integration/races")
"""Folders whose tests take a moment each."""

TOGETHER = ("tests/security/", "tests/integration/test_http.py")
"""Folders, and files, of which a file runs in one process: its tests share a serving process, which takes longer to start than they do."""

MEASURED = "measured"
"""The property of a test that holds a line for the end of the run."""

TESTS = Path(__file__).parent


def processes(config: pytest.Config) -> int:
    """How many are worth their start; 0 is this one alone: for a few tests, and for who wants to watch one or step into it."""
    option = config.option
    few = option.keyword or option.lf or not all(Path(word).is_dir() for word in config.args)
    return 0 if few or option.capture == "no" else PROCESSES_A_CORE * cores()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Spread(LoadScheduling):
    """Gives each process the next test and the one behind it, so that none is left with a queue at the end; of a file that stays together,
    all that follows."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        self.maxschedchunk = 1

    def check_schedule(self, node: WorkerController, duration: float = 0) -> None:
        if node.shutting_down:
            return
        if not self.pending:
            node.shutdown()
        elif len(self.node2pending[node]) < 2:
            self._send_tests(node, 1)

    def _send_tests(self, node: WorkerController, num: int) -> None:
        while 0 < num < len(self.pending) and (file := self._file(num - 1)).startswith(TOGETHER) and file == self._file(num):
            num += 1
        super()._send_tests(node, num)

    def _file(self, place: int) -> str:
        assert self.collection is not None
        return self.collection[self.pending[place]].partition("::")[0]


def is_quick(item: pytest.Item) -> bool:
    return any(item.path.is_relative_to(TESTS / folder) for folder in QUICK) or item.get_closest_marker("quick") is not None


def holds_quick(file: Path) -> bool:
    """Whether one of the file's tests may be quick; to import the others takes longer than the quick ones run."""
    return any(file.is_relative_to(TESTS / folder) for folder in QUICK) or "mark.quick" in file.read_text()


def measured(reporter: pytest.TerminalReporter) -> list[str]:
    """What the tests measured, from whichever process ran them."""
    reports = [report for kind in ("passed", "failed") for report in reporter.getreports(kind) if report.when == "call"]
    return [str(value) for report in reports for name, value in report.user_properties if name == MEASURED]
