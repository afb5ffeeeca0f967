"""S10: whatever a key is called, it stays in its partition's slot, and no two meet in one name."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.crc import key_slot

from statemq import Client
from statemq.config import LIMITS
from statemq.errors import InvalidKey, UsageError
from statemq.keys import PartitionKeys, partition_of
from tests.security.machines import Echo
from tests.working import working

HOSTILE = [
    "{",
    "}",
    "{}",
    "}{",
    "{a}",
    "{echo:1}",
    "}:{other}",
    "*",
    "?",
    "[a-z]",
    "\\",
    "a:b",
    "a:b:c",
    ":",
    "1:a",
    "1:a:b",
    "\r\n",
    "*3\r\n$3\r\nSET\r\n",
    "\0",
    "a\0b",
    " ",
    "a b",
    "@look:a",
    "inbox:a",
    "steps:echo.1.x",
    "data",
    "é" * 256,
    "\U0010ffff",
    "k" * LIMITS.key,
    "{" * LIMITS.key,
    "\u202e",
    "..",
    "%7B",
]
PART = PartitionKeys("ns", "echo", 1)
SLOT = key_slot(PART.lease.encode())


def names(part: PartitionKeys, key: str, idempotency_key: str, state: str = "quiet") -> list[str]:
    """Every name that is made with a text of a caller's."""
    return [part.instance(key), part.inbox(key), part.steps(f"echo.1.{key}"), part.once(key, idempotency_key)]


FIXED = [
    getattr(PART, name) for name in ("commands", "accepted", "lease", "ready", "timers", "timers_data", "received", "history", "failed")
]
FIXED += [PART.outcomes(7), PART.in_state("quiet")]


@given(st.one_of(st.text(min_size=1), st.sampled_from(HOSTILE)), st.one_of(st.text(min_size=1), st.sampled_from(HOSTILE)))
def test_every_name_lies_in_the_partition_s_slot(key: str, own: str) -> None:
    for name in names(PART, key, own):
        assert key_slot(name.encode("utf-8", "surrogatepass")) == SLOT


def test_no_two_texts_meet_in_one_name() -> None:
    made: dict[str, tuple[str, ...]] = {name: ("fixed", name) for name in FIXED}
    for key, own in itertools.product(HOSTILE, HOSTILE):
        meant = [("instance", key), ("inbox", key), ("steps", key), ("once", key, own)]
        for name, what in zip(names(PART, key, own), meant, strict=True):
            assert made.setdefault(name, what) == what, f"{what} and {made[name]} are both {name!r}"


@given(st.lists(st.text(min_size=1, max_size=4, alphabet="1:a{}"), min_size=3, max_size=6))
def test_no_two_pairs_meet_in_one_record(words: list[str]) -> None:
    """The same words, parted at different colons, are different pairs of key and idempotency key."""
    pairs = {(":".join(words[:n]), ":".join(words[n:])) for n in range(1, len(words))}
    assert len({PART.once(key, own) for key, own in pairs}) == len(pairs)


@pytest.mark.parametrize("namespace", ["", "{}", "a{b", "a:b", "*", "a b", "a\n", "é", "n" * (LIMITS.name + 1)])
def test_no_namespace_changes_the_slot_or_the_pattern(url: str, namespace: str) -> None:
    with pytest.raises(UsageError, match="is no namespace"):
        Client(url, namespace=namespace)


@pytest.mark.parametrize("key", ["", "k" * (LIMITS.key + 1), "k" * 10_000, "\ud800"])
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(InvalidKey):
        Echo.say(key, 1)


@pytest.mark.quick
async def test_each_is_an_instance_of_its_own(url: str, namespace: str) -> None:
    async with Client(url, namespace=namespace, machines=[Echo]) as client, working(url, namespace, Echo), Redis.from_url(url) as redis:
        for n, key in enumerate(HOSTILE):
            once = key[:80].lstrip("@")  # which begins statemq's own
            assert await client.call(Echo.say(key, n), timeout=20, idempotency_key=once) == n
        for n, key in enumerate(HOSTILE):
            instance = await client.get(Echo, key)
            assert (instance.data.kept, instance.version, instance.key) == (n, 1, key)
            part = PartitionKeys(namespace, "echo", partition_of(key, 2))
            assert await redis.exists(part.instance(key)) == 1
        assert sorted([row.key for row in await client.list(Echo, limit=1000)]) == sorted(HOSTILE)
        assert {name.decode().split(":")[0] for name in [n async for n in redis.scan_iter(f"{namespace}*")]} == {namespace}
