"""The engine behind the ``ctx`` of a body: what it calls gets the name by which the journal knows it, in the order of the calls."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from statemq.config import LIMITS
from statemq.errors import Fail, unicode
from statemq.retry import Retry
from statemq.worker.branches import STANDING
from statemq.worker.pure import Logger, uuid_of
from statemq.worker.step import Step, StepRecord, asked, decode_record, encode_record
from statemq.worker.waits import Timeout

if TYPE_CHECKING:
    from statemq.worker.execute import Attempt

NOW = "now@"
"""How the journal names times that ``ctx.now`` told and that nothing else in it says."""

_NUMBERED = re.compile(r"#\d+$")
_good: set[str] = set()
"""Names of steps that were looked at."""
_PLACE = re.compile(r"[\d.]+")


class InvalidName(Fail, ValueError):
    """A step, sleep, uuid or time-out is called what nothing can be called: the command fails for good, since each attempt calls it so."""


class Engine:
    __slots__ = ("_attempt", "_names")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._names: dict[str, int] = {}

    @property
    def replaying(self) -> bool:
        return bool(self._attempt.unread)

    @property
    def logger(self) -> Logger:
        return Logger(self._attempt.partition.spec.name, self._attempt.command.key, self)

    def now_ms(self) -> int:
        attempt = self._attempt
        if type(STANDING.get()) is Step:  # what a step makes of the time is in its record
            return attempt.clock_ms
        branch = attempt.branches.here()
        field = f"{NOW}{branch.path}{branch.count(NOW)}"
        if attempt.order is None and "@started" in attempt.command.journal:
            return attempt.clock_ms  # the last record this one branch has passed says it
        if (raw := attempt.command.journal.get(field)) is not None:
            return decode_record(raw).at
        if attempt.is_open:
            attempt.check_room()
            value = encode_record(StepRecord(at=attempt.clock_ms, n=attempt.count()))
            attempt.command.journal[field] = value
            attempt.noted = attempt.send(field, value)
        return attempt.clock_ms

    def uuid(self, name: str = "") -> uuid.UUID:
        return uuid_of(self._attempt.command, self._place("uuid@", name).removeprefix("uuid@"))

    def random(self) -> random.Random:
        return self._attempt.branches.here().random()

    def step(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], retry: Retry | None, timeout_ms: int | None, returns: Any
    ) -> Coroutine[Any, Any, Any]:
        self._attempt.check_open()
        field = self._name(name)
        if self._attempt.order is not None:
            self._attempt.branches.use()
        called = self._attempt.called[field] = self._attempt.step(asked(field, fn, args, retry, timeout_ms, returns))
        return called

    def sleep(self, ms: int, name: str = "") -> Coroutine[Any, Any, None]:
        self._attempt.check_open()
        field = self._place("sleep@", name)
        if self._attempt.order is not None:
            self._attempt.branches.use()
        called = self._attempt.called[field] = self._attempt.sleep(field, ms)
        return called

    def timeout(self, ms: int, name: str = "") -> Timeout:
        self._attempt.check_open()
        field = self._place("timeout@", name)
        called = self._attempt.called[field] = Timeout(self._attempt, field, ms)
        return called

    def _place(self, kind: str, name: str) -> str:
        """Which one of its branch it is: the one of that name, or else by its number. No other branch's is called so."""
        branch = self._attempt.branches.here()
        if name:
            _check_name(kind[:-1], name)
            if _PLACE.fullmatch(name):
                raise _invalid(kind[:-1], name, "those without a name are counted so")
            n = branch.count(kind + name)
            return f"{kind}{branch.path}{name}" if n == 1 else f"{kind}{branch.path}{name}#{n}"
        return f"{kind}{branch.path}{branch.count(kind)}"

    def _name(self, name: Any) -> str:
        """The step's field: its name, and its number if the name repeats."""
        if isinstance(name, str) and "#" in name and name in self._attempt.command.journal and self._attempt.began_before():
            return name  # a former version let it pass
        if type(name) is not str or name not in _good:
            _check_name("step", name)
            if len(_good) < 1024:
                _good.add(name)
        # counted when called, not when awaited: branches made in one order count in that order at each attempt
        n = self._names[name] = self._names.get(name, 0) + 1
        return name if n == 1 else f"{name}#{n}"


def _check_name(what: str, name: Any) -> None:
    if not isinstance(name, str):
        written = getattr(name, "__name__", "function")
        why = f'write the name first: ctx.step("{written}", {written}, *arguments)' if callable(name) and what == "step" else "give a text"
        raise _invalid(what, repr(name), why)
    if not name or len(name.encode(errors="replace")) > LIMITS.step_name or "@" in name:
        raise _invalid(what, name, f'1 to {LIMITS.step_name} bytes, without "@"')
    if unicode(name) != name:
        raise _invalid(what, name, "it has a lone surrogate, which is no valid Unicode")
    if "#" in name and _NUMBERED.search(name):
        raise _invalid(what, name, '"#" and a number at the end tell repeats of a name apart')


def _invalid(what: str, name: str, why: str) -> InvalidName:
    return InvalidName(f'"{name[:80]}" cannot name a {what}: {why}', "name")
