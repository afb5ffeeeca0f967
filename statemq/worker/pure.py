"""The engine behind the ``ctx`` of a plain ``def``, and the logger of every body."""

from __future__ import annotations

import logging
import random
import uuid
from typing import TYPE_CHECKING, Any, NoReturn

from statemq.context import Context, InvalidCall
from statemq.store.commands import Queued

if TYPE_CHECKING:
    from statemq.worker.engine import Engine

_UUIDS = uuid.UUID("6f1f0a52-6a6b-4c0e-9f0a-3f5d1c1f7a10")
_log = logging.getLogger("statemq.transition")


def uuid_of(command: Queued, place: int | str) -> uuid.UUID:
    return uuid.uuid5(_UUIDS, f"{command.identity}/{place}")


class Logger(logging.LoggerAdapter[logging.Logger]):
    """Names the instance; says nothing while recorded steps are passed again."""

    def __init__(self, machine: str, key: str, engine: Engine | Pure) -> None:
        super().__init__(_log, {})
        self._machine, self._key, self._engine = machine, key, engine

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        return not self._engine.replaying and self.logger.isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            name = f"{self._machine}/{self._key}"
            if args:  # only then is it a format, in which a key's "%" would be one too (S15)
                name = name.replace("%", "%%")
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # the body's line, not this one
            self.logger.log(level, f"{name}: {msg}", *args, **kwargs)


class Pure:
    """The engine behind the ``ctx`` of a plain ``def``: it has the command's name, time and chance, but can wait for nothing."""

    __slots__ = ("_at_ms", "_command", "_machine", "_random", "_uuids")
    replaying = False

    def __init__(self, machine: str, command: Queued, at_ms: int) -> None:
        self._machine, self._command, self._at_ms, self._uuids = machine, command, at_ms, 0
        self._random: random.Random | None = None

    def context(self) -> Context:
        return Context(self, self._command.key, self._command.id, self._command.attempts + 1, self._command.origin)

    def now_ms(self) -> int:
        return self._at_ms

    def uuid(self, name: str = "") -> uuid.UUID:
        self._uuids += not name
        return uuid_of(self._command, f"uuid{name}" if name else self._uuids)

    def random(self) -> random.Random:
        if self._random is None:
            self._random = random.Random(self._command.identity)  # noqa: S311 - stable under replay, not secret
        return self._random

    @property
    def logger(self) -> Logger:
        return Logger(self._machine, self._command.key, self)

    def step(self, name: str, *_: Any) -> NoReturn:
        raise InvalidCall(f"ctx.step({name!r}, …) needs an async def transition: a plain def cannot wait")

    def sleep(self, ms: int, name: str = "") -> NoReturn:
        raise InvalidCall("ctx.sleep needs an async def transition: a plain def cannot wait")

    def timeout(self, ms: int, name: str = "") -> NoReturn:
        raise InvalidCall("ctx.timeout needs an async def transition: a plain def cannot wait")
