"""The look at what a test leaves behind sees what it should."""

from __future__ import annotations

import pytest
import redis as redis_py

from statemq.keys import PartitionKeys, config
from tests.leaks import leaks, wipe


@pytest.mark.leaves_work
def test_unbounded_keys_are_named_and_bounded_ones_are_not(url: str, namespace: str) -> None:
    keys = PartitionKeys(namespace, "resource", 7)
    with redis_py.Redis.from_url(url, decode_responses=True) as redis:
        redis.hset(config(namespace, "resource"), "schema", 1)
        redis.hset(keys.lease, "token", "1.a.1")
        redis.hset(keys.instance("a:b\nc"), "state", "UP")
        redis.xgroup_create(keys.commands, "workers", mkstream=True)
        redis.hset(keys.outcomes(1), "id", "{}")
        redis.expire(keys.outcomes(1), 60)
        assert leaks(redis, namespace) == []

        redis.xadd(keys.commands, {"key": "a"})
        redis.hset(keys.once("a", "order-7"), "id", "x")
        redis.zadd(keys.timers, {"x": 1})
        redis.rpush(keys.inbox("a"), "x")
        assert leaks(redis, namespace) == [
            f"{keys.commands}: 1 commands",
            f"{keys.inbox('a')}: a list without a TTL",
            f"{keys.once('a', 'order-7')}: a hash without a TTL",
            f"{keys.timers}: a zset without a TTL",
        ]

        wipe(redis, namespace)
        assert list(redis.scan_iter(f"{namespace}:*")) == []
