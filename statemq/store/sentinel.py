"""Who is the primary of a service, as its sentinels know it.

All of them are asked, and the answer of the highest epoch counts: an epoch is a failover's number, so a sentinel that is behind, or was
cut off, is outvoted by any that is not. That the server it names is a primary (already, or still) is seen when it is connected to.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from statemq.store.address import TLS_AT_LEAST, Address, Sentinels

ANSWERS_WITHIN_S = 1.0
AGAIN_S = 0.1
"""How soon they are asked again while none knows."""


class Watch:
    """``service``'s sentinels, each over a connection that is kept."""

    def __init__(self, service: Address, sentinels: Sentinels) -> None:
        self._service, self._name = service, sentinels.service
        how: dict[str, Any] = {
            "socket_timeout": ANSWERS_WITHIN_S,
            "socket_connect_timeout": ANSWERS_WITHIN_S,
            "retry": Retry(NoBackoff(), 0),
        }
        if sentinels.password:
            how |= {"username": sentinels.username or None, "password": sentinels.password}
        if service.tls:
            how |= {"ssl": True, "ssl_min_version": TLS_AT_LEAST, "ssl_check_hostname": True, "ssl_ca_certs": service.ca_certs or None}
            how |= {"ssl_certfile": service.certfile or None, "ssl_keyfile": service.keyfile or None}
        self._sentinels = [Redis(host=host, port=port, single_connection_client=True, **how) for host, port in sentinels.places]

    async def primary(self) -> Address:
        """Where it is, or was last. Raises ConnectionError with each sentinel's own words when none knows the service."""
        answers = await asyncio.gather(*(self._ask(sentinel) for sentinel in self._sentinels))
        known = [answer for answer in answers if isinstance(answer, dict)]
        if not known:
            raise ConnectionError(f"no sentinel knows {self._name}: " + "; ".join(map(str, answers)))
        latest = max(known, key=lambda state: int(state["config-epoch"]))
        return self._service.at(latest["ip"], int(latest["port"]))

    async def primary_within(self, timeout_s: float) -> Address:
        """The same, asked again and again. Raises ConnectionError after ``timeout_s``."""
        by_s = asyncio.get_running_loop().time() + timeout_s
        while True:
            try:
                return await self.primary()
            except ConnectionError:
                if asyncio.get_running_loop().time() + AGAIN_S > by_s:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def _ask(self, sentinel: Redis) -> dict[str, Any] | Exception:
        try:
            state: dict[str, Any] = await sentinel.sentinel_master(self._name)  # type: ignore[assignment]
            return state
        except (RedisError, OSError) as error:
            return error

    async def close(self) -> None:
        for sentinel in self._sentinels:
            await sentinel.aclose()
