"""Events as log lines; the only place that words them."""

from __future__ import annotations

import logging

from statemq import events
from statemq.codec import rfc3339
from statemq.events import Event

worker = logging.getLogger("statemq.worker")
transition = logging.getLogger("statemq.transition")


def listen(*, transitions: bool = False) -> None:
    """From now on events are logged; with ``transitions`` a line for each command, too. A second call changes nothing."""
    if tell not in events.listeners:
        events.listeners.append(tell)
    if transitions and tell not in events.followers:
        events.followers.append(tell)


def tell(event: Event) -> None:
    """Logs one event: a line for each transition with its steps and durations, one for what an operator should know."""
    level, text = _words(event)
    where = transition if isinstance(event, events.CommandEvent) else worker
    if where.isEnabledFor(level):
        where.log(level, "%s", _plain(text))


def _words(event: Event) -> tuple[int, str]:
    match event:
        case events.Started(attempt=attempt, crashes=crashes, recorded=recorded):
            again = f"; {recorded} {'record stands' if recorded == 1 else 'records stand'}" if recorded else ""
            died = f", its worker died {_times(crashes)}" if crashes else ""
            level = logging.INFO if attempt > 1 or crashes or recorded else logging.DEBUG
            return level, f"{_of(event)}: begins (attempt {attempt}{died}{again})"
        case events.Recorded(step=step, took_ms=took_ms):
            return logging.DEBUG, f"{_of(event)}: {step} done in {_span(took_ms)}"
        case events.Waits(until_ms=until_ms, left=left):
            return logging.DEBUG, f"{_of(event)}: waits until {rfc3339(until_ms)}{' outside memory' if left else ''}"
        case events.Retried(attempt=attempt, error=error, wait_ms=wait_ms):
            return logging.WARNING, f"{_of(event)}: attempt {attempt} failed ({error}); again in {_span(wait_ms)}"
        case events.Ended():
            return _end(event)
        case events.Acquired(taken_from=taken_from, crashed=crashed, reclaimed=reclaimed):
            how = f" from {taken_from}, which {'died' if crashed else 'fell silent'}" if taken_from else ""
            more = f"; {reclaimed} {'command was' if reclaimed == 1 else 'commands were'} in progress" if reclaimed else ""
            return logging.DEBUG, f"{_at(event)} acquired{how}{more}"
        case events.TookOver(taken_from=taken_from, crashed=crashed, partitions=partitions, reclaimed=reclaimed):
            what = "1 partition" if partitions == 1 else f"{partitions} partitions"
            more = f"; {reclaimed} {'command was' if reclaimed == 1 else 'commands were'} in progress" if reclaimed else ""
            return logging.INFO, f"{event.machine}: {what} acquired from {taken_from}, which {'died' if crashed else 'fell silent'}{more}"
        case events.Released():
            return logging.DEBUG, f"{_at(event)} released"
        case events.Fenced(why=why):
            return logging.WARNING, f"{_at(event)} lost ({why}); nothing of it is written any more"
        case events.Warned(text=text):
            return logging.WARNING, text
        case events.Failing(text=text):
            return logging.ERROR, text
    return logging.DEBUG, repr(event)


def _end(e: events.Ended) -> tuple[int, str]:
    way = f" {e.source} → {e.target}" if e.outcome == "completed" and e.target != e.source else ""
    took = f" in {_span(e.took_ms)}" if e.took_ms else ""
    steps = f" [{' · '.join(f'{name} {_span(ms)}' for name, ms in e.steps)}]" if e.steps else ""
    attempts = f" (attempt {e.attempts})" if e.attempts > 1 and not e.reason.endswith(" attempts)") else ""
    reason = f": {e.reason}" if e.reason else ""
    level = logging.ERROR if e.outcome == "failed" else logging.INFO
    return level, f"{_of(e)}{way} {e.outcome}{reason}{took}{attempts}{steps}"


def _of(e: events.CommandEvent) -> str:
    return f"{e.machine}/{e.key} {e.transition}"


def _at(e: Event) -> str:
    return f"{e.machine}:{e.partition}"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _span(ms: int) -> str:
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def _plain(text: str) -> str:
    """Control characters of keys and errors as escapes: one event is one line (S15)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
