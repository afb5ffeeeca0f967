"""Every interleaving of a small scope: two workers, a client, and what can go wrong between them and Redis.

Depth first over what may happen next. A script call is one step of the server, so this is as fine as anybody can observe. One kind
of network fault covers all: a connection is cut, and what was unanswered on it may still be executed at any later time (a lost
answer, a late duplicate), in part, or never (a lost request); its sender sends it again. A crash is a cut without the sending again.
States that go on alike are looked at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

from tests.scope import promises
from tests.scope.model import KEYS, Call, Worker, append, cancel, effects, parkable, renew, step
from tests.scope.store import Box, State

Plan = tuple[tuple[str, str], ...]
"""Commands as (kind, key), in the order in which the client sends them."""


class Faults(NamedTuple):
    """How often each may happen on one way. ``lapses``: a lease elapses though its owner lives; ``rewinds``: a failover that lost
    the last call or two."""

    cuts: int = 0
    crashes: int = 0
    lapses: int = 0
    releases: int = 0
    parks: int = 0
    rewinds: int = 0
    cancels: int = 0
    stragglers: int = 0

    def less(self, name: str) -> Faults | None:
        left: int = getattr(self, name)
        return self._replace(**{name: left - 1}) if left else None


class World(NamedTuple):
    state: State
    workers: tuple[Worker, ...]
    lives: tuple[int, ...]
    sent: int
    """Commands of the plan that were answered."""
    ghosts: tuple[tuple[Call, ...], ...]
    """What may still arrive over connections that were cut."""
    left: Faults
    before: tuple[State, ...] = ()
    """What a failover can set back to."""

    def worker(self, i: int, w: Worker) -> World:
        return self._replace(workers=(*self.workers[:i], w, *self.workers[i + 1 :]))

    @property
    def digest(self) -> bytes:
        parts = [self.state.text, *(w.text for w in self.workers), str(self.lives), str(self.sent), str(self.left)]
        parts += [str(sorted([call.text for call in ghost] for ghost in self.ghosts))]
        if self.left.rewinds:
            parts += [s.text for s in self.before]
        return blake2b(_ranked("\n".join(parts)).encode(), digest_size=12).digest()


_STAMP = re.compile(r"\b1\d{12}(?:-\d+)?")


def _ranked(text: str) -> str:
    """Entry ids and epochs by their rank only: when it was does not matter, what came first does."""
    found = sorted({tuple(map(int, stamp.split("-"))) for stamp in _STAMP.findall(text)})
    ranks = {"-".join(map(str, stamp)): f"#{rank}" for rank, stamp in enumerate(found)}
    return _STAMP.sub(lambda m: ranks[m[0]], text)


class Choice(NamedTuple):
    """Something that may happen next: ``command`` to the server, if any, and the world after its answer."""

    label: str
    after: Callable[[Any, State], World]
    command: tuple[Any, ...] | None = None
    call: Call | None = None
    fault: bool = False
    broken: tuple[str, ...] = ()
    """Promises that it breaks by itself."""


class Violation(Exception):
    """``lines``: what was broken; ``way``: what had happened, in order."""

    def __init__(self, lines: list[str], way: list[str]) -> None:
        self.lines, self.way = lines, way
        super().__init__("\n".join(lines) + "\nafter:\n  " + "\n  ".join(way))


class Explored(NamedTuple):
    states: int
    steps: int
    ends: int
    depth: int
    complete: bool
    seconds: float

    def __str__(self) -> str:
        how = "all" if self.complete else "not all"
        return f"{how}: {self.states} states, {self.steps} steps, {self.ends} ends, depth {self.depth}, {self.seconds:.1f} s"


class Explorer:
    def __init__(self, box: Box, plan: Plan, faults: Faults, queued: int = 0) -> None:
        """``queued``: commands of the plan that lie in the stream from the beginning; the rest are sent as it goes on."""
        self.box, self.plan = box, plan
        self.ids = [f"c{n + 1}" for n in range(len(plan))]
        # P1: the clock stands behind the epoch, so that epochs repeat after a failover
        first = [("HSET", KEYS.lease, "incarnation", "i", "epoch", 1_999_999_999_999)] + [
            box.command(self._append(n)) for n in range(queued)
        ]
        workers = tuple(Worker(f"{name}1") for name in "ab")
        self.first = World(box.begin(first), workers, (1, 1), queued, (), faults)

    def _append(self, n: int) -> Call:
        kind, key = self.plan[n]
        return append(self.ids[n], key, kind)

    # -- what may happen ---------------------------------------------------------------------------

    def choices(self, world: World) -> Iterator[Choice]:
        for i, w in enumerate(world.workers):
            yield from self._of_worker(world, i, w)
        if world.sent < len(self.plan):
            call = self._append(world.sent)
            yield self._call(world, f"client: {call.script} {call.then[0]}", call, lambda answer: {"sent": world.sent + 1})
            if left := world.left.less("cuts"):
                yield self._local(f"client: cut at {call.then[0]}", world._replace(ghosts=(*world.ghosts, (call,)), left=left), True)
        for g, ghost in enumerate(world.ghosts):
            rest = (*world.ghosts[:g], *([ghost[1:]] if ghost[1:] else []), *world.ghosts[g + 1 :])
            label = f"late: {ghost[0].script} {ghost[0].args[:2] if ghost[0].script != 'append' else ghost[0].then}"
            yield self._call(world, label, ghost[0], lambda answer, rest=rest: {"ghosts": rest}, fault=True)
        yield from self._of_time(world)

    def _of_worker(self, world: World, i: int, w: Worker) -> Iterator[Choice]:
        s, lease, left = world.state, world.state.hash("lease"), world.left
        own = lease.get("token", "")

        def local(label: str, *event: Any, fault: bool = False, **changes: Any) -> Choice:
            return self._local(f"{w.name}: {label}", world.worker(i, step(w, *event))._replace(**changes), fault)

        if w.sent:
            call = w.sent[0]
            label = f"{w.name}: {call.script} {call.args[1] if call.script in promises.NUMBERED else ''}"
            if call.script.startswith("@"):
                yield self._local(label, world.worker(i, step(w, "reply", _plain_read(s, call))), False)
            else:
                yield self._call(world, label, call, lambda answer: {"workers": world.worker(i, step(w, "reply", answer)).workers})
            over = tuple(call for call in w.sent if not call.script.startswith("@") and call.script != "load")[:2]
            if over and (fewer := left.less("cuts")):
                yield self._local(f"{w.name}: cut", world._replace(ghosts=(*world.ghosts, over), left=fewer), True)
        if (w.sent or w.token) and (fewer := left.less("crashes")):
            over = tuple(call for call in w.sent if not call.script.startswith("@") and call.script != "load")[:2]
            life = world.lives[i] + 1
            died = world.worker(i, Worker(f"{w.name[0]}{life}"))
            died = died._replace(lives=(*world.lives[:i], life, *world.lives[i + 1 :]), left=fewer)
            yield self._local(f"{w.name}: dies", died._replace(ghosts=(*world.ghosts, over) if over else world.ghosts), True)
        if not w.token:
            free = not own or lease.get("deadline") == "0" or lease.get("owner") == w.name
            first = i == 0 or world.lives[0] > 1 or world.workers[0].acquires  # until then the two are alike
            if free and first and not any(call.script == "acquire" for call in w.sent):
                yield local("acquires", "acquire", own, lease.get("owner", ""))
            return
        entries = [e for e in s.stream if _order(e[0]) > _order(w.position)]
        if entries or not w.caught_up:
            yield local(f"reads {[f.get('id', '@look') for _, f in entries]}", "read", entries, sorted(s.zset("ready")))
        for key in effects(w):
            running = w.lanes[key].running
            assert running
            found = list(promises.of_effect(s, running.id, w.token))
            yield local(f"step of {running.id}", "effect", key)._replace(broken=tuple(found))
            if fewer := left.less("stragglers"):
                yield local(f"step of {running.id}, and an earlier run of it", "effect", key, True, fault=True, left=fewer)
        if fewer := left.less("parks"):
            for key, n in parkable(w):
                yield local(f"parks {n} of {key}", "park", key, n, fault=True, left=fewer)
        due = tuple(sorted((id, s.accepted[id].partition(" ")[2]) for id, at in s.zset("timers").items() if at == 0))
        if due and w.caught_up and not any(call.script == "wake" for call in w.sent):
            yield local("wakes", "wake", due)
        if not w.busy and (fewer := left.less("releases")):
            yield local("releases", "release", fault=True, left=fewer)
        set_back = not w.busy and own == w.token and int(lease["call"]) < w.number  # an idle owner learns it by its renewal
        if set_back or own != w.token or lease.get("deadline") == "0":
            yield self._call(
                world, f"{w.name}: renews", renew(w),
                lambda answer: {"workers": world.worker(i, step(w, "over")).workers} if answer == [b"rewound"] else {},
            )  # fmt: skip

    def _of_time(self, world: World) -> Iterator[Choice]:
        s, lease = world.state, world.state.hash("lease")
        token = lease.get("token", "")
        if token and lease.get("deadline") != "0":
            alive = any(w.token == token for w in world.workers)
            if left := world.left.less("lapses") if alive else world.left:
                yield self._command(world, "the lease elapses", ("HSET", KEYS.lease, "deadline", "0"), alive, left=left)
        for id, at in s.zset("timers").items():
            if at != 0:
                yield self._command(world, f"the timer of {id} is due", ("ZADD", KEYS.timers, 0, id), False)
        if world.before and (left := world.left.less("rewinds")):
            for n, state in enumerate(world.before):
                yield self._local(f"failover: {n + 1} calls are lost", world._replace(state=state, ghosts=(), left=left, before=()), True)
        if left := world.left.less("cancels"):
            for n, id in enumerate(self.ids):
                if id in s.accepted:
                    yield self._call(world, f"cancel {id}", cancel(id, self.plan[n][1]), lambda answer: {"left": left}, fault=True)

    def _local(self, label: str, world: World, fault: bool) -> Choice:
        return Choice(label, lambda answer, state: world, fault=fault)

    def _command(self, world: World, label: str, command: tuple[Any, ...], fault: bool, **changes: Any) -> Choice:
        return Choice(label, lambda answer, state: world._replace(state=state, **changes), command, fault=fault)

    def _call(self, world: World, label: str, call: Call, after: Callable[[Any], dict[str, Any]], fault: bool = False) -> Choice:
        def happened(answer: Any, state: State) -> World:
            before = world.before
            if world.left.rewinds and call.script not in ("append", "load") and state.text != world.state.text:
                before = (world.state, *before)[:2]
            return world._replace(state=state, before=before, **after(answer))

        return Choice(label, happened, self.box.command(call), call, fault)

    # -- looking at all of it ----------------------------------------------------------------------

    def run(self, limit: int = 1_000_000_000, deadline_s: float = float("inf")) -> Explored:
        """Looks at every state, or at ``limit`` of them. Raises Violation."""
        began_s = time.monotonic()
        number = {self.first.digest: 0}
        parents: list[tuple[int, str]] = [(-1, "")]
        depths = [0]
        befores: list[list[int]] = [[]]
        """For each state, those from which it is reached without a fault."""
        done: list[int] = []
        stack = [(0, self.first)]
        steps = 0
        complete = True
        while stack:
            at, world = stack.pop()
            if len(number) >= limit or time.monotonic() - began_s > deadline_s:
                complete = False
                break
            any_way = False
            for choice, answer, state in self._tried(world):
                steps += 1
                found = self._judged(world, choice, answer, state)
                if found:
                    raise Violation(found, [*_way(parents, at), choice.label])
                after = choice.after(answer, state)
                digest = after.digest
                there = number.get(digest)
                if there is None:
                    there = number[digest] = len(parents)
                    parents.append((at, choice.label))
                    depths.append(depths[at] + 1)
                    befores.append([])
                    stack.append((there, after))
                    found = list(promises.of_state(after.state)) if after.state is not world.state else []
                    found += promises.of_workers(after.workers)
                    if found:
                        raise Violation(found, _way(parents, there))
                if not choice.fault and there != at:
                    befores[there].append(at)
                    any_way = True
            if not any_way or self._finished(world):
                if found := list(promises.of_end(world.state, [] if self.first.left.rewinds else self.ids)):
                    raise Violation(found, _way(parents, at))
                done.append(at)
        if complete:
            stuck = _cut_off(befores, done)
            if stuck is not None:
                raise Violation(["from here the work is never done, though nothing goes wrong any more"], _way(parents, stuck))
        return Explored(len(parents), steps, len(done), max(depths), complete, time.monotonic() - began_s)

    def _tried(self, world: World) -> Iterator[tuple[Choice, Any, State]]:
        choices = list(self.choices(world))
        asked = [c for c in choices if c.command is not None]
        tried = iter(self.box.tries(world.state, [c.command for c in asked if c.command is not None]))
        for choice in choices:
            answer, state = (None, world.state) if choice.command is None else next(tried)
            yield choice, answer, state

    def _judged(self, world: World, choice: Choice, answer: Any, state: State) -> list[str]:
        if choice.command is None:
            return list(choice.broken)
        found = list(promises.over_time(world.state, state))
        if choice.call is not None:
            found += promises.of_call(world.state, choice.call, answer, state)
        elif isinstance(answer, Exception):
            found.append(str(answer))
        return found

    def _finished(self, world: World) -> bool:
        """Nothing is left to do but what goes wrong. An owner that has just come serves what is ready, be it ended, when it has read on."""
        s = world.state
        done = world.sent == len(self.plan) and not s.accepted and not s.stream and not s.zset("ready")
        return done and all(not w.sent and not w.ended for w in world.workers)


def _way(parents: list[tuple[int, str]], at: int) -> list[str]:
    way = []
    while at > 0:
        at, label = parents[at]
        way.append(label)
    return way[::-1]


def _cut_off(befores: list[list[int]], done: list[int]) -> int | None:
    """A state from which no end is reached without a further fault."""
    reached = set(done)
    stack = list(done)
    while stack:
        for before in befores[stack.pop()]:
            if before not in reached:
                reached.add(before)
                stack.append(before)
    return next((n for n in range(len(befores)) if n not in reached), None)


def _order(entry: str) -> tuple[int, ...]:
    return tuple(map(int, entry.split("-")))


def _plain_read(s: State, call: Call) -> Any:
    """What a worker reads without a script: the journal of a command, or its key's inbox with all that belongs to it."""
    if call.script == "@peek":
        return [_journal(s, id) for id in call.keys]
    [name] = call.keys
    found = []
    for element in s.inbox(name):
        entry, id = element.split(" ", 2)[:2]
        found.append((element, s.accepted.get(id, "").startswith(f"@{entry} "), _journal(s, id)))
    return found


def _journal(s: State, id: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(s.hash(f"steps:{id}").items()))
