"""What is in a key, however the server has it in memory."""

from __future__ import annotations

from typing import Any

import redis as redis_py


def content(raw: redis_py.Redis, name: bytes | str) -> Any:
    """None for no key. DUMP gives the members of a large hash or set in the order of their table, which a RESTORE or a rehash changes
    (Redis 7.0 does); streams, lists and texts it gives as they are, and what is pending of a stream's groups. ``raw`` decodes nothing."""
    match raw.type(name):
        case b"hash":
            return raw.hgetall(name)
        case b"set":
            return raw.smembers(name)
        case b"zset":
            return raw.zrange(name, 0, -1, withscores=True)
        case _:
            return raw.dump(name)
