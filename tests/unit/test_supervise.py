"""Real child processes, really killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from statemq.worker import supervise
from statemq.worker.supervise import Child, Supervisor, backoff_s, ending
from tests.waiting import block_until

ROOT = Path(__file__).parents[2]
SLEEPER = "import signal; signal.pause()"
DEAF = "import signal, pathlib, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path(sys.argv[1]).touch(); signal.pause()"


def python(code: str, *args: object) -> list[str]:
    return [sys.executable, "-c", code, *(str(arg) for arg in args)]


class Watched:
    """A supervisor, what it said, and its end."""

    def __init__(self, *children: Child, grace_s: float = 10.0) -> None:
        self.said: list[str] = []
        self.supervisor = Supervisor(children, say=self.said.append, grace_s=grace_s)

    def until(self, condition: object) -> None:
        def look() -> bool:
            self.supervisor.tick()
            return bool(condition())  # type: ignore[operator]

        block_until(look)


@pytest.fixture
def watch() -> Iterator[type[Watched]]:
    made: list[Watched] = []

    class Ended(Watched):
        def __init__(self, *children: Child, grace_s: float = 10.0) -> None:
            super().__init__(*children, grace_s=grace_s)
            made.append(self)

    yield Ended
    for watched in made:
        watched.supervisor.kill()


def test_a_killed_child_is_started_again_and_said(watch: type[Watched]) -> None:
    child = Child("worker", python(SLEEPER))
    watched = watch(child)
    watched.supervisor.start()
    first = child.pid
    assert first
    os.kill(first, signal.SIGKILL)
    watched.until(lambda: child.pid not in (None, first))
    assert len(watched.said) == 1
    assert watched.said[0].startswith(f"worker (process {first}) ended with SIGKILL after ")
    assert "starting it again in 0." in watched.said[0]


def test_an_exit_code_is_said_and_the_waits_grow(watch: type[Watched]) -> None:
    child = Child("worker", python("raise SystemExit(7)"))
    watched = watch(child)
    watched.supervisor.start()
    watched.until(lambda: child.deaths == 3)
    assert all("ended with exit code 7" in line for line in watched.said)


def test_a_settled_life_begins_the_waits_anew(watch: type[Watched], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "SETTLED_S", 0.0)
    child = Child("worker", python("raise SystemExit(7)"))
    watched = watch(child)
    watched.supervisor.start()
    watched.until(lambda: len(watched.said) == 3)
    assert child.deaths == 1


def test_wrong_usage_is_not_repeated_until_a_restart(watch: type[Watched]) -> None:
    child = Child("worker", python("raise SystemExit(2)"))
    watched = watch(child)
    watched.supervisor.start()
    watched.until(lambda: watched.supervisor.gave_up == 2)
    assert not watched.supervisor.running
    assert "starting it again would not help" in watched.said[0]
    watched.supervisor.restart()
    assert watched.supervisor.gave_up is None
    watched.until(lambda: len(watched.said) == 2)


SERVES = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from statemq.worker.supervise import say_serving; say_serving(); "
"""What a process says once it serves."""


def test_who_has_served_is_started_again_however_it_ended(watch: type[Watched]) -> None:
    """A command can end its process with any code."""
    child = Child("worker", python(SERVES + "raise SystemExit(2)"))
    watched = watch(child)
    watched.supervisor.start()
    watched.until(lambda: len(watched.said) == 2)
    assert watched.supervisor.gave_up is None
    assert all("ended with exit code 2" in line and "starting it again in " in line for line in watched.said)


STUMBLES = "import pathlib, signal\nif pathlib.Path(sys.argv[1]).exists(): raise SystemExit(2)\n"
"""Its source is half written as long as that file is there."""


def test_who_stumbles_is_tried_again_since_its_peers_serve(watch: type[Watched], tmp_path: Path) -> None:
    """Both have served; one dies, and its source is half written. It is tried again with growing pauses, and the other runs on."""
    half = tmp_path / "half"
    code = python("import sys\n" + STUMBLES + SERVES + "\nsignal.pause()", half)
    one, other = Child("worker 1", code), Child("worker 2", code)
    watched = watch(one, other)
    watched.supervisor.start()
    watched.until(lambda: one.served and other.served)
    half.touch()
    runs_on, first = other.pid, one.pid
    assert first
    os.kill(first, signal.SIGKILL)
    watched.until(lambda: sum("exit code 2" in line for line in watched.said) >= 2)
    assert watched.supervisor.gave_up is None
    half.unlink()
    watched.until(lambda: one.process is not None and one.process.poll() is None and one.start_at_s is None and one.deaths >= 2)
    assert other.pid == runs_on


def test_who_stumbles_at_the_start_waits_for_its_peers_verdict(watch: type[Watched], tmp_path: Path) -> None:
    """Whether it is wrong usage is known when none of them serves."""
    half, go = tmp_path / "half", tmp_path / "go"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n"
    code = "import sys, os, pathlib\nfirst = pathlib.Path(sys.argv[1] + '.first')\ntry: os.close(os.open(first, os.O_CREAT | os.O_EXCL))\n"
    code += "except FileExistsError:\n" + "".join(f"    {line}\n" for line in waits.splitlines()) + "else: raise SystemExit(2)\n"
    one, other = (Child(f"worker {n}", python(code + SERVES + "\nimport signal; signal.pause()", half)) for n in (1, 2))
    watched = watch(one, other)
    watched.supervisor.start()
    watched.until(lambda: any(child.hopeless == 2 for child in (one, other)))
    assert watched.supervisor.gave_up is None
    go.touch()
    watched.until(lambda: one.hopeless is None and other.hopeless is None and one.pid and other.pid)
    assert watched.supervisor.gave_up is None


def test_all_of_them_hopeless_are_given_up(watch: type[Watched]) -> None:
    watched = watch(*(Child(f"worker {n}", python("raise SystemExit(2)")) for n in range(3)))
    watched.supervisor.start()
    watched.until(lambda: watched.supervisor.gave_up == 2)
    assert len(watched.said) == 3


def test_a_restart_ends_in_good_order_and_is_no_death(watch: type[Watched]) -> None:
    child = Child("worker", python(SLEEPER))
    watched = watch(child)
    watched.supervisor.start()
    first = child.pid
    watched.supervisor.restart()
    watched.until(lambda: child.pid not in (None, first))
    assert watched.said == []
    assert not watched.supervisor.killed


def test_a_deaf_child_is_killed_after_the_grace(watch: type[Watched], tmp_path: Path) -> None:
    child = Child("worker", python(DEAF, tmp_path / "ready"))
    watched = watch(child, grace_s=0.05)
    watched.supervisor.start()
    watched.until(lambda: (tmp_path / "ready").exists())
    watched.supervisor.stop()
    watched.until(lambda: not watched.supervisor.running)
    assert watched.supervisor.killed
    assert "did not end within 0.05 s; killing it" in watched.said[0]


def test_what_a_dead_child_left_running_ends_too(watch: type[Watched], tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, pathlib, signal\n"
        f"grandchild = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "path.with_suffix('.new').write_text(str(grandchild.pid))\n"
        "path.with_suffix('.new').rename(path)\n"
        "signal.pause()\n"
    )
    child = Child("worker", python(code, tmp_path / "pid"))
    watched = watch(child)
    watched.supervisor.start()
    watched.until(lambda: (tmp_path / "pid").exists())
    grandchild = int((tmp_path / "pid").read_text())
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    watched.until(lambda: gone(grandchild))


def test_a_program_that_is_not_there_is_tried_again(watch: type[Watched], tmp_path: Path) -> None:
    child = Child("worker", [str(tmp_path / "none")])
    watched = watch(child)
    watched.supervisor.start()
    assert watched.said[0].startswith("worker cannot be started (No such file or directory); starting it again in ")
    assert child.start_at_s is not None


PARENT = """
import sys
from statemq.worker.supervise import Child, supervise
def say(line):
    print(line, flush=True)
children = [Child(f"child {n}", [sys.executable, "-u", "-c", sys.argv[1]]) for n in range(2)]
sys.exit(supervise(children, say=say))
"""
TELLS = "import os, signal; os.write(1, b'%d\\n' % os.getpid()); signal.pause()"  # at once: two write to one pipe
TELLS_AND_IS_DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {TELLS}"


class Parent:
    """A process that runs ``supervise`` over two children, which have said their ids."""

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(python(PARENT, code), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.pids = [int(self.process.stdout.readline()) for _ in range(2)]

    def __enter__(self) -> Parent:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        for pid in self.pids:  # a deaf one would outlive a test that failed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def all_gone(self) -> bool:
        return all(gone(pid) for pid in self.pids)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 0)])
def test_a_signal_passes_on_and_its_exit_code_follows(number: signal.Signals, code: int) -> None:
    with Parent(TELLS) as parent:
        parent.process.send_signal(number)
        assert parent.process.wait(10) == code
        assert parent.all_gone()


def test_a_second_signal_ends_at_once() -> None:
    with Parent(TELLS_AND_IS_DEAF) as parent:
        parent.process.send_signal(signal.SIGTERM)
        parent.process.send_signal(signal.SIGINT)  # another number: two of the same may become one
        assert parent.process.wait(10) in (1, 130)  # the kernel delivers the lower number first
        assert parent.all_gone()


def test_a_hopeless_child_ends_all() -> None:
    done = subprocess.run(python(PARENT, "raise SystemExit(2)"), cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "ended with exit code 2" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_children_end_with_a_killed_parent() -> None:
    with Parent(TELLS) as parent:
        parent.process.kill()
        block_until(parent.all_gone)


def test_backoff_doubles_within_its_limits() -> None:
    assert [backoff_s(deaths, 1.0) for deaths in (1, 2, 3, 6, 7, 1000)] == [0.1, 0.2, 0.4, 3.2, 5.0, 5.0]
    assert backoff_s(1, 0.0) == 0.05


@pytest.mark.parametrize(("code", "said"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-63, "signal 63")])
def test_endings_are_named(code: int, said: str) -> None:
    assert ending(code) == said


def gone(pid: int) -> bool:
    """No process of that id runs; one nobody has waited for does not run either."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" in status.read_text()
    except FileNotFoundError:
        return status.parent.parent.exists()
