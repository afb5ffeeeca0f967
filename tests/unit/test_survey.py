"""When a worker reads the leases of others again."""

from __future__ import annotations

import pytest

from statemq.store.declare import Config
from statemq.store.lease import Held
from statemq.worker.daemon import LATE_MS, SURVEY_S, Worker
from statemq.worker.peers import Served
from tests.chaos.ledger import Ledger

NOW_MS = 1_000_000


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    made = Worker([Ledger])
    monkeypatch.setattr(made, "now_ms", lambda: NOW_MS)
    return made


def held_until(worker: Worker, *deadlines_ms: int) -> None:
    config = Config("ledger", 1, "i", len(deadlines_ms), {})
    view = [Held(f"{n}.other.1", f"w{n}", deadline_ms) for n, deadline_ms in enumerate(deadlines_ms)]
    worker._served["ledger"] = Served(Ledger.spec, config, [], view=view)


def test_just_after_the_next_deadline(worker: Worker) -> None:
    held_until(worker, NOW_MS + 1000, NOW_MS + 9000)
    assert worker._until_survey_s() == pytest.approx(1.02)


def test_when_an_owner_that_is_over_its_deadline_loses_its_share(worker: Worker) -> None:
    """Not only when some other lease may end: nobody would take what it holds until then."""
    held_until(worker, NOW_MS - 100, NOW_MS + 9000)
    assert worker._until_survey_s() == pytest.approx((LATE_MS - 100) / 1000 + 0.02)


def test_no_lease_is_waited_for_longer_than_the_usual_time(worker: Worker) -> None:
    held_until(worker, NOW_MS - LATE_MS - 1, NOW_MS + 9000)
    assert worker._until_survey_s() == SURVEY_S
