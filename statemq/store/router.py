"""Which connection a partition's calls take: one for a single server or a service's primary, one a node in a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.crc import key_slot

from statemq.errors import RedisAway
from statemq.store import address
from statemq.store.scripts import Scripts
from statemq.store.sentinel import Watch
from statemq.store.wire import Reply, ReplyError, Wire, refused, swallow

FOLLOW_S = 0.5
"""How often a cluster is asked who has the slots of a node that is away, or that sent us elsewhere."""

SURVEY_S = 5.0
"""How often it is asked in quiet times: who only subscribes is not sent anywhere by a node that became a replica."""

Node = tuple[str, int]

UNKNOWN = ("", "?")
"""What stands for a node's host when it announces none: it is reached by the host that said so, at the port that it announces."""


class Router:
    """Wires to all nodes of a Redis; ``call`` and ``run`` keep a partition's calls in order on one of them."""

    def __init__(self, url: str, *, timeout_s: float = 5.0, refuse_eviction: bool = True) -> None:
        self.address = address.parse(url)
        self._refuse_eviction = refuse_eviction
        self.cluster = False
        self._timeout_s = timeout_s
        self._wires: dict[Node, Wire] = {}
        self._scripts: dict[Wire, Scripts] = {}
        self._slots: list[tuple[int, int, Node]] = []
        self._slot_of: dict[str, int] = {}
        self._home: Wire | None = None
        self._extra: dict[Wire, str] = {}
        """Further wires, each to the node of a key."""
        self._watch: Watch | None = None
        self._following: asyncio.Task[None] | None = None
        self._stale = False
        """A slot was not where we thought it was."""

    async def open(self, timeout_s: float = 5.0) -> Router:
        """Connected, and knows whether this is a cluster. Raises RedisAway or UnsupportedServer."""
        try:
            home = self._add((self.address.host, self.address.port), await self._here(timeout_s))
            await home.connected(timeout_s)
            await self._learn(home)
            for wire in list(self._wires.values()):
                await wire.connected(self._timeout_s)
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
        if self._watch is not None:
            await self._watch.close()
        for wire in [*self._wires.values(), *self._extra]:
            await wire.close()

    @property
    def home(self) -> Wire:
        """A node for calls that belong to no slot (PUBLISH, PING)."""
        if self._home is None:
            raise RedisAway(f"not connected to {self.address}")
        return self._home

    def hurry(self) -> None:
        """What waits before it tries to connect again tries now: who is leaving does not wait longer than Redis is away."""
        for wire in self._wires.values():
            wire.hurry()

    @property
    def nodes(self) -> list[Wire]:
        return list(self._wires.values())

    def scripts_of(self, node: Wire) -> Scripts:
        """How scripts are called there, or why not."""
        return self._scripts[node]

    def wire_for(self, key: str) -> Wire:
        """The wire whose node holds this key's slot."""
        if not self.cluster:
            return self.home
        tag = key[: key.find("}") + 1] or key
        slot = self._slot_of.get(tag)
        if slot is None:
            slot = self._slot_of[tag] = key_slot(tag.encode())
        for first, last, node in self._slots:
            if first <= slot <= last:
                return self._wires[node]
        return self.home

    def call(self, key: str, *args: bytes | str | int | float) -> asyncio.Future[Reply]:
        """A plain command on the node of ``key``."""
        return self.wire_for(key).call(*args)

    def run(self, name: str, keys: list[str], *args: bytes | str | int | float) -> asyncio.Future[Reply]:
        """The script ``name`` on the node of its first key."""
        wire = self.wire_for(keys[0])
        scripts = self._scripts[wire]
        if scripts.denied is not None:
            return refused(scripts.denied)
        return wire.call(*scripts.command(name), len(keys), *keys, *args)

    def own_wire(
        self,
        key: str,
        *,
        timeout_s: float,
        on_push: Callable[[list[Any]], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        greet: Any = None,
    ) -> Wire:
        """One more connection to the node of ``key``, for a blocking read or a subscription; close it by ``release_wire``."""

        def pushed(message: list[Any]) -> None:
            if message[0] == b"sunsubscribe":
                wire.drop()  # its slot has left this node; it subscribes anew where the slot is
            elif on_push is not None:
                on_push(message)

        heard = pushed if on_push is not None else None
        wire = Wire(self.wire_for(key).address, timeout_s=timeout_s, on_push=heard, on_lost=on_lost, greet=greet)
        self._extra[wire] = key
        return wire.open()

    async def release_wire(self, wire: Wire) -> None:
        del self._extra[wire]
        await wire.close()

    def _add(self, node: Node, where: address.Address) -> Wire:
        wire = self._wires.get(node)
        if wire is None:
            scripts = Scripts(refuse_eviction=self._refuse_eviction)

            def moved(packed: bytes, answer: asyncio.Future[Reply], message: str) -> None:
                self._moved(packed, answer, message, made.address)

            made = wire = Wire(where, timeout_s=self._timeout_s, greet=scripts.greet, on_moved=moved)
            self._scripts[wire] = scripts
            self._wires[node] = wire
            self._home = self._home or wire
            wire.open()
        return wire

    async def _here(self, timeout_s: float) -> address.Address:
        """The address of a server to begin with."""
        if self.address.sentinels is None:
            return self.address
        self._watch = Watch(self.address, self.address.sentinels, self._follow_primary)
        try:
            return await self._watch.open(timeout_s)
        except ConnectionError as error:
            raise RedisAway(f"no Redis answers at {self.address} ({error}); start one or give its URL") from error

    def _follow_primary(self, primary: address.Address) -> None:
        """A failover: all goes to the new primary from now on, byte for byte and in order (P2), also when the old one still answers."""
        if not self.cluster:
            for wire in [*self._wires.values(), *self._extra]:
                wire.move(primary)

    async def is_current(self, server: address.Address) -> bool:
        """Whether this is still the server to ask, by fresh word of the sentinels: who is missing on a former primary has moved on. Not
        if none of them answers: who is silent then is left to its lease."""
        return self._watch is None or await self._watch.look() == server

    async def _learn(self, wire: Wire) -> None:
        """Reads which node holds which slot, if this is a cluster."""
        try:
            slots = await wire.call("CLUSTER", "SLOTS")
        except ReplyError:
            return  # no cluster: "cluster support disabled", or the command is not allowed
        self.cluster = True
        self._adopt(slots, wire.address)
        self._following = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        """A node that died is followed by a replica of it, and no MOVED tells: one that is there is asked. What waits for the dead one
        goes to the other, byte for byte and in its order (P2). Subscriptions follow their slot, too: a replica would keep them."""
        asked_s = 0.0
        while True:
            await asyncio.sleep(FOLLOW_S)
            now_s = asyncio.get_running_loop().time()
            there = next((wire for wire in self._wires.values() if wire.up), None)
            away = self._stale or any(not wire.up for wire in [*self._wires.values(), *self._extra])
            if there is None or not (away or now_s - asked_s > SURVEY_S):
                continue
            asked_s = now_s
            self._stale = False
            asked = there.call("CLUSTER", "SLOTS")
            swallow([asked])
            await asyncio.wait([asked], timeout=self._timeout_s)
            if asked.done() and asked.exception() is None:
                self._adopt(asked.result(), there.address)

    def _adopt(self, slots: list[Any], by: address.Address) -> None:
        """From now on this is who holds which slot, as the server there has said."""
        ranges: list[tuple[int, int, Node]] = []
        for first, last, primary, *_ in slots:
            ranges.append((first, last, _node((primary[0] or b"").decode(), primary[1], by)))
        before, self._slots = self._slots, ranges
        present = {node for _, _, node in ranges}
        for node, wire in list(self._wires.items()):
            slot = next((first for first, _, owner in before if owner == node), 0)
            heir = next((owner for first, last, owner in ranges if first <= slot <= last), node)
            if node not in present and heir != node:  # also a replica, or another name of a primary, that we were given
                del self._wires[node]
                wire.move(self.address.at(*heir))
                if self._wires.setdefault(heir, wire) is not wire:
                    self._extra[wire] = ""  # it ends what it has, and nobody gives it more
        for node in present:
            self._add(node, self.address.at(*node))
        for wire, key in self._extra.items():
            if key:
                wire.move(self.wire_for(key).address)

    def _moved(self, packed: bytes, answer: asyncio.Future[Reply], message: str, by: address.Address | None = None) -> None:
        """A call came to a node that has given its slot away: it goes to the new one, in the order the refusals came in."""
        _, slot_text, where = message.split(" ")[:3]
        host, _, port = where.rpartition(":")
        node, slot = _node(host, int(port), by or self.address), int(slot_text)
        wire = self._add(node, self.address.at(*node))
        self._slots = [(slot, slot, node), *(r for r in self._slots if r != (slot, slot, r[2]))]
        self._stale = True
        wire.resend(self._scripts[wire].worded(packed), answer)


def _node(host: str, port: int, by: address.Address) -> Node:
    """Where the server at ``by`` says that a node is."""
    return (by.host if host in UNKNOWN else host, port)
