"""S18: what one namespace has, another does not show; and ids are no keys to it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from statemq.codec import command_id, uuid7
from tests.integration.http_machines import Gate
from tests.serving import Edge, working_thread


@pytest.fixture
def two(url: str, namespace: str) -> Iterator[tuple[Edge, Edge]]:
    ours, theirs = Edge(url, namespace), Edge(url, f"{namespace}-b")
    yield ours, theirs
    ours.end()
    theirs.end()


def test_another_namespace_s_commands_and_instances_are_not_there(two: tuple[Edge, Edge], url: str, namespace: str) -> None:
    ours, theirs = two
    with working_thread(url, namespace, Gate):
        answer = ours.post("/gate/a/setUp", {"size": 7}, Idempotency_Key="k")
        assert answer.status == 200
        id = answer.headers["statemq-id"]
        assert ours.get(f"/-/commands/{id}/result").status == 200
        for path in (f"/-/commands/{id}", f"/-/commands/{id}/result", f"/-/commands/{id}/result?wait=0"):
            seen = theirs.get(path)
            assert (seen.status, seen.json["error"]) == (404, "unknown")
        cancelled = theirs.post(f"/-/commands/{id}/cancel")
        assert (cancelled.status, cancelled.json["error"]) == (404, "unknown")
        assert theirs.get("/gate/a").json["exists"] is False
        # the same key of idempotency is another one there
        fresh = theirs.post("/gate/a/setUp/send", {"size": 8}, Idempotency_Key="k")
        assert fresh.status == 202 and fresh.json["id"] != id
        assert theirs.post(f"/-/commands/{fresh.json['id']}/cancel").status == 200
        assert ours.get("/gate/a").json["data"] == {"size": 7}


def test_no_path_leads_into_another_namespace(two: tuple[Edge, Edge], url: str, namespace: str) -> None:
    ours, _ = two
    other = f"{namespace}-b"
    for name in (f"{other}:gate", f"{other}:%7Bgate", "%7Bgate%7D", "gate:0%7D:instance", "gate%00"):
        answer = ours.get(f"/{name}/a")
        assert (answer.status, answer.json["error"]) == (404, "unknown_machine")


def test_ids_are_random_enough() -> None:
    """74 bits beside the time: not to be met by chance or search. They open nothing by themselves: each route needs its role."""
    made = [uuid7(1_700_000_000_000) for _ in range(2_000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"018bcfe568007[0-9a-f]{3}[89ab][0-9a-f]{15}", id) for id in made)
    tails = [int(id[13:16], 16) << 62 | int(id[16:], 16) & (1 << 62) - 1 for id in made]
    for bit in range(74):
        share = sum(tail >> bit & 1 for tail in tails) / len(tails)
        assert 0.35 < share < 0.65, f"bit {bit} is one in {share:.0%}"
    assert command_id("gate", 3, 0).startswith("gate.3.")
