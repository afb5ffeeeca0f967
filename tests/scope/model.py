"""A worker's protocol as a pure step: an event goes in, script calls come out. No I/O, no clock, no chance.

It keeps to what statemq/worker/ does with one partition, without batching limits, slots and retries. Three kinds of commands:
``add`` only computes; ``pay`` has a step, whose result has to be recorded before the code goes on; ``nap`` sleeps, so that it leaves
memory and its key's queue goes to the inbox. The calls themselves are laid out by the shipped store modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from statemq.keys import PartitionKeys
from statemq.store import outcome
from statemq.store.append import Appender
from statemq.store.commands import Look, Queued, entry_order, from_element, read_entry
from statemq.store.commit import Ended, lay_out, words
from statemq.store.draft import Draft
from statemq.store.fence import Fence

KEYS = PartitionKeys("s", "scope", 0)
INCARNATION = "i"
NEVER_MS = 9_999_999_999_999
LEASE_MS = 10_000_000_000
STEPS = {"pay": "pay", "nap": "sleep@1"}
"""What each kind records."""


class Call(NamedTuple):
    """A script to be run. ``then``: what its answer means to who sent it; an empty one is not waited for."""

    script: str
    keys: tuple[str, ...]
    args: tuple[Any, ...]
    then: tuple[Any, ...] = ()

    @property
    def token(self) -> str:
        return str(self.args[1 if self.script == "renew" else 0])

    @property
    def number(self) -> int:
        return int(self.args[1])

    @property
    def text(self) -> str:
        return f"{self.script}{self.args if self.script == 'acquire' else self.args[:2]}{self.then}"


class Cmd(NamedTuple):
    """A command in a worker's memory. ``old``: a former owner may have begun it; ``journal``: None until it was read."""

    entry: str
    id: str
    key: str
    kind: str
    parked: bool = False
    old: bool = False
    claimed: bool = False
    journal: tuple[tuple[str, str], ...] | None = ()

    @property
    def order(self) -> tuple[int, int]:
        return entry_order(self.entry)

    @property
    def recorded(self) -> dict[str, str]:
        return dict(self.journal or ())

    @property
    def queued(self) -> Queued:
        """As the shipped modules want it."""
        journalled = self.old or self.parked or bool(self.journal)
        return Queued(
            self.entry, self.id, self.key, self.kind, b"{}",
            parked=self.parked, journalled=journalled, timed=journalled, claimed=self.claimed,
        )  # fmt: skip


class End(NamedTuple):
    """A command that ended in memory, on this version and these data."""

    command: Cmd
    version: int
    data: str
    value: str = ""
    word: str = "completed"


class Lane:
    """One key."""

    __slots__ = (
        "asleep",
        "broken",
        "chain",
        "data",
        "fetching",
        "inbox",
        "inflight",
        "key",
        "loaded",
        "loading",
        "parking",
        "parks",
        "queue",
        "redo",
        "running",
        "stage",
        "stale",
        "version",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.queue: tuple[Cmd, ...] = ()
        self.running: Cmd | None = None
        self.stage = ""
        self.loaded = self.loading = self.fetching = self.inbox = self.asleep = self.broken = self.stale = False
        self.version = self.inflight = self.parking = self.parks = 0
        self.data = ""
        self.redo: tuple[Cmd, ...] = ()
        self.chain: tuple[Cmd, ...] = ()
        """Commands that only compute, which run when their start is answered."""

    def copy(self) -> Lane:
        other = Lane.__new__(Lane)
        for name in Lane.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    @property
    def text(self) -> str:
        return str([getattr(self, name) for name in Lane.__slots__ if name != "parks"])


class Worker:
    """One process. ``name`` is new at each start; ``sent`` are its unanswered calls, in order, on its one connection."""

    __slots__ = ("acquires", "caught_up", "committing", "ended", "lanes", "last", "name", "number", "position", "sent", "token")

    def __init__(self, name: str) -> None:
        self.name = name
        self.acquires = self.number = 0
        self.token = self.last = ""
        self.position = "0-0"
        self.caught_up = self.committing = False
        self.lanes: dict[str, Lane] = {}
        self.ended: tuple[End, ...] = ()
        self.sent: tuple[Call, ...] = ()

    def copy(self) -> Worker:
        other = Worker.__new__(Worker)
        for name in Worker.__slots__:
            setattr(other, name, getattr(self, name))
        other.lanes = {key: lane.copy() for key, lane in self.lanes.items()}
        return other

    @property
    def text(self) -> str:
        lanes = [self.lanes[key].text for key in sorted(self.lanes)]
        calls = [call.text for call in self.sent]
        behind = "" if self.caught_up else self.last
        rest = (self.name, self.acquires, self.token, self.number, self.position, behind, self.committing, self.ended)
        return f"{rest}{lanes}{calls}"

    @property
    def busy(self) -> bool:
        return bool(self.sent or self.ended or any(lane.running for lane in self.lanes.values()))


# -- what may happen to a worker by itself ---------------------------------------------------------


def effects(w: Worker) -> Iterable[str]:
    """Keys whose running command may do its step now."""
    return (key for key, lane in w.lanes.items() if lane.stage == "effect")


def parkable(w: Worker) -> Iterable[tuple[str, int]]:
    """Busy keys, and how many of the youngest of their commands in memory could go to the inbox."""
    for key, lane in w.lanes.items():
        if lane.running:
            yield from ((key, n + 1) for n in range(sum(not c.parked for c in lane.queue)))


# -- the step --------------------------------------------------------------------------------------


def step(w: Worker, event: str, *what: Any) -> Worker:
    """The worker after ``event``; what it has to say to the store is behind ``sent``."""
    w = w.copy()
    _EVENTS[event](w, *what)
    if w.token:
        for lane in list(w.lanes.values()):
            _go_on(w, lane)
        if w.ended and not w.committing:
            _commit(w)
    return w


def _acquire(w: Worker, believed: str, owner: str) -> None:
    w.acquires += 1
    args = (
        w.name, w.acquires, believed, LEASE_MS, INCARNATION, KEYS.alive_channel(owner) if owner else "", "",
        "news", KEYS.number, "", "",
    )  # fmt: skip
    w.sent += (Call("acquire", (KEYS.lease, KEYS.commands, KEYS.timers), args, ("acquire",)),)


def _read(w: Worker, entries: Sequence[tuple[str, dict[str, str]]], ready: Sequence[str]) -> None:
    """Everything behind the position; ``ready``: keys of T:ready, served once all that is older was read (P9)."""
    for entry, fields in entries:
        w.position = entry
        flat = [x.encode() for pair in fields.items() for x in pair]
        found = read_entry(entry.encode(), flat, KEYS, 1, "s:reply:")
        if isinstance(found, Look):
            _send(w, "drop", [(entry, f"@look:{found.key}")], then=("",))
            _look(_lane(w, found.key))
            continue
        assert isinstance(found, Queued), found
        old = entry_order(entry) <= entry_order(w.last)
        c = Cmd(entry, found.id, found.key, found.transition, old=old, journal=None if old else ())
        lane = _lane(w, c.key)
        if lane.inbox and lane.loaded:
            _park(w, lane, (c,))
        else:
            lane.queue += (c,)
    if not w.caught_up:
        w.caught_up = True
        for key in ready:
            _woken(_lane(w, key))


def _look(lane: Lane) -> None:
    lane.loaded = False
    lane.queue = tuple(c._replace(journal=None) for c in lane.queue)


def _woken(lane: Lane) -> None:
    lane.asleep, lane.inbox, lane.loaded = False, True, False


def _effect(w: Worker, key: str, straggler: bool = False) -> None:
    """The step touches the world; its result is unlike any other run's. ``straggler``: an earlier attempt's run of it (in a thread that
    could not be stopped) is recorded just before."""
    lane = w.lanes[key]
    c = lane.running
    assert c
    if straggler:
        _send(w, "record", [(c.id, STEPS[c.kind], f"<{w.name}.{w.acquires}s>".encode(), b"1")], then=("",))
    _record(w, lane, f"<{w.name}.{w.acquires}>")


def _park_youngest(w: Worker, key: str, n: int = 1_000) -> None:
    lane = w.lanes[key]
    youngest = tuple(c for c in lane.queue if not c.parked)[-n:]
    lane.queue = tuple(c for c in lane.queue if c not in youngest)
    _park(w, lane, youngest)


def _wake(w: Worker, ids: Sequence[tuple[str, str]]) -> None:
    _send(w, "wake", [("wake", id, key, ()) for id, key in ids], then=("wake", tuple(key for _, key in ids)))


def _release(w: Worker) -> None:
    w.sent += (Call("release", (KEYS.lease,), (w.token, "news", KEYS.number), ("",)),)
    _over(w)


def _reply(w: Worker, answer: Any) -> None:
    """To the oldest unanswered call."""
    call, w.sent = w.sent[0], w.sent[1:]
    if not call.then:
        return
    word = answer[0] if isinstance(answer, list) and answer else answer
    if call.script != "acquire" and word in (b"fenced", b"rewound"):
        _over(w)
        return
    if what := call.then[0]:
        _ANSWERS[what](w, answer, *call.then[1:])


# -- answers ---------------------------------------------------------------------------------------


def _acquired(w: Worker, answer: list[Any]) -> None:
    if answer[0] == b"done":
        w.token, w.last, w.number, w.position = answer[1].decode(), answer[2].decode(), 0, "0-0"
        w.caught_up, w.lanes = False, {}


def _loaded(w: Worker, answer: list[Any], key: str) -> None:
    """P8: what is older than the inbox's head runs first, younger ones go behind it."""
    lane = w.lanes[key]
    _, version, data, _, paused, head, ready = answer[0]
    lane.loading, lane.loaded = False, True
    lane.version, lane.data = int(version or 0), (data or b"").decode()
    lane.asleep = bool(paused) or (head is not None and ready is None)
    lane.inbox = head is not None or lane.parking > 0
    first = from_element(head) if head is not None else None
    if first is not None and lane.queue:
        older = tuple(c for c in lane.queue if not c.parked and c.order < first.order)
        younger = tuple(c for c in lane.queue if not c.parked and c.order > first.order)
        lane.queue = older
        _park(w, lane, younger)
        lane.asleep = lane.asleep and not older
    if lane.asleep:
        _park_youngest(w, key)


def _fetched(w: Worker, answer: list[tuple[str, bool, tuple[tuple[str, str], ...]]], key: str, parks: int) -> None:
    lane = w.lanes[key]
    lane.fetching = False
    if not answer:
        lane.inbox = lane.parks != parks
    live = [from_element(text.encode()) for text, alive, _ in answer if alive]
    journals = [journal for _, alive, journal in answer if alive]
    if answer and not live:
        _send(w, "skip", key, then=("",))
    for found, journal in zip(live, journals, strict=True):
        assert found
        lane.queue += (Cmd(found.entry, found.id, key, found.transition, parked=True, journal=journal),)


def _peeked(w: Worker, answer: list[tuple[tuple[str, str], ...]], key: str, ids: tuple[str, ...]) -> None:
    lane = w.lanes[key]
    lane.fetching = False
    journals = dict(zip(ids, answer, strict=True))
    lane.queue = tuple(c._replace(journal=journals.get(c.id, c.journal)) for c in lane.queue)


def _started(w: Worker, answer: list[Any], key: str) -> None:
    lane = w.lanes[key]
    if lane.chain:
        chain, lane.chain, lane.running, lane.stage = lane.chain, (), None, ""
        for n, c in enumerate([c for c in chain if c.claimed]):
            if n + 1 in answer[1:]:
                chain = tuple(other for other in chain if other is not c)
        for c in chain:
            if lane.broken:
                lane.redo += (c,)
            else:
                _end(w, lane, c)
    elif len(answer) > 1:  # it is gone
        lane.running, lane.stage, lane.loaded = None, "", False
    else:
        lane.stage = "clear"


def _recorded(w: Worker, answer: list[Any], key: str, value: str) -> None:
    """P15: the code goes on with what stands."""
    lane = w.lanes[key]
    c = lane.running
    assert c
    if answer[1] is None:
        lane.running, lane.stage, lane.loaded = None, "", False
        return
    stands = answer[1].decode() or value
    lane.running = c._replace(journal=(*(c.journal or ()), (STEPS[c.kind], stands)))
    lane.stage = "clear"


def _postponed(w: Worker, answer: bytes, key: str) -> None:
    lane = w.lanes[key]
    lane.running, lane.stage = None, ""
    if answer != b"asleep":
        lane.asleep = lane.loaded = False


def _parked(w: Worker, answer: list[Any], key: str) -> None:
    w.lanes[key].parking -= 1


def _committed(w: Worker, answer: list[Any], batch: tuple[End, ...]) -> None:
    w.committing = False
    answers = list(zip(batch, words(answer, len(batch)), strict=True))
    undone = {e.command.key for e, word in answers if word != "applied"}
    answers += [(e, "conflict") for e in w.ended if e.command.key in undone]
    w.ended = tuple(e for e in w.ended if e.command.key not in undone)
    for e, word in answers:
        lane = w.lanes[e.command.key]
        lane.inflight -= 1
        if word != "applied":
            lane.broken = True
        if word == "conflict":
            lane.redo += (e.command,)


def _woke(w: Worker, answer: Any, keys: Sequence[str]) -> None:
    # a resend is only told "seen": who is woken for nothing reads its inbox's head and sees that it waits
    found = answer[1:] if answer[0] == b"done" else [b"ready"] * len(keys)
    for key, word in zip(keys, found, strict=True):
        if word == b"ready":
            _woken(_lane(w, key))


_EVENTS = {
    "acquire": _acquire, "read": _read, "effect": _effect, "park": _park_youngest, "wake": _wake, "release": _release,
    "reply": _reply, "over": lambda w: _over(w),
}  # fmt: skip
_ANSWERS = {
    "acquire": _acquired, "load": _loaded, "fetch": _fetched, "peek": _peeked, "start": _started, "record": _recorded,
    "postpone": _postponed, "park": _parked, "commit": _committed, "wake": _woke,
}  # fmt: skip


# -- one key goes on -------------------------------------------------------------------------------


def _go_on(w: Worker, lane: Lane) -> None:
    """Whatever needs no choice and no answer."""
    if lane.running:
        if lane.stage == "clear" and lane.inflight == 0:
            _after_clear(w, lane)
        if lane.running:
            return
    while True:
        if (lane.broken or lane.redo) and lane.inflight == 0:
            again = tuple(c._replace(journal=None, old=True) for c in (*lane.redo, *lane.queue))
            lane.queue, lane.redo = tuple(sorted(again, key=lambda c: c.order)), ()
            lane.broken = lane.loaded = False
        if lane.broken or lane.loading or lane.fetching:
            return
        if not lane.loaded:
            if (lane.queue or lane.inbox) and lane.inflight == 0:
                lane.loading = True
                names = (KEYS.ready, KEYS.instance(lane.key), KEYS.inbox(lane.key))
                w.sent += (Call("load", names, (lane.key,), ("load", lane.key)),)
            return
        if lane.asleep:
            _park_youngest(w, lane.key)
            lane.queue = ()
            return
        if not lane.queue:
            if lane.inbox and lane.inflight == 0 and lane.parking == 0 and w.caught_up:
                lane.fetching = True
                w.sent += (Call("@fetch", (lane.key,), (), ("fetch", lane.key, lane.parks)),)
            return
        head = lane.queue[0]
        if head.journal is None:
            lane.fetching = True
            ids = tuple(c.id for c in lane.queue if c.journal is None)
            w.sent += (Call("@peek", ids, (), ("peek", lane.key, ids)),)
            return
        lane.queue = lane.queue[1:]
        if "@cancel" in head.recorded:
            _end(w, lane, head, word="cancelled")
        elif head.kind == "add":
            chain = [head]
            while (
                lane.queue and lane.queue[0].kind == "add" and lane.queue[0].journal is not None and "@cancel" not in lane.queue[0].recorded
            ):
                chain.append(lane.queue[0])
                lane.queue = lane.queue[1:]
            chain = [c._replace(claimed=c.old or c.parked) for c in chain]
            if claims := [c.queued for c in chain if c.claimed]:
                lane.chain, lane.running, lane.stage = tuple(chain), head, "start"
                _send(w, "start", claims, then=("start", lane.key))
                return
            for c in chain:
                _end(w, lane, c)
        else:
            lane.running, lane.stage = head._replace(claimed=True), "start"
            _send(w, "start", [head.queued], then=("start", lane.key))
            return


def _after_clear(w: Worker, lane: Lane) -> None:
    """P3, P13: its start is answered and what it stands on is committed."""
    c = lane.running
    assert c
    if lane.broken:
        lane.redo += (c,)
        lane.running, lane.stage = None, ""
    elif c.kind == "pay" and "pay" not in c.recorded:
        lane.stage = "effect"
    elif c.kind == "pay":
        lane.running, lane.stage = None, ""
        _end(w, lane, c, c.recorded["pay"])
    elif "sleep@1" not in c.recorded:
        _record(w, lane, "due")
    elif c.parked:
        lane.running, lane.stage = None, ""
        _end(w, lane, c)
    else:
        behind = [b.queued for b in lane.queue if not b.parked]
        lane.queue, lane.inbox, lane.asleep, lane.stage = (), True, True, "postpone"
        wake = b'{"kind":"wake","key":"%b"}' % lane.key.encode()
        _send(w, "postpone", c.queued, (), behind, due_ms=NEVER_MS, wake_data=wake, then=("postpone", lane.key))


def _record(w: Worker, lane: Lane, value: str) -> None:
    c = lane.running
    assert c
    lane.stage = "record"
    _send(w, "record", [(c.id, STEPS[c.kind], value.encode(), b"1")], then=("record", lane.key, value))


def _end(w: Worker, lane: Lane, c: Cmd, value: str = "", word: str = "completed") -> None:
    w.ended += (End(c, lane.version, lane.data, value, word),)
    lane.inflight += 1
    if word == "completed":
        lane.version, lane.data = lane.version + 1, lane.data + after(c.id, value)


def after(id: str, value: str) -> str:
    """What a command adds to its instance's data, so that these tell which commands made them, in order, with which results."""
    return f"{id}{value};"


def state_at(version: int) -> str:
    return "" if version == 0 else "ON" if version % 2 else "OFF"


def _commit(w: Worker) -> None:
    batch, w.ended, w.committing = w.ended, (), True
    laid: list[Ended] = []
    for e in batch:
        q, source, target = e.command.queued, state_at(e.version), state_at(e.version + 1)
        if e.word == "cancelled":
            json = outcome.cancelled(q.id, q.key, q.transition, source, e.version, 1)
            laid.append(Ended(q, "cancelled", json, e.version, source=source, target=source))
            continue
        data = e.data + after(q.id, e.value)
        json = outcome.completed(q.id, q.key, q.transition, target, e.version + 1, 1, b'"%b"' % data.encode())
        laid.append(Ended(q, "completed", json, e.version, True, source, target, data.encode(), True))
    states, names, args = lay_out(laid, KEYS)
    _send(w, "commit", states, names, args, len(laid), then=("commit", batch))


def _park(w: Worker, lane: Lane, commands: Sequence[Cmd]) -> None:
    if commands:
        lane.inbox = True
        lane.parking += 1
        lane.parks += 1
        may_run = {lane.key: not lane.asleep}
        _send(w, "park", {lane.key: [c.queued for c in sorted(commands, key=lambda c: c.order)]}, may_run, then=("park", lane.key))


def _lane(w: Worker, key: str) -> Lane:
    return w.lanes.setdefault(key, Lane(key))


def _over(w: Worker) -> None:
    """The tenure has ended: nothing in memory counts any more; what was sent is still on its way."""
    w.token, w.lanes, w.ended, w.committing = "", {}, (), False
    w.sent = tuple(call if call.script == "acquire" else call._replace(then=()) for call in w.sent)


class _Sender:
    """Stands where the fence has its router, and keeps the call instead of sending it."""

    def run(self, script: str, keys: Sequence[str], *args: Any) -> Any:
        return Call(script, tuple(keys), args)


def _send(w: Worker, method: str, *what: Any, then: tuple[Any, ...], **how: Any) -> None:
    """A numbered call of the tenure, as the shipped fence words it."""
    fence = Fence(_Sender(), KEYS, w.token, w.name)  # type: ignore[arg-type]
    fence._number = w.number
    call: Any = getattr(fence, method)(*what, **how)
    w.number += 1
    w.sent += (call._replace(then=then),)


# -- who is no worker ------------------------------------------------------------------------------


def append(id: str, key: str, kind: str) -> Call:
    """A client's command, as the shipped client words it."""
    appender = Appender.__new__(Appender)
    appender._router, appender._reply = _Sender(), ""  # type: ignore[assignment]
    draft = Draft(KEYS, key, kind, b"{}", [], 1, id=id)
    call: Any = appender._run(KEYS, INCARNATION, [(draft, None)])  # type: ignore[list-item]
    return call._replace(then=(id,))  # type: ignore[no-any-return]


def cancel(id: str, key: str) -> Call:
    names = (
        KEYS.commands, KEYS.accepted, KEYS.outcomes_, KEYS.history, KEYS.timers, KEYS.timers_data, KEYS.steps(id), KEYS.ready,
        KEYS.inbox(key),
    )  # fmt: skip
    return Call("cancel", names, (id, outcome.cancelled(id, key, "", "", 0, 0), 100), (id,))


def renew(w: Worker) -> Call:
    """By its life's connection, as what was answered there and then."""
    return Call("renew", (KEYS.lease,), (LEASE_MS, w.token, 0 if w.sent else w.number))
