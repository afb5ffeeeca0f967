"""What a worker knows of its peers: who lives, who has fallen silent, whose process has ended (P5, P14).

Only the end of a process is known for good. All else is asked for whenever a plan is made, so that nobody is left out for longer than it
is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from statemq.config import WorkerSettings
from statemq.declaration.spec import MachineSpec
from statemq.keys import PartitionKeys
from statemq.store import lease
from statemq.store.declare import Config
from statemq.store.lease import Held
from statemq.store.router import Router
from statemq.worker.looks import Pair
from statemq.worker.process import Fate, fate_of

CONFIRM_S = 0.025
"""Between two looks at a silent owner (P5): enough for a living one to subscribe anew."""

LAGS = 25
"""A thread that runs so much late at each turn is heard again after so many turns: each waits for the processor once more."""


class Served(msgspec.Struct):
    """A machine as this worker serves it. ``live``: its peers, by the registry; ``view``: who holds each partition, as far as known."""

    spec: MachineSpec
    config: Config
    keys: list[PartitionKeys]
    live: set[str] = set()
    view: list[Held] = []
    surveyed: bool = False
    """``view`` is what was read; before that, nothing is known to be free."""

    @property
    def owners(self) -> set[str]:
        return {held.owner for held in self.view if held.token}


class Peers:
    """``changed`` is called when a plan that was made may not be right any more."""

    def __init__(
        self,
        router: Router,
        namespace: str,
        settings: WorkerSettings,
        served: dict[str, Served],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        changed: Callable[[], None],
    ) -> None:
        self._router, self._namespace, self._settings, self._served = router, namespace, settings, served
        self._spawn, self._changed = spawn, changed
        self._silent: dict[Pair, float] = {}
        """Since when an owner that was heard before cannot be heard."""
        self._dead: set[Pair] = set()
        """Of these, who would have been heard again if it lived, as far as can be known from here."""
        self._weighed: set[str] = set()
        self._processes: dict[str, str] = {}
        """The names of their processes, as they say them."""
        self._ended: set[str] = set()

    # -- for plans ---------------------------------------------------------------------------------

    def gone(self, served: Served) -> set[str]:
        """Who gets no share: it has ended, or cannot be heard by who should hear it."""
        return self._ended | {owner for partition, owner in self._dead if self._is_owner(served, partition, owner)}

    def is_dead(self, partition: PartitionKeys, owner: str) -> bool:
        """Whether what it holds may be taken before its lease is over."""
        return owner in self._ended or (partition, owner) in self._dead

    def fate(self, worker: str) -> Fate:
        """Of its process, as far as that can be seen from here."""
        return Fate.ended if worker in self._ended else fate_of(self._processes.get(worker, ""))

    # -- what is heard -----------------------------------------------------------------------------

    def heard_silent(self, partition: PartitionKeys, owner: str) -> None:
        if not self._is_owner(self._served[partition.machine], partition, owner):
            return
        self._silent[partition, owner] = asyncio.get_running_loop().time()
        self._find_ended({owner})
        if owner not in self._weighed:
            self._weighed.add(owner)
            self._spawn(self._weigh(partition.machine, owner))

    def heard_again(self, partition: PartitionKeys, owner: str) -> None:
        """It is subscribed, or what was heard of it before says nothing any more."""
        self._silent.pop((partition, owner), None)
        if (partition, owner) in self._dead:
            self._dead.discard((partition, owner))
            self._changed()

    def heard_live(self, served: Served) -> None:
        """The registry was read. Who died without holding anything is found here, and must get no share."""
        self._find_ended(served.live)
        if not served.live <= self._processes.keys():
            self._spawn(self.look(served))

    async def look(self, served: Served) -> None:
        """It is known whose processes have ended, of this host's."""
        workers = served.live | served.owners
        self._processes |= {held.owner: held.process for held in served.view if held.process}
        if unknown := sorted(worker for worker in workers if not self._processes.get(worker)):
            said = await lease.abouts(self._router, self._namespace, served.spec.name, unknown)
            self._processes |= {worker: about.process for worker, about in said.items()}
        self._find_ended(workers)
        self._forget()

    def _find_ended(self, workers: set[str]) -> None:
        ended = {worker for worker in workers if self.fate(worker) is Fate.ended}
        if not ended <= self._ended:
            self._ended |= ended
            self._changed()

    async def _weigh(self, machine: str, owner: str) -> None:
        """Finds out what an owner's silence means. Nothing, as long as its process lives; where that cannot be seen from here, its end, if
        it is not heard again within the time that it would need: a process whose threads hold the interpreter is slow to come back."""
        loop = asyncio.get_running_loop()
        try:
            about = (await lease.abouts(self._router, self._namespace, machine, [owner]))[owner]
            if about.process:
                self._processes[owner] = about.process
            wait_s = min(max(CONFIRM_S, LAGS * about.lag_ms / 1000), self._settings.lease_ms / 1000)
            while silent := self._silent_of(owner):
                fate = self.fate(owner)
                for_long = {pair for pair in silent if loop.time() - self._silent[pair] >= wait_s}
                if fate is Fate.ended:
                    return self._find_ended({owner})
                if fate is Fate.unknown and for_long == silent:
                    self._dead |= silent
                    return self._changed()
                await asyncio.sleep(CONFIRM_S if fate is Fate.unknown else self._settings.look_s)
        finally:
            self._weighed.discard(owner)

    def _silent_of(self, owner: str) -> set[Pair]:
        """Its partitions by which it cannot be heard and that it still holds, as far as known."""
        return {pair for pair in self._silent if pair[1] == owner and self._is_owner(self._served[pair[0].machine], *pair)}

    def _is_owner(self, served: Served, partition: PartitionKeys, owner: str) -> bool:
        return partition.machine == served.spec.name and served.view[partition.number].owner == owner

    def _forget(self) -> None:
        """What is kept is of those that are there, or were a moment ago."""
        known = {worker for served in self._served.values() for worker in (*served.live, *served.owners)}
        self._processes = {worker: name for worker, name in self._processes.items() if worker in known}
        self._ended &= known
        self._silent = {pair: since_s for pair, since_s in self._silent.items() if self._is_owner(self._served[pair[0].machine], *pair)}
        self._dead &= self._silent.keys()
