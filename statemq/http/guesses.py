"""Wrong tokens: they are answered slowly, and the log says who sends them."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable

import msgspec

log = logging.getLogger("statemq.http")

LONGEST_S = 5.0
"""No wrong token is answered later than this, however many its address has sent; the connections of those that wait are bounded."""

SAID_EVERY_S = 10.0
"""Of one address, the log has one line in this time, with how many there were."""

ADDRESSES = 1000
"""Known at one time; all further ones count as one."""

OTHERS = "other addresses"


class _Sender(msgspec.Struct):
    """An address that has sent wrong tokens."""

    free_s: float = 0.0
    """When its next one is answered at the earliest."""
    said_s: float = float("-inf")
    count: int = 0
    """Since the log named it."""


class Guesses:
    """Wrong tokens of one address are answered one after the other, ``each_s`` apart. A right one is never held up, since callers
    behind one proxy share its address."""

    def __init__(self, each_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._each_s, self._clock = each_s, clock
        self._senders: dict[str, _Sender] = {}

    async def wrong(self, address: str) -> None:
        """The log names the address; returns when the answer may be given."""
        await asyncio.sleep(self.note(address))

    def note(self, address: str) -> float:
        """A wrong token came; the seconds for which its answer waits."""
        now = self._clock()
        name, sender = self._sender(network(address), now)
        sender.count += 1
        if now - sender.said_s >= SAID_EVERY_S:
            log.warning("a wrong token from %s%s", name, f" ({sender.count} of them since the last such line)" if sender.count > 1 else "")
            sender.said_s, sender.count = now, 0
        sender.free_s = min(max(sender.free_s, now) + self._each_s, now + LONGEST_S)
        return sender.free_s - now

    def _sender(self, name: str, now: float) -> tuple[str, _Sender]:
        if name not in self._senders:
            if len(self._senders) >= ADDRESSES:
                self._senders = {n: s for n, s in self._senders.items() if now < max(s.free_s, s.said_s + SAID_EVERY_S)}
            if len(self._senders) >= ADDRESSES:
                name = OTHERS
        return name, self._senders.setdefault(name, _Sender())


def network(address: str) -> str:
    """The address, or the /64 network of one of IPv6, since whoever has one of its addresses has all of them."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address or "an unknown address"
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
