"""When ``dev --crash`` kills, without killing anybody."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from statemq.errors import UsageError
from statemq.worker.crash import Crash, Plan, crash_from, probability
from tests.waiting import block_until

ROOT = Path(__file__).parents[2]


class Planned(Crash):
    """A crash whose dice have fallen, and that counts instead of killing."""

    def __init__(self, plan: Plan | None) -> None:
        self.kills = 0
        self.fixed = plan
        super().__init__(1.0, kill=self.count)

    def plan(self, command_id: str, crashes: int) -> Plan | None:
        return self.fixed

    def count(self) -> None:
        self.kills += 1


def test_it_hits_that_share_of_the_attempts() -> None:
    crash = Crash(0.4, dice=random.Random(7))
    hit = sum(crash.plan("c", 0) is not None for _ in range(10_000))
    assert 3_700 < hit < 4_300


def test_a_command_that_crashed_twice_is_left_alone() -> None:
    crash = Crash(1.0)
    assert crash.plan("c", 1)
    assert crash.plan("c", 2) is None


def test_nothing_is_hit_without_a_plan() -> None:
    crash = Planned(None)
    crash.started("c", 0)
    crash.passed("c")
    crash.ending("c")
    assert crash.kills == 0


def test_at_the_start() -> None:
    crash = Planned(Plan(0, 0.0))
    crash.started("c", 0)
    assert crash.kills == 1


def test_after_the_planned_number_of_points() -> None:
    crash = Planned(Plan(2, 0.0))
    crash.started("c", 0)
    crash.passed("c")
    crash.passed("another")
    assert crash.kills == 0
    crash.passed("c")
    assert crash.kills == 1
    crash.ending("c")
    assert crash.kills == 1


def test_some_time_after_a_point_whatever_the_loop_does() -> None:
    crash = Planned(Plan(1, 0.01))
    crash.started("c", 0)
    crash.passed("c")
    crash.passed("c")
    block_until(lambda: crash.kills == 1)


def test_an_attempt_with_fewer_points_is_hit_before_its_commit() -> None:
    crash = Planned(Plan(3, 0.0))
    crash.started("c", 0)
    crash.ending("c")
    assert crash.kills == 1


def test_a_dropped_attempt_is_forgotten() -> None:
    crash = Planned(Plan(0, 60.0))
    crash.started("c", 0)
    fuse = crash._fuses["c"]
    crash.dropped("c")
    assert fuse.finished.is_set()
    crash.ending("c")
    assert crash.kills == 0


def test_it_is_a_real_kill_and_says_so() -> None:
    code = (
        "from statemq.worker.crash import Crash\n"
        "crash = Crash(1.0)\n"
        "crash.started('resource.7.x', 0, 'resource/a setUp')\n"
        "crash.ending('resource.7.x')\n"
        "print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9
    assert done.stdout == ""
    assert "in the middle of resource/a setUp (--crash)" in done.stderr


def test_the_variable() -> None:
    assert crash_from({}) is None
    asked = crash_from({"STATEMQ_CRASH": "0.4"})
    assert asked and asked.probability == 0.4


@pytest.mark.parametrize("said", ["", "often", "1.1", "-0.1", "nan"])
def test_what_is_no_probability(said: str) -> None:
    with pytest.raises(UsageError, match="is no probability for --crash"):
        probability(said)
