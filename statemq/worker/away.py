"""That Redis is away is said while it is so, to whoever reads the log of a worker that does nothing."""

from __future__ import annotations

import asyncio

from statemq import events
from statemq.store.router import Router
from statemq.store.wire import Wire

LOOKS_EVERY_S = 0.25

ANSWERS_S = 0.2
"""A call that waits longer for its answer may be one that gets none."""

AWAY_S = 0.5
"""What is shorter is no news: a failover, or a connection that was cut."""

AGAIN_S = 30.0


async def tell_away(router: Router) -> None:
    """Says that Redis is away within a second, again now and then, and when it is back. In a cluster: that one of its nodes is."""
    now_s = asyncio.get_running_loop().time
    silent: dict[Wire, float] = {}
    """Since when; each for itself, and anew when it has heard something: many slow answers are no absence."""
    since_s = said_s = None
    while True:
        looked_s = now_s()
        await asyncio.sleep(LOOKS_EVERY_S)
        before, now = silent, now_s()
        silent = {wire: now - wire.quiet_s if wire.up else before.get(wire, now) for wire in router.nodes if _is_silent(wire)}
        # at the second look at the earliest, since a loop that stood still finds its answers only now
        away = [wire for wire, from_s in silent.items() if wire in before and from_s <= looked_s and now - from_s >= AWAY_S]
        if not silent:
            if since_s is not None:
                _warn(f"Redis at {router.address} answers again, after {now - since_s:.1f} s; the worker goes on")
            since_s = said_s = None
        elif away and (said_s is None or now - said_s >= AGAIN_S):
            since_s, said_s = min(silent[wire] for wire in away) if since_s is None else since_s, now
            why = away[0].trouble or "no answer"
            _warn(f"Redis at {router.address} is away ({why}), for {now - since_s:.1f} s by now; the worker tries again until it is back")


def _is_silent(wire: Wire) -> bool:
    """Whether it is down, or a call has waited for its answer. A worker that does nothing calls every three seconds: a black hole is
    noticed then. To ask more often would cost an idle worker more than all that it does."""
    return not wire.up or (not wire.idle and wire.quiet_s > ANSWERS_S)


def _warn(text: str) -> None:
    events.emit(events.Warned(text=text))
