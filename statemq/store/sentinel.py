"""Who is the primary of a service, as its sentinels know it.

Each of them is asked all the time, and the answer of the highest epoch counts, which is a failover's number: a sentinel that is behind,
or was cut off, is outvoted by any that is not, and by what was heard before. That the server is a primary (already, or still) is seen
when it is connected to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec

from statemq.errors import UnsupportedServer
from statemq.store.address import Address, Place, Sentinels
from statemq.store.wire import Wire, swallow

FOLLOW_S = 0.5
"""How often each is asked."""

AGAIN_S = 0.1
"""How often while none has known the primary yet."""

ANSWERS_WITHIN_S = 1.0
OTHERS_S = 0.2
"""How long the first answer waits for the others', which may be of a later failover."""

log = logging.getLogger("statemq.store")


class Watch:
    """``told`` hears of each new primary, in this loop."""

    def __init__(self, service: Address, sentinels: Sentinels, told: Callable[[Address], None]) -> None:
        self._service, self._name, self._told = service, sentinels.service, told
        self._wires = [self._wire(place, sentinels) for place in sentinels.places]
        self._heard: dict[int, tuple[int, Place]] = {}
        """What each said last, if it answered: epoch and primary."""
        self._troubles: dict[int, str] = {}
        self._epoch = -1
        self._answered = asyncio.Event()
        self.primary: Address | None = None
        self._following: list[asyncio.Task[None]] = []

    def _wire(self, place: Place, sentinels: Sentinels) -> Wire:
        host, port = place
        there = msgspec.structs.replace(
            self._service, host=host, port=port, db=0, username=sentinels.username, password=sentinels.password, sentinels=None
        )
        return Wire(there, timeout_s=ANSWERS_WITHIN_S)

    async def open(self, timeout_s: float) -> Address:
        """The primary. Raises ConnectionError with each sentinel's trouble when none has known it after ``timeout_s``."""
        loop = asyncio.get_running_loop()
        self._following = [loop.create_task(self._follow(n)) for n in range(len(self._wires))]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.primary is None:
                    await self._news()
                async with asyncio.timeout(OTHERS_S):
                    while len(self._heard) + len(self._troubles) < len(self._wires):
                        await self._news()
        if self.primary is None:
            raise ConnectionError(f"no sentinel knows {self._name}: " + "; ".join(self._troubles.values()))
        return self.primary

    async def look(self) -> Address | None:
        """The primary, by answers that are younger than this question; who does not answer in time is left out. None if nobody does."""
        answered = await asyncio.gather(*(self._ask(n) for n in range(len(self._wires))))
        return self.primary if any(answered) else None

    async def close(self) -> None:
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, *(wire.close() for wire in self._wires), return_exceptions=True)

    async def _news(self) -> None:
        """One more has answered, or failed to."""
        self._answered.clear()
        await self._answered.wait()

    async def _follow(self, n: int) -> None:
        while True:
            await self._ask(n)
            await asyncio.sleep(AGAIN_S if self.primary is None else FOLLOW_S)

    async def _ask(self, n: int) -> bool:
        """Whether it has answered."""
        wire = self._wires[n].open()
        # MASTER alone tells the former address under the new epoch until all replicas follow; in this order the address is never older
        asked = [wire.call("SENTINEL", what, self._name) for what in ("MASTER", "GET-MASTER-ADDR-BY-NAME")]
        swallow(asked)
        await asyncio.wait(asked, timeout=ANSWERS_WITHIN_S)
        try:
            if not all(answer.done() for answer in asked):
                raise TimeoutError(wire.trouble or f"no answer within {ANSWERS_WITHIN_S:.0f} s")
            state, (host, port) = (answer.result() for answer in asked)
            epoch = int(dict(zip(state[::2], state[1::2], strict=True))[b"config-epoch"])
            self._heard[n] = (epoch, (host.decode(), int(port)))
        except Exception as error:  # noqa: BLE001 - whatever it answered, or did not: the others are asked, and it is asked again
            await self._forget(n, wire, error)
            answered = False
        else:
            self._troubles.pop(n, None)
            self._weigh()
            answered = True
        self._answered.set()
        return answered

    async def _forget(self, n: int, wire: Wire, error: Exception) -> None:
        self._heard.pop(n, None)
        said = str(error) if isinstance(error, UnsupportedServer) else f"{wire.address}: {str(error) or type(error).__name__}"
        if n not in self._troubles and self.primary is not None and not self._heard:
            log.warning("no sentinel of %s answers; until one does, a failover would not be noticed (%s)", self._name, said)
        self._troubles[n] = said
        if self._wires[n] is wire:  # what it still has to send is not wanted any more
            self._wires[n] = Wire(wire.address, timeout_s=ANSWERS_WITHIN_S)
            await wire.close()

    def _weigh(self) -> None:
        """A later failover counts; an earlier one only if all say so, since an operator can have made the sentinels anew."""
        epoch, place = max(self._heard.values())
        agreed = len(self._heard) == len(self._wires) and len({where for _, where in self._heard.values()}) == 1
        if epoch > self._epoch or agreed:
            self._epoch, primary = epoch, self._service.at(*place)
            if primary != self.primary:
                self.primary = primary
                self._told(primary)
