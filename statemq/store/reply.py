"""reply: how a client learns of outcomes.

The client's channel is a hint; ``T:outcomes`` is the truth. Who hears nothing asks there: at once after the channel's
connection was lost, else less and less often, the questions of all who wait joined into one a partition.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import Any

import msgspec

from statemq import keys
from statemq.codec import parse_command_id
from statemq.config import EARLY_BYTES
from statemq.errors import RedisAway, ServerError, StatemqError
from statemq.records import Outcome
from statemq.store.durability import Durability, settled, stand
from statemq.store.periods import outcome_names
from statemq.store.router import Router
from statemq.store.wire import ReplyError, Wire, swallow

HEARD_FIRST_S, HEARD_CAP_S = 0.5, 5.0
"""How soon and how seldom is asked for a command whose outcome comes on the channel."""

UNHEARD_FIRST_S, UNHEARD_CAP_S = 0.02, 1.0
"""The same for a command that another client sent: nothing but asking tells."""

LAST_LOOK_S = 1.0
"""How long Redis may take for the look with which a wait ends."""

LOOK_EVERY_S = 0.02
"""Looks that are due closer together than this are made together."""

EARLY_CAP = 4096
"""Outcomes kept that came before anybody waited for them, beside the limit of their bytes; the oldest go first."""

DEAF_AFTER_MS, ANEW_EVERY_S = 1000, 10.0
"""An outcome older than this that was not heard shows that the channel is deaf; it is made anew, but so seldom."""

_outcomes = msgspec.json.Decoder(list[Outcome]).decode
_outcome = msgspec.json.Decoder(Outcome).decode


class _Wait:
    """One id that somebody waits for. Each of the ``people`` has a future of their own, so that one who gives up cancels no other's."""

    __slots__ = ("again", "cap_s", "due_s", "heard", "misses", "pace_s", "people", "told")

    def __init__(self, heard: bool, due_s: float) -> None:
        self.heard, self.due_s = heard, due_s
        self.pace_s, self.cap_s = (HEARD_FIRST_S, HEARD_CAP_S) if heard else (UNHEARD_FIRST_S, UNHEARD_CAP_S)
        self.misses = 0
        self.told = self.again = False
        self.people: list[asyncio.Future[Outcome | None]] = []

    def tell(self, answer: Outcome | Exception | None) -> None:
        self.told = True
        people, self.people = self.people, []
        for person in people:
            if not person.done():
                person.set_exception(answer) if isinstance(answer, Exception) else person.set_result(answer)


class Replies:
    """One client's ear. ``channel`` goes with its commands."""

    def __init__(self, router: Router, namespace: str, client: str, durability: Durability | None = None) -> None:
        self._router, self._namespace, self._durability = router, namespace, durability
        self.channel = keys.reply_channel(namespace, client)
        self._waits: dict[str, _Wait] = {}
        self._early: OrderedDict[str, Outcome] = OrderedDict()
        self._early_bytes = 0
        self.dropped = 0
        """How many early outcomes had to go; a command sent when it was lower may be among them."""
        self._wire: Wire | None = None
        self._opening: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._look_s = 0.0
        """When the timer rings; its own ``when`` is not there in every loop."""
        self._asking: set[asyncio.Task[None]] = set()
        self._made_anew_s = -ANEW_EVERY_S

    @property
    def opened(self) -> bool:
        """``open`` has nothing to wait for any more."""
        return self._opening is not None and self._opening.done()

    async def open(self, timeout_s: float) -> None:
        """The channel is subscribed. Only the first call waits for that: later it is asked instead, as long as the channel is away."""
        if self._opening is None:
            self._wire = self._router.own_wire(self.channel, timeout_s=5.0, greet=self._subscribe, on_push=self._heard)
            self._opening = self._loop.create_task(self._wire.connected(timeout_s))
            swallow([self._opening])
        if not self._opening.done():
            await asyncio.wait([self._opening])

    async def close(self) -> None:
        """Nobody waits any more: who did gets RedisAway."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._asking, *([self._opening] if self._opening is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for wait in self._waits.values():
            wait.tell(RedisAway("the client was closed"))
        if self._wire is not None:
            await self._router.release_wire(self._wire)

    @property
    def waiting(self) -> int:
        """For how many commands somebody waits."""
        return len(self._waits)

    async def wait(self, id: str, timeout_s: float | None, *, heard: bool, since: int = 0) -> Outcome | TimeoutError | None:
        """The outcome; None if nothing is known of the id; TimeoutError (as a value) after ``timeout_s``.

        ``heard``: this client sent it, when ``dropped`` was ``since``.
        """
        answer: asyncio.Future[Outcome | None] = self._loop.create_future()
        self.join(id, answer, heard=heard, since=since)
        try:
            if timeout_s is None:
                return await answer
            await asyncio.wait([answer], timeout=timeout_s)
            await self.last_look(id, answer)
            return answer.result() if answer.done() else TimeoutError()
        finally:
            self.leave(id, answer)

    async def last_look(self, id: str, answer: asyncio.Future[Outcome | None]) -> None:
        """The time is over: what has ended is told nevertheless, also to who does not wait at all; a Redis that hangs is not waited for."""
        wait = self._waits.get(id)
        if answer.done() or wait is None:
            return
        part = keys.PartitionKeys(self._namespace, *parse_command_id(id))
        if not self._router.wire_for(part.lease).up:
            return
        asked = self._loop.create_task(self._look_twice(part, {id: wait}))
        ends: list[asyncio.Future[Any]] = [asked, answer]
        try:
            await asyncio.wait(ends, timeout=LAST_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()

    async def _look_twice(self, part: keys.PartitionKeys, asked: dict[str, _Wait]) -> None:
        """One look does not tell that an id is unknown."""
        for _ in range(2):
            await self._tell_partition(part, asked)

    def join(self, id: str, answer: asyncio.Future[Outcome | None], *, heard: bool, since: int) -> None:
        """``answer`` gets the outcome, or None if nothing is known of the id; who does not wait any more must ``leave``."""
        early = self._early.pop(id, None) if self._early else None
        if early is not None:
            self._early_bytes -= size_of(early)
        if early is not None and self._durability is None:
            answer.set_result(early)
            return
        wait = self._waits.get(id)
        if wait is None or wait.told:
            if not heard:
                parse_command_id(id)
            at_once = not heard or wait is not None or early is not None or self.dropped != since
            wait = _Wait(heard, self._loop.time() + (0 if at_once else HEARD_FIRST_S))
            self._waits[id] = wait
            if self._timer is None or wait.due_s < self._look_s:
                self._plan(wait.due_s)
        wait.people.append(answer)

    def leave(self, id: str, answer: asyncio.Future[Outcome | None]) -> None:
        wait = self._waits.get(id)
        if wait is None:
            return
        if answer in wait.people:
            wait.people.remove(answer)
        if not wait.people:
            del self._waits[id]

    # -- hearing -----------------------------------------------------------------------------------

    async def _subscribe(self, wire: Wire) -> None:
        (answer,) = await wire.hello(("SUBSCRIBE", self.channel))
        if isinstance(answer, BaseException):
            raise answer
        # what was said while nobody listened is not said again
        now = self._loop.time()
        for wait in self._waits.values():
            if wait.due_s < math.inf:
                wait.due_s = now
        if self._waits:
            self._plan(now)

    def _heard(self, message: list[Any]) -> None:
        if message[0] != b"message":
            return
        try:
            outcomes = _outcomes(message[2])
        except msgspec.MsgspecError:
            return  # anybody may publish here; asking tells the truth
        for outcome in outcomes:
            wait = self._waits.get(outcome.id)
            if wait is not None:
                if self._durability is None:
                    wait.tell(outcome)
                else:
                    self._ask_soon(wait)
                continue
            self._keep(alone(outcome))

    def _keep(self, early: Outcome) -> None:
        """Whoever sends and never asks must not fill the memory; who asks for what is dropped finds it in Redis."""
        if (before := self._early.pop(early.id, None)) is not None:
            self._early_bytes -= size_of(before)
        self._early[early.id] = early
        self._early_bytes += size_of(early)
        while self._early_bytes > EARLY_BYTES or len(self._early) > EARLY_CAP:
            _, oldest = self._early.popitem(last=False)
            self._early_bytes -= size_of(oldest)
            self.dropped += 1

    def _ask_soon(self, wait: _Wait) -> None:
        """P23: what is heard may not be safe yet, so it only says that there is something to ask for."""
        if wait.due_s == math.inf:
            wait.again = True  # it is being asked for, but perhaps was a moment too early
        else:
            wait.due_s = self._loop.time()
            self._plan(wait.due_s)

    # -- asking ------------------------------------------------------------------------------------

    def _plan(self, due_s: float) -> None:
        """The next look is at ``due_s`` or before."""
        if self._timer is None or due_s < self._look_s:
            if self._timer is not None:
                self._timer.cancel()
            self._look_s = due_s
            self._timer = self._loop.call_at(due_s, self._look)

    def _look(self) -> None:
        """Asks for all that is due, one task a partition: one that is away holds up no other."""
        self._timer, now = None, self._loop.time()
        places: dict[tuple[str, int], dict[str, _Wait]] = {}
        next_s = math.inf
        for id, wait in self._waits.items():
            if wait.due_s <= now:
                wait.due_s = math.inf
                places.setdefault(parse_command_id(id), {})[id] = wait
            else:
                next_s = min(next_s, wait.due_s)
        for place, due in places.items():
            task = self._loop.create_task(self._ask(keys.PartitionKeys(self._namespace, *place), due))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        if next_s < math.inf:
            self._plan(max(next_s, now + LOOK_EVERY_S))

    async def _ask(self, part: keys.PartitionKeys, due: dict[str, _Wait]) -> None:
        await self._tell_partition(part, due)
        again_s = math.inf
        for wait in due.values():
            if wait.people:
                wait.due_s = self._loop.time() + (0 if wait.again else wait.pace_s)
                wait.pace_s, wait.again = min(wait.cap_s, wait.pace_s * 2), False
                again_s = min(again_s, wait.due_s)
        if again_s < math.inf:
            self._plan(again_s)

    async def _tell_partition(self, part: keys.PartitionKeys, due: dict[str, _Wait]) -> None:
        """Those whose commands have ended are told how; what keeps one from it is told to that one, or to all."""
        try:
            await self._look_at(part, due)
        except (StatemqError, ReplyError) as error:
            for wait in due.values():
                wait.tell(_said(error))

    async def _look_at(self, part: keys.PartitionKeys, due: dict[str, _Wait]) -> None:
        """One look for each: its outcome, or whether it is accepted. Two looks that find neither: it is unknown."""
        since = stand(self._router, part)
        names, now_ms = await outcome_names(self._router, part)
        # accepted first: a command that ends between the two questions is then in the outcomes
        asked = [self._router.call(part.lease, "HMGET", name, *due) for name in (part.accepted, *names)]
        accepted, *found = await asyncio.gather(*asked, return_exceptions=True)
        if isinstance(accepted, BaseException):
            raise accepted
        rows = [row for row in found if not isinstance(row, BaseException)]
        unread = next((row for row in found if isinstance(row, BaseException)), None)  # a period that was damaged by hand
        safe = self._durability is None
        for index, (id, wait) in enumerate(due.items()):
            text = next((row[index] for row in rows if row[index] is not None), None)
            if text is None:
                wait.misses = 0 if accepted[index] is not None else wait.misses + 1
                if wait.misses == 2:
                    wait.tell(unread if unread is None else _said(unread))
                continue
            if self._durability is not None and not safe:
                safe = await settled(self._router, part, self._durability, since)
                if not safe:
                    return
            try:
                outcome = _outcome(text)
            except ValueError as error:
                wait.tell(
                    ServerError(f"the outcome of command {id} in {part.outcomes_}… was damaged by hand ({error}); look at its history")
                )
                continue
            wait.tell(outcome)
            if wait.heard and now_ms - outcome.at > DEAF_AFTER_MS:
                self._hear_again()

    def _hear_again(self) -> None:
        now = self._loop.time()
        if self._wire is not None and now - self._made_anew_s > ANEW_EVERY_S:
            self._made_anew_s = now
            self._wire.drop()


def size_of(outcome: Outcome) -> int:
    """Its memory, about."""
    return len(outcome.result) + len(outcome.reason) + len(outcome.key) + 1000


def alone(outcome: Outcome) -> Outcome:
    """The outcome without the message that it came in, which the bytes of its result would keep."""
    return msgspec.structs.replace(outcome, result=outcome.result.copy())


def _said(error: BaseException) -> StatemqError:
    if isinstance(error, ReplyError):
        return RedisAway(f"Redis refused to tell an outcome: {error.message}")
    return error if isinstance(error, StatemqError) else RedisAway(f"an outcome could not be asked for: {error!r}")
