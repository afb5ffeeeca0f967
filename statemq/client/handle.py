"""A command that was sent, and its outcome as a result or an exception."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

from statemq.errors import Cancelled, CommandError, Failed, Rejected
from statemq.records import CommandStatus, Outcome

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Duration = float | timedelta | str
"""Seconds, or a timedelta."""

ENDS: dict[str, type[CommandError]] = {"rejected": Rejected, "failed": Failed, "cancelled": Cancelled}


class Sender(Protocol):
    """What a handle asks its client."""

    async def outcome_of(self, handle: Handle[Any], timeout: Duration | None) -> Outcome: ...

    async def show(self, id: str) -> CommandStatus: ...

    async def cancel(self, id: str) -> str: ...

    def decode_result(self, machine: str, outcome: Outcome) -> Any: ...


class Handle(Generic[R_co]):
    """One command by its ``id``. Costs nothing to keep or to drop: the command goes on either way."""

    __slots__ = ("_client", "_ended", "_since", "id", "key", "machine", "sent_here", "transition")

    def __init__(
        self,
        client: Sender,
        id: str,
        *,
        key: str = "",
        transition: str = "",
        sent_here: bool = False,
        since: int = 0,
        ended: Outcome | None = None,
    ) -> None:
        self._client, self._since, self._ended = client, since, ended
        self.id, self.key, self.transition = id, key, transition
        self.machine = id.partition(".")[0]
        self.sent_here = sent_here
        """Its outcome comes on this client's channel."""

    async def outcome(self, timeout: Duration | None = None) -> Outcome:
        """How the command ended, whichever way. Raises Pending after ``timeout``, Unknown."""
        if self._ended is None:
            self._ended = await self._client.outcome_of(self, timeout)
        return self._ended

    async def result(self, timeout: Duration | None = None) -> R_co:
        """What the transition returned. Raises Rejected, Failed, Cancelled; Pending after ``timeout``, Unknown."""
        outcome = await self.outcome(timeout)
        raise_unless_completed(self.machine, outcome)
        result: R_co = self._client.decode_result(self.machine, outcome)
        return result

    async def status(self) -> CommandStatus:
        """Where the command is and what it has done. Raises Unknown."""
        return await self._client.show(self.id)

    async def cancel(self) -> str:
        """``cancelled``, ``asked`` (it has begun; its owner ends it) or ``ended``. Raises Unknown."""
        return await self._client.cancel(self.id)

    def __repr__(self) -> str:
        return f"<Handle {self.id}>"


def raise_unless_completed(machine: str, outcome: Outcome) -> None:
    """Raises Rejected, Failed or Cancelled with all fields."""
    if outcome.outcome == "completed":
        return
    raise ENDS.get(outcome.outcome, Failed)(
        outcome.reason or outcome.outcome,
        id=outcome.id,
        machine=machine,
        key=outcome.key,
        transition=outcome.transition,
        state=outcome.state,
        code=outcome.code,
    )
