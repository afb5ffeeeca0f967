"""The fenced calls of one tenure of one partition: numbered, in order, on one connection (P2).

Each method sends at once and returns the future of its reply; a reply of ``fenced`` or ``rewound``, or a
script error, ends the tenure: it is raised as one of the three errors below.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from statemq.config import FAILED_BYTES, FAILED_CAP, HISTORY_CAP
from statemq.keys import PartitionKeys, reply_channel
from statemq.store.commands import Queued, to_element
from statemq.store.effects import Arg, lay_out_effects, of_end
from statemq.store.router import Router
from statemq.store.wire import ReplyError

Record = tuple[str, str, bytes, bytes]
"""For a journal: command id, field, value, and when the command began if this may be its first (else empty)."""


class Lost(NamedTuple):
    """For a sweep: where an accepted command should be, as ``T:accepted`` says it, and its outcome if it is not there. ``reply`` and
    ``once`` if they are remembered: who hears of it, and its idempotency record."""

    id: str
    where: str
    outcome: bytes
    reply: str = ""
    once: str = ""


TRIM_EVERY = 16
"""Every so many commits of a tenure trim the history, the first one among them: so no more than a few batches stand above the cap (I8)."""


class TenureOver(Exception):
    """Nothing of this tenure may be written any more."""


class Fenced(TenureOver):
    """Another owner has the partition."""


class Rewound(TenureOver):
    """The store lacks a call before this one: it was set back (a failover), or that call failed."""


class ScriptFailed(TenureOver):
    """A script raised, before it wrote anything: somebody damaged a key by hand."""


class Closed(TenureOver):
    """This process is closing its connections."""


def failure(done: asyncio.Future[Any]) -> TenureOver | None:
    """How a finished call that has no answer ends the tenure; None when it has one."""
    if done.cancelled():
        return Closed()
    error = done.exception()
    if isinstance(error, ReplyError):
        return ScriptFailed(error.message)
    return None if error is None else Closed(str(error))


class Fence:
    """``token`` of the tenure, and the number of its last call."""

    __slots__ = ("_commits", "_last", "_number", "_router", "keys", "token", "worker")

    def __init__(self, router: Router, keys: PartitionKeys, token: str, worker: str) -> None:
        self._router, self.keys, self.token, self.worker = router, keys, token, worker
        self._number = 0
        self._commits = 0
        self._last: tuple[int, asyncio.Future[Any] | None] = (0, None)

    def _send(self, script: str, keys: Sequence[str], *args: Arg) -> asyncio.Future[Any]:
        number = self._number = self._number + 1
        sent = self._router.run(script, [self.keys.lease, *keys], self.token, number, *args)
        self._last = (number, sent)  # together, since another thread reads it
        return sent

    @property
    def answered(self) -> int:
        """How many calls the store has surely applied: all, if the last one is answered; else 0. For any thread."""
        number, sent = self._last
        applied = sent is None or (sent.done() and not sent.cancelled() and sent.exception() is None)
        return number if applied else 0

    @staticmethod
    def verdict(done: asyncio.Future[Any]) -> TenureOver | None:
        """How a finished call of this fence ends the tenure; None when it does not. Only its scripts give verdicts: what a plain read
        brings is data, whatever words are in it."""
        if (failed := failure(done)) is not None:
            return failed
        reply = done.result()
        word = reply[0] if type(reply) is list and reply else reply
        if word == b"fenced":
            return Fenced()
        return Rewound() if word == b"rewound" else None

    async def answer(self, sent: asyncio.Future[Any]) -> Any:
        """The reply to a call of this fence; raises TenureOver."""
        await asyncio.wait([sent])
        if over := self.verdict(sent):
            raise over
        return sent.result()

    def start(self, commands: Sequence[Queued]) -> asyncio.Future[Any]:
        keys = self.keys
        names = [keys.commands, keys.accepted]
        args: list[Arg] = []
        for c in commands:
            if c.parked:
                names.append(keys.steps(c.id))
            args += ("i" if c.parked else "s", c.entry, c.id, c.key, c.crashes)
            c.claimed = True
        return self._send("start", names, self.worker, len(commands), *args)

    def record(self, records: Sequence[Record]) -> asyncio.Future[Any]:
        keys = self.keys
        steps = keys.steps_
        names, ids, args = [keys.accepted], list[Arg](), list[Arg]()
        for id, field, value, started in records:
            names.append(steps + id)
            ids.append(id)
            args += (field, value, started)
        return self._send("record", names, len(records), *ids, *args)

    def park(self, by_key: dict[str, list[Queued]], may_run: dict[str, bool]) -> asyncio.Future[Any]:
        """Into the inboxes. Each key's commands in entry order."""
        keys = self.keys
        args: list[Arg] = []
        for key, commands in by_key.items():
            args += (key, "1" if may_run[key] else "0", len(commands))
            for c in commands:
                args += (c.entry, c.id, to_element(c))
        names = [keys.commands, keys.accepted, keys.ready]
        for key in by_key:
            names += (keys.inbox(key), keys.instance(key))
        return self._send("park", names, len(by_key), *args)

    def postpone(
        self,
        c: Queued,
        fields: Sequence[tuple[str, bytes]],
        behind: Sequence[Queued],
        *,
        due_ms: int = 0,
        wake_data: bytes = b"",
        paused: str = "",
    ) -> asyncio.Future[Any]:
        keys = self.keys
        names = [keys.commands, keys.accepted, keys.ready, keys.timers, keys.timers_data]
        names += [keys.steps(c.id), keys.inbox(c.key), keys.instance(c.key)]
        args: list[Arg] = [c.key, "i" if c.parked else "s", c.entry, c.id, to_element(c), due_ms, wake_data, paused, len(fields)]
        for field in fields:
            args += field
        args.append(len(behind))
        for b in behind:
            args += (b.entry, b.id, to_element(b))
        return self._send("postpone", names, *args)

    def wake(self, timers: Sequence[tuple[str, str, str, Sequence[Arg]]]) -> asyncio.Future[Any]:
        """``timers``: kind, command id, key, entry fields (delayed commands)."""
        keys = self.keys
        args: list[Arg] = []
        for kind, id, key, fields in timers:
            args += (kind, id, key, len(fields) // 2, *fields)
        names = [keys.commands, keys.accepted, keys.ready, keys.timers, keys.timers_data, *(keys.inbox(t[2]) for t in timers)]
        return self._send("wake", names, len(timers), *args)

    def commit(self, states: Sequence[str], keys: Sequence[str], args: Sequence[Arg], n: int) -> asyncio.Future[Any]:
        """``keys`` and ``args`` of the commands as ``store.commit`` lays them out."""
        k = self.keys
        names = [k.commands, k.accepted, k.outcomes_, k.history, k.ready, k.timers, k.timers_data]
        names += [k.in_state(s) for s in states]
        cap: Arg = "" if self._commits % TRIM_EVERY else HISTORY_CAP
        self._commits += 1
        return self._send("commit", [*names, *keys], self.worker, cap, len(states), *states, n, *args)

    def bury(
        self, c: Queued, outcome: bytes, attempts: int, reply: str, letter: Sequence[Arg], *, state: str = "", version: int = 0
    ) -> asyncio.Future[Any]:
        """``state`` and ``version`` of the instance, if they are known."""
        keys = self.keys
        names = [keys.commands, keys.accepted, keys.outcomes_, keys.history, keys.failed, keys.ready, keys.timers, keys.timers_data]
        names += [keys.inbox(c.key), keys.steps(c.id)]
        args: list[Arg] = [self.worker, HISTORY_CAP, FAILED_CAP, "i" if c.parked else "s", c.entry, c.id, c.key]
        args += [c.transition, outcome, attempts, reply, state, version if state else "", len(letter) // 2, *letter, FAILED_BYTES]
        more, tail = lay_out_effects((1, effect) for effect in of_end(c))
        return self._send("bury", [*names, *more], *args, *tail)

    def adopt(self, commands: Sequence[Queued]) -> asyncio.Future[Any]:
        args: list[Arg] = []
        for c in commands:
            args += (c.entry, c.id)
        return self._send("adopt", [self.keys.commands, self.keys.accepted], len(commands), *args)

    def drop(self, entries: Sequence[tuple[str, str]]) -> asyncio.Future[Any]:
        """``entries``: entry id, and the accepted field that names it or an empty text."""
        args: list[Arg] = []
        for entry in entries:
            args += entry
        return self._send("drop", [self.keys.commands, self.keys.accepted], len(entries), *args)

    def reread(self, key: str) -> asyncio.Future[Any]:
        return self._send("reread", [self.keys.ready, self.keys.instance(key), self.keys.inbox(key)], key)

    def skip(self, key: str) -> asyncio.Future[Any]:
        return self._send("skip", [self.keys.accepted, self.keys.ready, self.keys.inbox(key)], key)

    def sweep(self, lost: Sequence[Lost | tuple[str, str, bytes]]) -> asyncio.Future[Any]:
        keys = self.keys
        names, args = [keys.commands, keys.accepted, keys.outcomes_, keys.history, keys.timers, keys.timers_data], list[Arg]()
        for c in (Lost(*c) for c in lost):
            names += (keys.steps(c.id), keys.inbox(c.where.partition(" ")[2]))
            args += (c.id, c.where, c.outcome, c.reply, c.once)
        prefixes = reply_channel(keys.namespace, ""), keys.once_
        return self._send("sweep", names, self.worker, HISTORY_CAP, *prefixes, len(lost), *args)
