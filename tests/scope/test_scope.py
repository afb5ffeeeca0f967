"""All interleavings of a small scope keep the promises; with a mistake in a script, some do not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from statemq.server import EmbeddedServer
from tests.scope.explore import Explorer, Faults, Plan, Violation
from tests.scope.mistakes import MISTAKES, Mistake
from tests.scope.store import Box

MANY_STATES = int(os.environ.get("SCOPE_STATES") or 40_000)
"""Where a scope of the full form ends if it is larger: about a minute. ``SCOPE_STATES`` sets it."""

PURE: Plan = (("add", "a"), ("add", "a"), ("add", "b"))
STEPS: Plan = (("pay", "a"), ("add", "a"), ("add", "b"))
BEHIND: Plan = (("add", "a"), ("pay", "a"), ("add", "b"))
SLEEP: Plan = (("nap", "a"), ("add", "a"), ("pay", "b"))


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of its own: all keys of it are the scope's."""
    with EmbeddedServer(tmp_path_factory.mktemp("scope"), appendonly=False) as running:
        yield running


def explore(server: EmbeddedServer, plan: Plan, faults: Faults, queued: int, mistake: Mistake | None = None, limit: int = 10**9) -> str:
    """Everything was looked at (or ``limit`` states). Raises Violation."""
    box = Box(server, mistake=mistake.broken if mistake else None)
    try:
        found = Explorer(box, plan, faults, queued).run(limit)
    finally:
        box.close()
    assert found.complete or limit < 10**9
    return f"{'-'.join(f'{kind}({key})' for kind, key in plan)}, {queued} queued, {_named(faults)}: {found}"


def _named(faults: Faults) -> str:
    return " ".join(f"{n} {name}" for name, n in faults._asdict().items() if n) or "no faults"


FAST = [
    (PURE, Faults(), 0),
    (PURE, Faults(lapses=1), 3),
    (STEPS, Faults(cuts=1), 3),
    (STEPS[:2], Faults(rewinds=1), 2),
    (BEHIND[:2], Faults(stragglers=1, cancels=1), 2),
    (SLEEP, Faults(parks=1), 3),
    (PURE[:2], Faults(releases=1), 2),
    (STEPS[:2], Faults(crashes=1), 2),
]


FULL = [
    (plan, faults, queued)
    for plan in (BEHIND, STEPS, SLEEP)
    for faults, queued in (
        (Faults(cuts=1), 0),
        (Faults(cuts=2), 3),
        (Faults(crashes=1, parks=1), 3),
        (Faults(crashes=1, cuts=1), 3),
        (Faults(lapses=2, stragglers=1), 3),
        (Faults(lapses=1, releases=1), 3),
        (Faults(rewinds=1, lapses=1), 3),
        (Faults(cancels=1, cuts=1), 3),
        (Faults(cancels=1, lapses=1, parks=1), 3),
    )
]


def _id(value: object) -> str:
    return _named(value) if isinstance(value, Faults) else "-".join(map("".join, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("plan, faults, queued", FAST, ids=_id)
def test_a_small_scope_keeps_the_promises(own_server: EmbeddedServer, plan: Plan, faults: Faults, queued: int) -> None:
    print(explore(own_server, plan, faults, queued))  # noqa: T201 - seen with -s


@pytest.mark.chaos
@pytest.mark.parametrize("plan, faults, queued", FULL, ids=_id)
def test_a_larger_scope_keeps_the_promises(
    own_server: EmbeddedServer, capsys: pytest.CaptureFixture[str], plan: Plan, faults: Faults, queued: int
) -> None:
    found = explore(own_server, plan, faults, queued, limit=MANY_STATES)
    with capsys.disabled():
        print(f"\n{found}")  # noqa: T201 - the run's result


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_script_is_found(own_server: EmbeddedServer, name: str) -> None:
    """The same exploration, with one script broken, must come to a state that breaks a promise."""
    m = MISTAKES[name]
    with pytest.raises(Violation):
        explore(own_server, m.plan, m.faults, m.queued, m)
