"""Child processes that are kept alive: what dies starts again, what is asked to end ends, nothing outlives its parent.

``supervise`` is all that ``statemq worker --processes`` needs. ``statemq dev`` has more to look at in its loop and
drives a ``Supervisor`` itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from statemq.worker.signals import Signals

GRACE_S = 12.0
"""How long a child that was asked to end may take; a worker's own grace is 10 s."""

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
SETTLED_S = 10.0
"""A child that has lived so long died of something new: the waiting begins anew."""

HOPELESS = frozenset({2})
"""Exit codes that the next start would only repeat, if no process has served by this command line: wrong usage."""

SERVES_FD = "STATEMQ_SERVES_FD"
"""Environment of a child: where it says that it serves."""

LOOK_S = 0.5
"""How often it is looked whether one serves, while another waits for that."""

PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


class Child:
    """A process to keep running: its name in the log, and how to start it.

    ``on_parent_death`` is the signal that the kernel (Linux) sends it when the supervisor dies. It leads a process group of
    its own, so that Ctrl-C in a terminal reaches it only by way of the supervisor.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        on_parent_death: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name, self.argv, self.env, self.on_parent_death = name, list(argv), env, on_parent_death
        self.process: subprocess.Popen[bytes] | None = None
        self.deaths = 0
        """In a row, without a settled life between them."""
        self.started_s = 0.0
        self.start_at_s: float | None = None
        """When it starts (again); None when it shall not."""
        self.kill_at_s: float | None = None
        """Set once it was asked to end."""
        self.hopeless: int | None = None
        """The exit code that it would have again, as far as known."""
        self.served = False
        """It, or a process before it, has served by this command line."""
        self.serving = False
        """Its present process has said so."""
        self._says: int | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def start(self) -> None:
        """Raises OSError."""
        self.listen_no_more()
        self.serving = False
        self._says, write = os.pipe()
        os.set_blocking(self._says, False)
        try:
            self.process = subprocess.Popen(
                self.argv,
                env={**(os.environ if self.env is None else self.env), SERVES_FD: str(write)},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(write,),
                preexec_fn=_end_with_parent(self.on_parent_death),
            )
        except OSError:
            self.listen_no_more()
            raise
        finally:
            os.close(write)

    def listen(self) -> None:
        """Hears whether it has said that it serves."""
        if self._says is not None:
            with contextlib.suppress(BlockingIOError):
                self.serving = os.read(self._says, 1) == b"1"
                self.served = self.serving or self.served
                self.listen_no_more()

    def listen_no_more(self) -> None:
        if self._says is not None:
            os.close(self._says)
            self._says = None


class Supervisor:
    """Starts the children and keeps them running; call ``tick`` when a child may have ended or a time has come.

    ``gave_up`` is the exit code of children that are not started again until ``restart``, since they would end the same way: none has
    served by their command line, and none is about to.
    """

    def __init__(self, children: Sequence[Child], *, say: Say, grace_s: float = GRACE_S, hopeless: frozenset[int] = HOPELESS) -> None:
        self.children, self.say, self.grace_s, self.hopeless = list(children), say, grace_s, hopeless
        self.gave_up: int | None = None
        self.killed = False
        """Whether a child that was asked to end had to be killed."""
        self.held = ""
        """What has to be before a child starts again, as ``hold`` was told; empty: nothing."""

    @property
    def running(self) -> bool:
        return any(child.process for child in self.children)

    def start(self) -> None:
        for child in self.children:
            self._start(child)

    def tick(self) -> float | None:
        """What has ended is noticed, what is due is started or killed. Returns the seconds until something is due."""
        for child in self.children:
            if child.process and child.process.poll() is None and _due(child.kill_at_s):
                self.say(f"{_named(child)} did not end within {self.grace_s:g} s; killing it")
                self._kill(child)
            ended = child.process.poll() if child.process else None
            child.listen()  # what it said before it ended, too
            if ended is not None:
                self._ended(child, ended)
            if not (child.process or self.held) and _due(child.start_at_s):
                self._start(child)
        self._weigh()
        now_s = time.monotonic()
        due = [now_s + LOOK_S] if any(child.hopeless is not None for child in self.children) else []
        starts = [None if self.held else child.start_at_s for child in self.children if not child.process]
        kills = [child.kill_at_s for child in self.children if child.process]
        due += [at_s for at_s in starts + kills if at_s is not None]
        return max(0.0, min(due) - now_s) if due else None

    def restart(self) -> None:
        """Every child ends in good order, then starts anew; those that were given up or wait for a start do so at once."""
        self.gave_up, self.held = None, ""
        self._ask_to_end()
        for child in self.children:
            child.start_at_s = time.monotonic()
            child.deaths, child.hopeless, child.served = 0, None, False

    def hold(self, until: str) -> list[Child]:
        """No child starts before ``restart``: it would only fail. Those that serve go on and are returned, others end."""
        self.held = until
        serving = [child for child in self.children if child.process and child.serving and child.kill_at_s is None]
        self._ask_to_end([child for child in self.children if child not in serving])
        return serving

    def stop(self) -> None:
        """Every child has been asked to end, and none starts again."""
        self._ask_to_end()
        for child in self.children:
            child.start_at_s = None

    def kill(self) -> None:
        """No child is left, nor what it started in its process group."""
        for child in self.children:
            child.start_at_s = None
            if child.process:
                self._kill(child)
                child.process = child.kill_at_s = None
            child.listen_no_more()

    def end(self, signals: Signals) -> None:
        """No child is left: they had the grace period to end by themselves, or until a second signal came."""
        self.stop()
        due_s = self.tick()
        while self.running and len(signals.received) < 2:
            signals.wait(due_s)
            due_s = self.tick()
        self.kill()

    def _ask_to_end(self, children: Sequence[Child] | None = None) -> None:
        for child in self.children if children is None else children:
            if child.process and child.kill_at_s is None:
                child.process.terminate()
                child.kill_at_s = time.monotonic() + self.grace_s

    def _start(self, child: Child) -> None:
        child.started_s, child.start_at_s, child.kill_at_s = time.monotonic(), None, None
        try:
            child.start()
        except OSError as error:
            self._back_off(child, f"{child.name} cannot be started ({error.strerror})")

    def _ended(self, child: Child, code: int) -> None:
        _signal_group(child, signal.SIGKILL)  # what it left behind would hold on to ports, and to our output
        named, asked = _named(child), child.kill_at_s is not None
        child.process = child.kill_at_s = None
        if asked:
            return
        lived_s = time.monotonic() - child.started_s
        ended = f"{named} ended with {ending(code)} after {lived_s:.1f} s"
        if code in self.hopeless and not self.held and not any(peer.served for peer in self._peers(child)):
            child.hopeless = code
            self.say(f"{ended}; starting it again would not help")
            return
        if lived_s >= SETTLED_S:
            child.deaths = 0
        self._back_off(child, ended)

    def _peers(self, child: Child) -> list[Child]:
        """Those with its command line, it included."""
        return [peer for peer in self.children if peer.argv == child.argv]

    def _weigh(self) -> None:
        """A child that would only end again is given up when none of its peers could show that the fault was another: a source that was
        half written, say."""
        for child in self.children:
            if child.hopeless is None:
                continue
            peers = self._peers(child)
            if any(peer.served for peer in peers):
                child.hopeless = None
                self._back_off(child, f"{child.name} may be able to serve as its peers do")
            elif all(peer.hopeless is not None for peer in peers):
                self.gave_up = child.hopeless

    def _back_off(self, child: Child, what: str) -> None:
        child.deaths += 1
        if self.held:
            child.start_at_s = time.monotonic()
            self.say(f"{what}; it starts again once {self.held}")
            return
        wait_s = backoff_s(child.deaths, random.random())  # noqa: S311 - spreads starts, keeps no secret
        child.start_at_s = time.monotonic() + wait_s
        self.say(f"{what}; starting it again in {wait_s:.2g} s")

    def _kill(self, child: Child) -> None:
        self.killed = True
        _signal_group(child, signal.SIGKILL)
        if child.process:
            child.process.wait()


def supervise(children: Sequence[Child], *, say: Say, grace_s: float = GRACE_S) -> int:
    """Keeps the children running until SIGTERM, SIGINT or SIGHUP comes or one of them is hopeless. No child is left afterwards.

    Returns the exit code of this process: 0, or 130 after Ctrl-C, or 1 if a child had to be killed, or the hopeless child's.
    Main thread only.
    """
    supervisor = Supervisor(children, say=say, grace_s=grace_s)
    with Signals() as signals:
        try:
            supervisor.start()
            due_s = supervisor.tick()
            while not signals.received and supervisor.gave_up is None:
                signals.wait(due_s)
                due_s = supervisor.tick()
            supervisor.end(signals)
        finally:
            supervisor.kill()
    if supervisor.gave_up is not None:
        return supervisor.gave_up
    return signals.exit_code or int(supervisor.killed)


def say_serving() -> None:
    """A supervisor, if there is one, knows that this process serves: however it ends, it could be started."""
    if fd := os.environ.pop(SERVES_FD, ""):
        with contextlib.suppress(OSError, ValueError):  # the variable came from elsewhere, or the supervisor is gone
            os.write(int(fd), b"1")
            os.close(int(fd))


def backoff_s(deaths: int, dice: float) -> float:
    """The wait after so many deaths in a row: doubles up to a limit; ``dice`` (0 to 1) picks from its upper half."""
    longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(deaths - 1, 16))
    return longest_s * (0.5 + dice / 2)


def ending(code: int) -> str:
    """``exit code 3``, or the name of the signal: ``SIGKILL``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # real-time signals have no names
        return f"signal {-code}"


def _named(child: Child) -> str:
    return f"{child.name} (process {child.pid})"


def _due(at_s: float | None) -> bool:
    return at_s is not None and time.monotonic() >= at_s


def _signal_group(child: Child, number: signal.Signals) -> None:
    if child.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(child.pid, number)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What the child does before it becomes its program, so that it gets this signal when the supervisor dies."""
    if sys.platform != "linux":
        return None
    prctl, parent = _libc().prctl, os.getpid()  # looked up here: between fork and exec one does as little as one can

    def ask_the_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return ask_the_kernel
