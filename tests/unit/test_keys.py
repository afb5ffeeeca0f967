"""The names of everything in Redis."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from statemq import keys
from statemq.keys import PartitionKeys


def test_the_page_of_names() -> None:
    part = PartitionKeys("statemq", "resource", 7)
    named = {
        name: getattr(part, name)
        for name in PartitionKeys.__slots__
        if not name.endswith("_") and name not in ("machine", "namespace", "number")
    }
    tag = "statemq:{resource:7}"
    assert named == {
        "tag": tag,
        "commands": f"{tag}:commands",
        "accepted": f"{tag}:accepted",
        "lease": f"{tag}:lease",
        "ready": f"{tag}:ready",
        "timers": f"{tag}:timers",
        "timers_data": f"{tag}:timers:data",
        "outbox": f"{tag}:outbox",
        "received": f"{tag}:received",
        "history": f"{tag}:history",
        "failed": f"{tag}:failed",
    }
    assert part.instance("a") == f"{tag}:instance:a"
    assert part.steps("resource.7.01") == f"{tag}:steps:resource.7.01"
    assert part.inbox("a") == f"{tag}:inbox:a"
    assert part.outcomes(5) == f"{tag}:outcomes:5"
    assert part.in_state("UP") == f"{tag}:in:UP"
    assert part.once("a", "order-7") == f"{tag}:once:1:a:order-7"
    assert part.alive_channel("w1") == f"{tag}:alive:w1"
    assert keys.machines("statemq") == "statemq:machines"
    assert keys.config("statemq", "resource") == "statemq:{resource}:config"
    assert keys.workers("statemq", "resource") == "statemq:{resource}:workers"
    assert keys.workers_about("statemq", "resource") == "statemq:{resource}:workers:about"


def test_a_partition_is_the_crc_of_the_utf8_key() -> None:
    assert keys.partition_of("é", 16) == zlib.crc32("é".encode()) % 16
    assert {keys.partition_of(f"key-{number}", 16) for number in range(200)} == set(range(16))


def slot_part(key: str) -> str:
    """What Redis hashes: between the first ``{`` and the next ``}``, if that is not empty."""
    _, opened, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    return tag if opened and closed and tag else key


@given(st.text(), st.text())
def test_no_users_text_moves_a_key_to_another_slot(key: str, once: str) -> None:
    part = PartitionKeys("statemq", "resource", 7)
    named = [part.instance(key), part.inbox(key), part.once(key, once), part.steps(key), part.in_state(key), part.commands]
    assert {slot_part(name) for name in named} == {"resource:7"}


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_two_idempotency_keys_never_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    part = PartitionKeys("statemq", "resource", 7)
    assert (part.once(*one) == part.once(*other)) == (one == other)


@given(
    st.text(alphabet=":ab1", max_size=4),
    st.text(alphabet=":ab1", max_size=4),
    st.text(alphabet=":ab1", max_size=4),
    st.text(alphabet=":ab1", max_size=4),
)
def test_nor_do_those_made_of_colons(a: str, b: str, c: str, d: str) -> None:
    part = PartitionKeys("statemq", "resource", 7)
    assert (part.once(a, b) == part.once(c, d)) == ((a, b) == (c, d))
