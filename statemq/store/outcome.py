"""Outcomes as JSON texts, made by the worker; the script that stores one adds the time."""

from __future__ import annotations

import msgspec

from statemq.records import Outcome

_encode = msgspec.json.Encoder().encode


def completed(id: str, key: str, transition: str, state: str, version: int, attempts: int, result: bytes) -> bytes:
    return _encode(Outcome(id, "completed", key, transition, result=msgspec.Raw(result), state=state, version=version, attempts=attempts))


def refused(
    id: str, key: str, transition: str, state: str, version: int, reason: str, code: str, allowed: list[str], attempts: int
) -> bytes:
    return _encode(
        Outcome(id, "rejected", key, transition, reason=reason, code=code, state=state, version=version, allowed=allowed, attempts=attempts)
    )


def failed(id: str, key: str, transition: str, state: str, reason: str, code: str, error: str, attempts: int) -> bytes:
    return _encode(Outcome(id, "failed", key, transition, reason=reason, code=code, error=error, state=state, attempts=attempts))


def cancelled(id: str, key: str, transition: str, state: str, version: int, attempts: int) -> bytes:
    return _encode(
        Outcome(
            id,
            "cancelled",
            key,
            transition,
            reason="cancelled on request",
            code="cancelled",
            state=state,
            version=version,
            attempts=attempts,
        )
    )
