"""That Redis is away is said while it is so, to whoever reads the log of a worker that does nothing."""

from __future__ import annotations

import asyncio
import time

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
    since_s: float | None = None
    said_s: float | None = None
    while True:
        await asyncio.sleep(LOOKS_EVERY_S)
        now_s = time.monotonic()
        silent = [wire for wire in router.nodes if _is_silent(wire)]
        if not silent:
            if since_s is not None and said_s is not None:
                _warn(f"Redis at {router.address} answers again, after {now_s - since_s:.1f} s; the worker continues")
            since_s = said_s = None
            continue
        if since_s is None:  # said at the next look at the earliest, since a loop that stood still finds its answers only now
            since_s = now_s - max(wire.quiet_s if wire.up else 0.0 for wire in silent)
        elif now_s - since_s >= AWAY_S and (said_s is None or now_s - said_s >= AGAIN_S):
            said_s = now_s
            why = silent[0].trouble or "no answer"
            _warn(f"Redis at {router.address} is away ({why}), for {now_s - since_s:.1f} s by now; the worker tries again until it is back")


def _is_silent(wire: Wire) -> bool:
    """Whether it is down, or a call has waited for its answer. A worker that does nothing calls every three seconds: a black hole is
    noticed then. To ask more often would cost an idle worker more than all that it does."""
    return not wire.up or (not wire.idle and wire.quiet_s > ANSWERS_S)


def _warn(text: str) -> None:
    events.emit(events.Warned(text=text))
