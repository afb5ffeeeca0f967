"""JSON, digests, ids and durations: one encoder and one decoder for all."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import msgspec

from statemq.config import LIMITS
from statemq.errors import UsageError


def is_pydantic(kind: Any) -> bool:
    """The class is a pydantic model's, of version 1 or 2."""
    return isinstance(kind, type) and any(base.__module__.startswith("pydantic.") and base.__name__ == "BaseModel" for base in kind.__mro__)


INSTEAD = 'take a msgspec.Struct or a dataclass with the same fields, or dict[str, Any] and give model_dump(mode="json")'
"""Of a pydantic model."""


def _unsupported(value: Any) -> NoReturn:
    kind = type(value)
    hint = f"; of a pydantic model {INSTEAD}" if is_pydantic(kind) else ""
    raise TypeError(f"Encoding objects of type {kind.__name__} is unsupported{hint}")


encode: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_unsupported).encode
"""A value as JSON bytes. Raises TypeError or ValueError for what JSON cannot hold."""


def encode_exact(value: Any) -> bytes:
    """The same for a user's value. NaN and infinities, which the encoder would write as null, and too deep ones are a ValueError too."""
    raw = encode(value)
    if b"null" in raw and value is not None and _has_no_number(msgspec.to_builtins(value)):
        raise ValueError("NaN and infinities are no JSON")
    check_depth(raw)
    return raw


def check_depth(raw: bytes) -> None:
    """Raises ValueError for JSON that nests deeper than the limit, which is far below what any decoder's stack takes."""
    if raw.count(b"[") + raw.count(b"{") > LIMITS.depth and (depth := _depth(raw)) > LIMITS.depth:
        raise ValueError(f"it nests {depth} levels deep; the limit is {LIMITS.depth}")


def _depth(raw: bytes) -> int:
    depth = deepest = 0
    for bracket in re.findall(rb"[\[{\]}]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _has_no_number(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(_has_no_number(item) for item in value.values())
    return isinstance(value, list | tuple) and any(_has_no_number(item) for item in value)


decode: Callable[[Any], Any] = msgspec.json.Decoder().decode
"""Any JSON text as plain Python values."""


def encode_sorted(value: Any) -> bytes:
    """JSON bytes that are equal for equal values (keys sorted)."""
    return msgspec.json.encode(value, order="deterministic")


def digest(*parts: bytes) -> str:
    """12 hex digits (48 bits) that tell apart the requests of one idempotency key or the arguments of one step."""
    return hashlib.blake2b(b"\0".join(parts), digest_size=6).hexdigest()


def uuid7(now_ms: int) -> str:
    """A UUID version 7 (RFC 9562) for this time, as 32 hex digits without dashes."""
    tail = _random_20()
    return f"{now_ms & 0xFFFFFFFFFFFF:012x}7{tail[:3]}{_VARIANT[tail[3]]}{tail[4:19]}"


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

_pool: list[str] = []
"""Random digits not used yet: asking the kernel for each id would cost more than the rest of it."""

os.register_at_fork(after_in_child=_pool.clear)  # parent and child must not make the same ids


def _random_20() -> str:
    try:
        return _pool.pop()
    except IndexError:
        fresh = os.urandom(1280).hex()
        _pool.extend(fresh[i : i + 20] for i in range(20, len(fresh), 20))
        return fresh[:20]


def short_id() -> str:
    """10 lower-case characters, 50 random bits: a worker's or client's name for one life of its process."""
    return base64.b32encode(os.urandom(7)).decode()[:10].lower()


def command_id(machine: str, partition: int, now_ms: int) -> str:
    """``resource.7.<uuid7>``: says where the command lives and sorts by time."""
    return f"{machine}.{partition}.{uuid7(now_ms)}"


_COMMAND_ID = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\.([0-9]{1,9})\.[!-~]+")


def parse_command_id(id: str) -> tuple[str, int]:
    """The machine and partition of a command id. Raises UsageError for what is none, such as a text with a line break."""
    match = _COMMAND_ID.fullmatch(id)
    if match is None or len(id) > LIMITS.id:
        raise UsageError(f'"{id[:80]}" is no command id; one looks like resource.7.01930c2e5b7a7c3e8f6a2b4c6d8e0f12')
    return match[1], int(match[2])


_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(value: float | timedelta | str) -> int:
    """Milliseconds of ``500ms 30s 5m 2h 1d``, a bare number of seconds, or a timedelta; never negative."""
    if isinstance(value, timedelta):
        ms = value / timedelta(milliseconds=1)
    elif isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", value)
        if not match:
            raise UsageError(f'"{value}" is no duration; write 500ms, 30s, 5m, 2h or 1d')
        ms = float(match[1]) * _UNITS_MS[match[2] or "s"]
    else:
        try:
            ms = float(value) * 1000
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{value!r} is no duration; give seconds, a timedelta, or a text such as 30s") from None
    if ms >= 2**53:
        raise UsageError(f"a duration cannot be {value}; give at most 100 years")
    if not ms >= 0:
        raise UsageError(f"a duration cannot be {value}; give 0 or more seconds, a timedelta, or a text such as 30s")
    return round(ms)


def time_limit_ms(value: float | timedelta | str) -> int:
    """Milliseconds of a ``timeout=``. Raises UsageError unless it is from 1 ms to ten years."""
    try:
        ms = duration_ms(value) if not isinstance(value, bool) else 0
    except (UsageError, TypeError, ValueError, OverflowError):
        ms = 0
    if not 1 <= ms <= LIMITS.delay_ms:
        raise UsageError(f"timeout is from 1 ms to ten years, in seconds, as a timedelta or as in 30s, not {value!r}")
    return ms


def duration_text(ms: int) -> str:
    """As short as people say it.

    >>> duration_text(12), duration_text(1000), duration_text(1234), duration_text(125_000), duration_text(90_000_000)
    ('12 ms', '1 s', '1.2 s', '2m 5s', '1d 1h')
    """
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f}".removesuffix(".0") + " s"
    units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")]
    at = next(number for number, (size, _) in enumerate(units) if ms >= size)
    (size, unit), (less, small) = units[at : at + 2]
    rest = ms % size // less
    return f"{ms // size}{unit}" + (f" {rest}{small}" if rest else "")


_LAST_MS = 253_402_300_799_000
"""The last second of the year 9999: a time that somebody wrote into Redis by hand may lie beyond."""


def rfc3339(at_ms: int) -> str:
    """``2026-11-24T12:00:00.123Z``; what lies outside 1970 to 9999 is shown as their end."""
    at = datetime.fromtimestamp(min(max(at_ms, 0), _LAST_MS) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def short_time(at_ms: int, now_ms: int, seconds: bool = True) -> str:
    """``24 Nov 12:00:00Z``, or with the year, ``24 Nov 2023 12:00Z``, if it is another one; of UTC, as all times.

    >>> short_time(1_700_000_000_123, 1_700_100_000_000), short_time(1_700_000_000_123, 1_800_000_000_000)
    ('14 Nov 22:13:20Z', '14 Nov 2023 22:13Z')
    """
    at, now = (datetime.fromtimestamp(min(max(ms, 0), _LAST_MS) / 1000, UTC) for ms in (at_ms, now_ms))
    day = f"{at.day} {_MONTHS[at.month - 1]}"
    if at.year != now.year:
        return f"{day} {at.year} {at:%H:%M}Z"
    return f"{day} {at:%H:%M:%S}Z" if seconds else f"{day} {at:%H:%M}Z"


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
