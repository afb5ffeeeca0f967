"""Gathers what the judge looks at, once everything has drained."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import redis as redis_py

from statemq import Client
from statemq.records import Outcome
from tests.chaos.fleet import Fleet
from tests.chaos.judge import Evidence, Sent, undrained
from tests.chaos.ledger import Ledger, Link

ALL = 1_000_000
DRAINED_WITHIN_S = 120.0


def heard(sent: Sent, outcome: Outcome) -> Sent:
    """The command with its answer."""
    result = msgspec.json.decode(outcome.result, type=Link) if outcome.outcome == "completed" else None
    return msgspec.structs.replace(sent, outcome=outcome.outcome, version=outcome.version, result=result)


async def gather(client: Client, fleet: Fleet, sent: Iterable[Sent]) -> Evidence:
    """The evidence. Raises AssertionError when something does not drain (check 12)."""
    sent = list(sent)
    with redis_py.Redis.from_url(client.url, decode_responses=True) as redis:
        try:
            await fleet.until(lambda: not undrained(redis, client.namespace), DRAINED_WITHIN_S)
        except AssertionError as error:
            left = undrained(redis, client.namespace)
            raise AssertionError(f"12: {len(left)} keys are not drained: {left[:20]}\n{error}") from None
    finals = {}
    for key in dict.fromkeys(s.key for s in sent):
        instance = await client.get(Ledger, key)
        last = instance.data.last
        finals[key] = (instance.version, last)
    fenced = frozenset(pid for pid, _ in fleet.lost())
    return Evidence(sent, await client.history(Ledger, limit=ALL), finals, fleet.effects(), fleet.deeds, fenced)
