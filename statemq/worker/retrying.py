"""Steps that have failed and are tried again, as the journal tells those who look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from statemq.store.wire import swallow

if TYPE_CHECKING:
    from statemq.worker.execute import Attempt

TRIES = "@tries"
"""In a journal: such steps by name. One that has a record by now has ended, whatever this says of it."""

MOST, LONGEST = 20, 300
"""Steps that it tells of, the last to fail, and characters of an error."""


class Tried(msgspec.Struct, frozen=True):
    tries: int
    error: str
    since: int
    """When it failed first, in ms of the partition's time, whichever owner tried it."""
    due: int
    """When it is tried again."""


_read = msgspec.json.Decoder(dict[str, Tried]).decode
_write = msgspec.json.Encoder().encode


def note(attempt: Attempt, field: str, error: str, wait_ms: int) -> None:
    """The step has failed once more. Nobody waits for this to be stored: who looks may see it a moment later."""
    command, now = attempt.command, attempt.partition.now_ms()
    told = _told(command.journal.get(TRIES))
    before = told.pop(field, None)
    kept = {name: tried for name, tried in told.items() if name in attempt.running}
    tries, since = (1, now) if before is None else (before.tries + 1, before.since)
    kept[field] = Tried(tries, error[:LONGEST], since, now + wait_ms)
    value = command.journal[TRIES] = _write(dict(list(kept.items())[-MOST:]))
    command.journalled = True
    swallow([attempt.partition.batches.record(command, TRIES, value)])


def _told(raw: bytes | None) -> dict[str, Tried]:
    """Nothing where somebody wrote something else by hand: it is overwritten."""
    try:
        return _read(raw) if raw else {}
    except msgspec.MsgspecError:
        return {}
