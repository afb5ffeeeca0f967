"""``statemq dev`` where something is odd: what it says of what runs is so, and Ctrl-C ends it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.test_dev import LAMP, Dev, descendants, folder, gone, start  # noqa: F401 - fixtures
from tests.waiting import block_until

Start = Callable[..., Dev]

HELD_UP = """
import pathlib, sys, time
while "statemq.cli.dev_target" not in " ".join(sys.orig_argv) and not pathlib.Path("go").exists():
    time.sleep(0.02)
"""
"""Its check passes at once; who shall run it does not come so far yet."""


def worker_of(dev: Dev) -> int:
    (pid,) = (pid for pid in descendants(dev.process.pid) if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    return pid


def test_a_bad_save_before_the_children_are_back_leaves_nothing_that_runs(start: Start, folder: Path) -> None:  # noqa: F811
    lamp = folder / "lamp.py"
    lamp.write_text(LAMP)
    dev = start("lamp.py").ready()
    lamp.write_text(LAMP + HELD_UP)
    dev.until_said(r"lamp\.py saved; restarting")
    lamp.write_text(LAMP + "\nundefined_name\n")
    dev.until_said(r"lamp\.py saved, but it cannot be used; nothing runs until it can\n.*undefined_name")
    assert "the former code goes on" not in dev.text
    lamp.write_text(LAMP.replace("bright", "very bright indeed"))
    dev.until_said(r"statemq: restarted")
    assert dev.post("/lamp/a/turn_on") == "very bright indeed"


@pytest.mark.skipif(sys.platform != "linux", reason="the worker is found in /proc")
def test_a_worker_that_dies_while_the_file_is_away_comes_back_with_it(start: Start, folder: Path) -> None:  # noqa: F811
    lamp = folder / "lamp.py"
    lamp.write_text(LAMP)
    dev = start("lamp.py").ready()
    lamp.rename(folder / "away")
    dev.until_said(r"lamp\.py saved, but it cannot be used; the former code goes on\n.*there is no file lamp\.py")
    os.kill(worker_of(dev), signal.SIGKILL)
    dev.until_said(r"ended with SIGKILL after .*; it starts again once the code can be used")
    (folder / "away").rename(lamp)
    dev.until_said(r"statemq: restarted")
    assert dev.post("/lamp/a/turn_on") == "bright"


def test_a_child_that_was_given_up_is_tried_again_without_a_save(start: Start, folder: Path) -> None:  # noqa: F811
    """It may have met what nobody saw: a file that was away for less than a look."""
    lamp = folder / "lamp.py"
    lamp.write_text(LAMP)
    dev = start("lamp.py").ready()
    once = "\nimport pathlib, sys\nif 'worker' in sys.orig_argv and not pathlib.Path('met').exists():\n"
    lamp.write_text(LAMP + once + "    pathlib.Path('met').touch()\n    sys.exit(2)\n")
    dev.until_said(r"worker .* ended with exit code 2 .*starting it again would not help")
    dev.until_said(r"the code can be used; starting again")
    dev.until_said(r"statemq: restarted")
    assert dev.post("/lamp/a/turn_on") == "bright"


@pytest.fixture
def small(folder: Path) -> Iterator[Path]:  # noqa: F811
    """A file system of 3 MB for the data of `dev`."""
    disk = folder / "disk"
    disk.mkdir()
    said = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if said.returncode:
        pytest.skip(f"no file system can be mounted here: {said.stderr.strip()}")
    yield disk
    block_until(lambda: subprocess.run(["umount", str(disk)], capture_output=True, check=False).returncode == 0, 30)


def test_a_full_file_system_is_said_and_does_not_hold_up_the_end(small: Path, start: Start, folder: Path) -> None:  # noqa: F811
    (folder / "lamp.py").write_text(LAMP)
    dev = start("lamp.py", "--data", "disk/data").ready()
    with (small / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
        while True:
            ballast.write(b"x" * 512)
    dev.until_said(r"statemq: Redis cannot write to .*/disk/data/redis \(the file system is full\), so no command runs; make room there")
    (small / "ballast").unlink()
    dev.until_said("statemq: Redis writes again, and what waited continues")
    assert dev.post("/lamp/a/turn_on") == "bright"
    with (small / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
        while True:
            ballast.write(b"x" * 512)
    dev.until_said(r"Redis cannot write to ", times=2)
    family = dev.family()
    dev.process.send_signal(signal.SIGINT)
    assert dev.process.wait(60) == 130
    block_until(lambda: all(gone(pid) for pid in family), 30)
    assert "Traceback" not in dev.text


def one_sentence(dev: Dev, sentence: str) -> None:
    assert dev.process.wait(60) == 2, dev.text
    dev._reader.join(30)
    (said,) = dev.lines
    assert re.fullmatch(f"statemq: {sentence}", said), dev.text


def test_what_stands_in_the_way_of_the_data_is_one_sentence(start: Start, folder: Path) -> None:  # noqa: F811
    (folder / "lamp.py").write_text(LAMP)
    data = folder / ".statemq"
    data.symlink_to(folder / "below")
    one_sentence(start("lamp.py"), r".*/\.statemq is a link; name the folder that it leads to with --data, or remove it")
    data.unlink()
    for name in ("dev.lock", "port", "password"):
        (data / name).mkdir(parents=True)
        one_sentence(start("lamp.py"), rf".*/\.statemq.*{name}.*: Is a directory.*")
        shutil.rmtree(data)
    data.mkdir()
    (data / "port").write_text("99999999")
    start("lamp.py").ready()
