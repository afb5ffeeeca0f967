"""Whether the owners of other partitions can be heard: a look at their life signs, ten times a second (P5)."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable

import msgspec

from statemq.config import WorkerSettings
from statemq.keys import PartitionKeys
from statemq.store.router import Router
from statemq.store.wire import ReplyError, Wire
from statemq.worker.errands import Errands

log = logging.getLogger("statemq.worker")

Pair = tuple[PartitionKeys, str]
"""A partition and who is believed to own it."""

Tells = Callable[[PartitionKeys, str], None]


class Sight(msgspec.Struct, frozen=True):
    """Over which connection a peer was looked at, and which life signs of our own there were."""

    wire: Wire
    generation: int
    ours: tuple[int, ...]

    def continues(self, before: Sight | None) -> bool:
        """Whether what was seen before and what is seen now can be compared."""
        if before is None or (before.wire, before.generation) != (self.wire, self.generation):
            return False
        return not self.ours or any(a == b != 0 for a, b in zip(before.ours, self.ours, strict=True))


class Looks:
    """``owners``: who is believed to hold the partitions of others; replaced, never changed in place.

    It tells of each owner that has fallen silent, and when one of these can be heard again or is out of sight.
    ``own_signs``: the worker's own life signs in a slot, by the generations of their connections.
    """

    def __init__(
        self, worker: str, settings: WorkerSettings, heard_silent: Tells, heard_again: Tells, own_signs: Callable[[str], tuple[int, ...]]
    ) -> None:
        self.owners: dict[PartitionKeys, str] = {}
        self.seen_alive: dict[Pair, Sight] = {}
        self._told_silent: dict[Pair, Sight] = {}
        self._worker, self._settings = worker, settings
        self._heard_silent, self._heard_again, self._own_signs = heard_silent, heard_again, own_signs

    async def go_on(self, router: Router) -> None:
        with Errands() as errands:
            while True:
                await asyncio.sleep(self._settings.look_s)
                by_node: dict[Wire, list[Pair]] = {}
                for p, owner in self.owners.items():
                    if owner and owner != self._worker:
                        by_node.setdefault(router.wire_for(p.lease), []).append((p, owner))
                for wire, pairs in by_node.items():
                    errands.begin(wire, functools.partial(self.look, router, wire, pairs))

    async def look(self, router: Router, wire: Wire, pairs: list[Pair]) -> None:
        """P5: silent is who was seen subscribed over this very connection, and is not any more. Not while our own signs were all cut,
        too: what cut them may have cut the other's. Who is seen again, or cannot be said to be silent any more, is told of."""
        by_slot: dict[str, list[Pair]] = {}
        for pair in pairs:
            by_slot.setdefault(pair[0].tag if router.cluster else "", []).append(pair)
        for slot, group in by_slot.items():
            generation, server, ours = wire.generation, wire.address, self._own_signs(slot)
            try:
                counts = await wire.call("PUBSUB", "SHARDNUMSUB", *(p.alive_channel(owner) for p, owner in group))
            except ReplyError as error:
                log.warning("PUBSUB SHARDNUMSUB is refused (%s): a dead worker is noticed by its lease only", error)
                await asyncio.sleep(60)
                return
            if wire.generation != generation:
                return
            now = Sight(wire, generation, ours)
            subscribed = dict(zip(group, counts[1::2], strict=True))
            silent = [pair for pair, n in subscribed.items() if not n and now.continues(self.seen_alive.get(pair))]
            if silent and (not await router.is_current(server) or wire.generation != generation):
                return  # they followed a failover before us
            self.seen_alive |= {pair: now for pair, n in subscribed.items() if n}
            for pair, n in subscribed.items():
                if (told := self._told_silent.get(pair)) is not None and (n or not now.continues(told)):
                    del self._told_silent[pair]
                    self._heard_again(*pair)
            for pair in silent:
                del self.seen_alive[pair]
                self._told_silent[pair] = now
                self._heard_silent(*pair)
        for known in (self.seen_alive, self._told_silent):
            if len(known) > 4 * len(self.owners) + 64:
                current = set(self.owners.items())
                for pair in known.keys() - current:
                    del known[pair]
