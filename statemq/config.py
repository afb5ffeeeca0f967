"""Settings and limits; each number is documented where it stands."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from statemq.errors import UsageError

DEFAULT_URL = "redis://localhost:6379"
DEFAULT_NAMESPACE = "statemq"

SCHEMA = 1
"""The highest version of the data in Redis that this process knows. It refuses a machine with a higher one."""

FIRST_SCHEMA = 1
"""What a machine needs that uses nothing that came later."""

OUTCOME_PERIOD_MS = 60_000
"""An outcome lives in the hash of its period; the present and the last one are kept, so 60 to 120 s."""

OUTCOME_TTL_MS = 3 * OUTCOME_PERIOD_MS
"""The net under the owner's sweep of past periods (P31)."""

RESEND_WITHIN_MS = OUTCOME_PERIOD_MS - 10_000
"""A command id older than this and not known is too late to append: it may have ended and been forgotten (P26)."""

ONCE_TTL_MS = 24 * 3600 * 1000
"""How long an idempotency key is remembered after its command ended; lua/_words.lua has the same number."""


class Limits(msgspec.Struct, frozen=True):
    """Sizes in bytes unless named otherwise; docs/LIMITS.md says who refuses what. The append script checks those of a command again."""

    key: int = 512
    name: int = 64
    """A machine, state, transition or namespace."""
    id: int = 256
    """A command's; those made here have about 50."""
    arguments: int = 128 * 1024
    result: int = 128 * 1024
    step: int = 128 * 1024
    """A step's result."""
    step_name: int = 512
    steps: int = 10_000
    """Records of one command's journal: steps and sleeps."""
    journal: int = 16 * 1024 * 1024
    """All records of one command's journal."""
    data: int = 256 * 1024
    idempotency_key: int = 256
    field: int = 2048
    """Any other field of a command: trace, if_state, …"""
    depth: int = 100
    """Levels of lists and objects in JSON, the outermost counted."""
    delay_ms: int = 3650 * 24 * 3600 * 1000
    """The longest delay of a command, ten years."""
    backlog: int = 1_000_000
    """Commands of one partition that are accepted and have not ended."""
    batch: int = 128
    """Commands in one script call."""
    batch_bytes: int = 256 * 1024
    """Bytes in one script call, unless a single command has more."""
    buried_field: int = 4096
    """What describes a failure in a dead letter (the traceback, the fields of garbage) is cut at this length; what a retry needs is not."""


LIMITS = Limits()

FORMER_STATES = 256
"""Of states that a former version of a machine declared the latest are looked at."""

HISTORY_CAP = 10_000
"""Entries of a partition's history, about (XADD MAXLEN ~)."""

FAILED_CAP = 10_000
"""Dead letters of a partition, about; the oldest go first, and the worker says so."""

FAILED_BYTES = 64 * 1024 * 1024
"""Memory of a partition's dead letters when one larger than this number's share of ``FAILED_CAP`` is added; the oldest go first. Smaller
ones are bounded by their number."""

EARLY_BYTES = 4 * 1024 * 1024
"""Outcomes that a client has heard of and that nobody asked for yet; who asks for one that had to go is told by Redis."""

ABANDONED_BYTES = 1024 * 1024
"""Commands of a partition, or reads of a connection, that wait for Redis and for which nobody waits any more: so many, or as many as
there are others."""

AUDIT_CAP = 10_000
"""What operators did to a machine, about; the oldest go first."""


LEASE_MS_MOST = 120_000
"""No worker may ask for a longer lease: a peer takes one that seems to end later for one of a clock that was set back."""


class WorkerSettings(msgspec.Struct, frozen=True):
    """How a worker runs; durations in the unit of the name's ending."""

    lease_ms: int = 10_000
    """A silent host's partitions are taken over after this; a dead process's within a tenth of a second."""
    look_s: float = 0.1
    """How often a worker looks whether its peers still live."""
    beat_s: float = 1.0
    """How often a worker says in the registry that it lives."""
    stuck_after_s: float = 30.0
    """A process whose event loop has not turned for so long stops renewing and exits (P6)."""
    grace_s: float = 10.0
    """On SIGTERM, how long running transitions may go on before they are left to the next owner."""
    concurrency: int = 128
    """Transitions whose code runs at one time in a process."""
    suspend_after_s: float = 5.0
    """A body that only waits leaves memory after this, if its wait lasts at least so long again; the journal brings it back."""
    read_ahead: int = 128
    """Commands of one busy key kept in memory; the ones behind are parked in its inbox."""
    window: int = 1024
    """Commands of one partition kept in memory."""
    window_bytes: int = 4 * 1024 * 1024
    """Bytes of these: above it no more is read. So many may also have ended and wait for their commit: above it nothing new begins."""
    cache: int = 32_768
    """Instances of a machine whose last state a process keeps in memory, if it owns all of its partitions."""
    cache_bytes: int = 64 * 1024 * 1024
    """Bytes of their data."""
    max_crashes: int = 3
    """A command is buried when it has killed its worker so often while it ran alone, without having recorded anything between."""
    unknown_wait_s: float = 600.0
    """How long a command that this worker's code does not take waits for a worker whose code does; then it fails. 0: at once."""
    on_wipe: str = "halt"
    """What to do when a partition was wiped: "halt" says it and waits; "reinit" makes it anew."""

    def __post_init__(self) -> None:
        if self.lease_ms > LEASE_MS_MOST:
            raise UsageError(f"a lease of {self.lease_ms} ms is too long; the most is {LEASE_MS_MOST} ms")


class Role(StrEnum):
    """What a Redis user of statemq's is for; each of the first three may what those before it may."""

    reader = "reader"
    client = "client"
    operator = "operator"
    worker = "worker"


class Safety(StrEnum):
    """What a Redis must not lose; each level includes those before it."""

    memory = "memory"
    """A crash of its process may take everything."""
    everysec = "everysec"
    """A power cut may take a second or two."""
    always = "always"
    """A failover may take what was not replicated."""
    replicated = "replicated"


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the HTTP edge answers; durations in seconds, sizes in bytes. All but the durations of a request are of one process."""

    wait_s: float = 60.0
    """How long a POST waits for the outcome when it does not say; then 504 with the command's id."""
    max_wait_s: float = 300.0
    """The longest wait that may be asked for."""
    max_body: int = LIMITS.arguments
    max_header_bytes: int = 32 * 1024
    """Of a request: path, query, names and values of its headers; of these there are at most 100."""
    header_within_s: float = 10.0
    """A connection whose request line and headers do not arrive in time is closed; so is one that asks nothing more."""
    body_within_s: float = 30.0
    """A slow sender must not hold a place for ever."""
    max_connections: int = 12_000
    """Connections at one time, fewer where the process may not open so many files; further ones wait to be taken. More than may wait for
    outcomes, so that others are always answered."""
    max_connections_each: int = 9_000
    """Of these, connections from one address, and three quarters of those there may be; more are closed, idle ones first."""
    write_within_s: float = 30.0
    """A connection whose caller takes nothing of its answers for so long is closed; of many, also one that never has them all."""
    max_waiting: int = 10_000
    """Requests that wait for an outcome; further ones are answered 504 with the id at once."""
    max_waiting_each: int = 5_000
    """Of these, requests of one caller (its token, or else its address), so that one cannot take all places."""
    redis_within_s: float = 5.0
    """When Redis has not answered after this, the answer is 503, or 504 with the id of a command that may have been queued."""
    max_delay_s: float = 30 * 24 * 3600
    """The longest delay that may be asked for: what is delayed lies in Redis until then."""
    commands_each: int = 100_000
    """Commands of one caller (its token, or else its address) that wait in one partition, delayed ones included; then 429."""
    bytes_each: int = 32 * 1024 * 1024
    """Bytes of these."""
    wrong_token_s: float = 0.25
    """Wrong tokens of one address are answered one after the other, so long apart (5 s later at most)."""
    queue_shown: int = 100
    """Commands of an instance's queue that ``GET /{machine}/{key}`` shows."""


class Share(msgspec.Struct, frozen=True):
    """What one caller's commands may take of a partition's backlog: so many, of so many bytes."""

    caller: str
    commands: int
    bytes: int


def shown(url: str) -> str:
    """What may be said of a Redis URL: not its user and password, nor its options, which can hold them too."""
    body, *options = re.split(r"[?#]", url, maxsplit=1)
    if "@" in "".join(options):  # a "?" or "#" in a password, or an "@" in an option: there is no telling where a secret ends
        return url.partition("://")[0] + "://…"
    return body.split("@")[-1]


def check_namespace(namespace: str) -> str:
    """The namespace itself, if it is one: letters, digits, ``_`` and ``-``, at most 64."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", namespace):
        raise UsageError(f'"{namespace}" is no namespace: use 1 to 64 letters, digits, "_" or "-"')
    return namespace


def is_name(name: str) -> bool:
    """Whether ``name`` can name a machine, transition or state: a letter or ``_``, then letters, digits, ``_``."""
    return len(name) <= LIMITS.name and bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name))
