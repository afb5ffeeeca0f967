"""What the bench and its client processes say to each other: one JSON object a line, a Job in, a Done out."""

from __future__ import annotations

import msgspec

from statemq.bench.figures import Balance


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """``closed``: ``inflight`` callers, each sends its next command when the last was answered, for ``seconds``.
    ``send``: ``count`` commands by send_many, not awaited; ``answers``: now they are.
    ``fill``: one command for each of ``count`` instances, the first of which has the number ``first``.
    ``burst``: one command for each key at once, all awaited. ``check``: the data of all instances against the answers.
    """

    kind: str
    machines: tuple[str, ...] = ("Flip",)
    transition: str = "flip"
    keys: int = 1000
    inflight: int = 128
    seconds: float = 1.0
    count: int = 0
    first: int = 0
    timed: bool = True
    """Whether it is measured; else it only warms up."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """``commands`` were answered in all, ``in_time`` of them within ``seconds``. Times of day are CLOCK_MONOTONIC."""

    commands: int = 0
    in_time: int = 0
    seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    began_s: float = 0.0
    ended_s: float = 0.0
    balance: Balance = Balance()


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """What a client or bare worker must know before its first job; the first line it reads, since it may hold a password."""

    side: str
    """``statemq``, ``raw`` or ``http``."""
    url: str
    namespace: str
    http: str = ""
    """host:port of the HTTP edge."""


encode_line = msgspec.json.Encoder().encode
decode_job = msgspec.json.Decoder(Job).decode
decode_done = msgspec.json.Decoder(Done).decode
decode_wiring = msgspec.json.Decoder(Wiring).decode
