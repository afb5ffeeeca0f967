"""Whether a process of this host has ended: surely, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from statemq.worker.process import has_ended, own_name
from tests.waiting import block_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart by /proc")


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process, and its name as it says it."""
    code = "from statemq.worker.process import own_name; print(own_name(), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_one_that_runs_or_stands_still_has_not_ended(child: tuple[subprocess.Popen[str], str]) -> None:
    process, name = child
    assert not has_ended(name)
    assert not has_ended(own_name())
    process.send_signal(signal.SIGSTOP)
    assert not has_ended(name)


def test_one_that_was_killed_has_ended_also_while_nobody_has_waited_for_it(child: tuple[subprocess.Popen[str], str]) -> None:
    process, name = child
    process.kill()
    block_until(lambda: has_ended(name))
    process.wait()
    assert has_ended(name)


def test_another_with_its_pid_is_not_it() -> None:
    host, boot, space, pid, started = own_name().split(" ")
    assert has_ended(f"{host} {boot} {space} {pid} {int(started) - 1}")


def test_of_other_hosts_and_of_garbage_nothing_is_known() -> None:
    host, boot, space, _, started = own_name().split(" ")
    gone = str(2**22 + 1)  # beyond every pid
    assert has_ended(f"{host} {boot} {space} {gone} {started}")
    for name in (
        f"elsewhere {boot} {space} {gone} {started}",
        f"{host} another-boot {space} {gone} {started}",
        f"{host} {boot} pid:[1] {gone} {started}",
        f"{host} {boot} {space} -1 {started}",
        f"{host} {boot} {space} 0 {started}",
        f"{host} {boot} {space} {'9' * 5000} {started}",
        f"{host} {boot} {space} {gone}",
        "",
        "x y",
    ):
        assert not has_ended(name)


def test_one_that_may_not_be_looked_at_is_not_taken_for_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's, whose /proc is hidden too."""

    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    host, boot, space, _, started = own_name().split(" ")
    assert not has_ended(f"{host} {boot} {space} {2**22 + 1} {started}")


def test_where_processes_have_no_names_nobody_is_taken_for_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    name = own_name()
    monkeypatch.setattr("statemq.worker.process._PROC", Path("/nowhere"))
    assert own_name() == ""
    assert not has_ended("")
    assert not has_ended(name)
