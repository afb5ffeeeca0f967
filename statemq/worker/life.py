"""The life sign, in a thread of its own (P5, P6): a handler that keeps the event loop busy does not cost the leases.

The thread runs a small event loop with connections of its own: it is subscribed to this worker's channels, twice (when the process
dies, the kernel closes both connections and the subscriber count falls to 0; one that is cut is no death), renews the leases, beats
in the registry, listens to the machines' news, and looks ten times a second whether the owners of other partitions can be heard.
It decides nothing: it tells the main loop. When the main loop has not turned for ``stuck_after_s``, it stops renewing and ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from statemq import keys as names
from statemq.codec import encode
from statemq.config import LIMITS, WorkerSettings
from statemq.errors import StatemqError
from statemq.keys import PartitionKeys
from statemq.store import lease
from statemq.store.fence import Fence, ScriptFailed, TenureOver
from statemq.store.router import Router
from statemq.store.wire import ReplyError, Wire
from statemq.worker.clock import Moment, moment
from statemq.worker.errands import Errands
from statemq.worker.looks import Looks

EXIT_STUCK = 70

TICK_S = 0.25
"""How often the main loop is looked at."""

SIGNS = 2
"""Connections that give the same life sign: one may be cut while a thread that is short of processor time makes it anew."""

CALMER = 0.9
"""What is left of a former delay of this thread a tick later: a second's is a tenth of that after some five."""

STOPS_WITHIN_S = 5.0
"""Who has not ended by then hangs in what cannot be cancelled, such as a look at names; it does nothing any more."""

log = logging.getLogger("statemq.worker")


class Hears(Protocol):
    """The main loop's side; each is called there."""

    def heard_failed(self, error: StatemqError) -> None: ...

    def heard_live(self, machine: str, live: list[str]) -> None: ...

    def heard_news(self, machine: str, words: list[str]) -> None: ...

    def heard_silent(self, partition: PartitionKeys, owner: str) -> None: ...

    def heard_again(self, partition: PartitionKeys, owner: str) -> None: ...

    def heard_lost(self, partition: PartitionKeys, token: str, over: TenureOver) -> None: ...

    def heard_renewed(self, partition: PartitionKeys, token: str, asked: Moment) -> None: ...

    def heard_paused(self, partition: PartitionKeys, paused: bool) -> None: ...


class Still:
    """How long the main loop has not turned, counted in ticks of this thread: in a process that was stopped, or had no processor, neither
    goes on, and nobody is to blame.

    >>> still = Still(now_s=0, turned_s=0)
    >>> still.tick(0.25, 0), still.tick(40, 0), still.tick(40.25, 0), still.tick(40.5, 40.4)
    (0.25, 0.75, 1.0, 0.0)
    """

    def __init__(self, now_s: float, turned_s: float) -> None:
        self._ticked_s, self._turned_s, self._still_s = now_s, turned_s, 0.0

    def tick(self, now_s: float, turned_s: float) -> float:
        self._still_s = 0.0 if turned_s != self._turned_s else self._still_s + min(now_s - self._ticked_s, 2 * TICK_S)
        self._ticked_s, self._turned_s = now_s, turned_s
        return self._still_s


class Life:
    """``tenures``: what the main loop owns; replaced, never changed in place. ``looks`` is told who holds the rest."""

    def __init__(
        self,
        url: str,
        namespace: str,
        worker: str,
        partitions: dict[str, list[PartitionKeys]],
        settings: WorkerSettings,
        about: dict[str, Any],
        hears: Hears,
    ) -> None:
        self.tenures: list[Fence] = []
        self.leaving = False
        """From then on each life sign says that the worker is gone: what it still runs ends, and nobody leaves it a share."""
        self.turned_s = time.monotonic()
        """When the main loop last turned; it keeps this fresh."""
        self.attended = False
        """Somebody looks at what the main loop runs, in a debugger: that it does not turn is no fault."""
        self.running: Callable[[], list[str]] = list
        """Names what the main loop runs, for the last words of a stuck process."""
        self._url, self._namespace, self._worker = url, namespace, worker
        self._partitions, self._settings, self._about, self._hears = partitions, settings, about, hears
        self._main = asyncio.get_running_loop()
        self._main_thread = threading.get_ident()
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        """These are the main loop's, like what is heard; told without its thread pool, which the user's code may fill."""
        self._failed: BaseException | None = None
        self._serving = False
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signs: dict[str, list[Wire]] = {}
        """Our own life signs: by slot in a cluster, else under an empty text."""
        heard_silent, heard_again = (functools.partial(self._tell, hears.heard_silent), functools.partial(self._tell, hears.heard_again))
        self.looks = Looks(worker, settings, heard_silent, heard_again, self._own_signs)
        self._lag_s = 0.0
        """How late this thread ran lately: what it needs to be heard again after a cut is a multiple of that."""
        self._unheard: set[str] = set()
        """Machines whose registry is damaged, so that it is said once."""
        self._all = [p for ps in partitions.values() for p in ps]

    async def start(self) -> None:
        """Returns when the channels are subscribed: from then on our silence means our death."""
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(loop,), name="statemq-life", daemon=True)
        self._thread.start()
        await self._ready.wait()
        if self._failed is not None:
            raise self._failed

    async def stop(self) -> None:
        """Ends the thread, also in the middle of its start, and also if who waits for that is cancelled."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # its loop may have ended
                self._loop.call_soon_threadsafe(self._stop.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), STOPS_WITHIN_S)
                self._thread.join()  # it has nothing left to do

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._live())
        except BaseException as error:  # noqa: BLE001 - told to who waits, or the process ends with it
            self._failed = error
            if self._serving and isinstance(error, StatemqError):
                self._tell(self._hears.heard_failed, error)
            elif self._serving:
                traceback.print_exc()
                sys.stderr.write("statemq: the life thread ended; the worker ends with it\n")
                os._exit(EXIT_STUCK)
        finally:
            self._tell(self._ready.set)
            self._tell(self._ended.set)

    async def _live(self) -> None:
        living, stopped = asyncio.ensure_future(self._serve()), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([living, stopped], return_when=asyncio.FIRST_COMPLETED)
        if living.done() and not stopped.done():
            living.result()
        living.cancel()
        await asyncio.wait([living])

    async def _serve(self) -> None:
        router = await Router(self._url).open()
        try:
            self._signs = self._subscribe(router)
            wires = [wire for signs in self._signs.values() for wire in signs]
            for wire in wires:
                await wire.connected(5.0)
            for machine in self._partitions:
                await self._beat(router, machine)
            self._serving = True
            self._tell(self._ready.set)
            await asyncio.gather(
                self._beats(router), self._renewals(router), self.looks.go_on(router), self._watch(), *(wire.gives_up() for wire in wires)
            )
        finally:
            await router.close()

    def _subscribe(self, router: Router) -> dict[str, list[Wire]]:
        """Connections that are subscribed to the sharded life-sign channels, in a cluster some for each partition, so that they follow its
        slot; and the very first to the machines' news."""
        together: dict[str, list[PartitionKeys]] = {}
        for p in self._all:
            together.setdefault(p.tag if router.cluster else "", []).append(p)
        news: tuple[str, ...] = tuple(names.news_channel(self._namespace, machine) for machine in self._partitions)
        signs: dict[str, list[Wire]] = {}
        for tag, partitions in together.items():
            signs[tag] = []
            for _ in range(SIGNS):
                commands = [("SSUBSCRIBE", *(p.alive_channel(self._worker) for p in partitions)), *([("SUBSCRIBE", *news)] if news else [])]
                greet = functools.partial(_greet, commands)
                signs[tag].append(router.own_wire(partitions[0].lease, timeout_s=5.0, on_push=self._pushed, greet=greet))
                news = ()
        return signs

    def _pushed(self, message: list[Any]) -> None:
        if message[0] == b"message":
            machine = message[1].decode().split("{", 1)[1].split("}", 1)[0]
            self._tell(self._hears.heard_news, machine, message[2].decode(errors="replace").split(" "))

    def _tell(self, what: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the main loop has ended: nobody is left to be told
            self._main.call_soon_threadsafe(what, *args)

    async def _beats(self, router: Router) -> None:
        with Errands() as errands:
            while True:
                await asyncio.sleep(self._settings.beat_s)
                for machine in self._partitions:
                    errands.begin(machine, functools.partial(self._beat, router, machine))

    async def _beat(self, router: Router, machine: str) -> None:
        try:
            about = encode(self._about | {"lag_ms": int(self._lag_s * 1000)})
            live = await lease.beat(router, self._namespace, machine, self._worker, about, gone=self.leaving)
        except ReplyError as error:
            if machine not in self._unheard:
                self._unheard.add(machine)
                log.error(  # noqa: TRY400 - one line: the error is in it
                    "the registry of %s's workers cannot be written (%s): this worker does not see its peers",
                    machine,
                    error,
                )
            return
        self._unheard.discard(machine)
        self._tell(self._hears.heard_live, machine, live)

    async def _renewals(self, router: Router) -> None:
        """Renews at a third of the lease; what takes long is tried again soon, one answer does not wait for another."""
        with Errands() as errands:
            while True:
                await asyncio.sleep(self._settings.lease_ms / 3000)
                together: dict[Any, list[Fence]] = {}
                for i, fence in enumerate(self.tenures):
                    together.setdefault(fence.keys.tag if router.cluster else i // LIMITS.batch, []).append(fence)
                for name, tenures in together.items():
                    errands.begin(name, functools.partial(self._renew, router, tenures))

    async def _renew(self, router: Router, tenures: Sequence[Fence]) -> None:
        asked = moment()
        answers: Sequence[bool | TenureOver]
        try:
            answers = await lease.renew(router, tenures, self._settings.lease_ms)
        except ReplyError as error:
            answers = [ScriptFailed(str(error))] * len(tenures)
        for fence, answer in zip(tenures, answers, strict=True):
            p, token = fence.keys, fence.token
            if isinstance(answer, ScriptFailed):
                log.error("the lease of %s:%d cannot be renewed: %s", p.machine, p.number, answer)
            if isinstance(answer, TenureOver):
                self._tell(self._hears.heard_lost, p, token, answer)
            else:
                self._tell(self._hears.heard_renewed, p, token, asked)
                self._tell(self._hears.heard_paused, p, answer)

    def _own_signs(self, slot: str) -> tuple[int, ...]:
        """Which of our own life signs there are; a cut one is 0 until it is made anew."""
        return tuple(wire.generation if wire.up else 0 for wire in self._signs.get(slot, ()))

    async def _watch(self) -> None:
        """P6: a loop that does not turn is no life, however well this thread lives."""
        warned_s, still = 0.0, Still(time.monotonic(), self.turned_s)
        while True:
            due_s = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self._lag_s = max(time.monotonic() - due_s, self._lag_s * CALMER)
            if self.attended:
                still = Still(time.monotonic(), self.turned_s)
                continue
            still_s = still.tick(time.monotonic(), self.turned_s)
            if still_s > self._settings.stuck_after_s:
                sys.stderr.write(
                    f"statemq: the event loop has not turned for {still_s:.0f} s while it ran {', '.join(self.running()) or 'nothing'}; "
                    "this process ends, so that others can continue\n" + self._stack()
                )
                sys.stderr.flush()
                os._exit(EXIT_STUCK)
            if still_s > min(2.0, self._settings.stuck_after_s / 3) and time.monotonic() - warned_s > 10:
                warned_s = time.monotonic()
                text = "the event loop has not turned for %.1f s while it ran %s; blocking work belongs into ctx.step as a plain def"
                args = (still_s, ", ".join(self.running()) or "nothing")
                log.handle(log.makeRecord(log.name, logging.WARNING, __file__, 0, text, args, None, sinfo=self._stack()))

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._main_thread)
        return "".join(traceback.format_stack(frame)[-4:]) if frame else ""


async def _greet(commands: Sequence[tuple[str, ...]], wire: Wire) -> None:
    for reply in await wire.hello(*commands):
        if isinstance(reply, BaseException):
            raise reply
