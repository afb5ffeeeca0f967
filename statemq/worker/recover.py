"""After a takeover: keys whose inbox may run, once all that is older was read (P9)."""

from __future__ import annotations

from statemq.worker.partition import Partition

AT_ONCE = 128


def serve_ready(p: Partition) -> None:
    """Each key of ``T:ready`` gets its turn; a lane with older commands in memory takes those first."""
    p.spawn(_serve(p))


async def _serve(p: Partition) -> None:
    # a scan: it meets each key that stays in T:ready, whatever comes and goes meanwhile
    cursor = b"0"
    while not p.closed:
        while (p.crowded or p.room() == 0) and not p.closed:
            await p.roomy()
        cursor, rows = await p.ask("ZSCAN", p.keys.ready, cursor, "COUNT", AT_ONCE)
        for key in rows[::2]:
            p.lane(key.decode()).woken()
        if cursor == b"0":
            return
