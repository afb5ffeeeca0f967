"""Least privilege: which commands, keys and channels each role needs, as one Redis ACL rule (S12).

What the scripts call is read from their sources, since Redis checks those calls against the caller too. What Python
sends is the table below; tests hold both to what the roles really use.
"""

from __future__ import annotations

import re
from functools import cache

from statemq.config import Role, check_namespace
from statemq.store.durability import Durability
from statemq.store.scripts import effects, sources

CONTAINERS = frozenset({"ACL", "CLUSTER", "CONFIG", "FUNCTION", "MEMORY", "PUBSUB", "SCRIPT", "XGROUP", "XINFO"})
"""Commands of which one allows subcommands."""

_CONNECT = "PING SELECT INFO CLUSTER|SLOTS"
_DECLARE = "HSETNX HSET SADD HMGET SMEMBERS"

SENT: dict[Role, frozenset[str]] = {
    role: frozenset(words.split())
    for role, words in {
        Role.reader: f"{_CONNECT} TIME TYPE HGET HMGET HGETALL HLEN HSCAN LINDEX LRANGE SMEMBERS "
        "XLEN XRANGE XREVRANGE XPENDING XINFO|STREAM ZCARD ZCOUNT ZRANGE ZSCORE",
        Role.client: f"{_DECLARE} SUBSCRIBE",
        Role.operator: "HDEL XADD XDEL PUBLISH",
        Role.worker: f"{_CONNECT} {_DECLARE} TIME TYPE EXISTS HEXISTS HGETALL HSCAN LRANGE XINFO|STREAM XINFO|GROUPS XINFO|CONSUMERS "
        "XGROUP|DELCONSUMER XRANGE XREAD UNLINK "
        "ZRANGE ZRANGEBYSCORE ZSCAN ZSCORE PUBSUB|SHARDNUMSUB SUBSCRIBE SSUBSCRIBE",
    }.items()
}
"""What a role's Python code sends itself."""

RUN: dict[Role, frozenset[str]] = {
    Role.reader: frozenset(),
    Role.client: frozenset({"declare", "append", "touch"}),
    Role.operator: frozenset({"cancel", "pause", "retry", "mend", "rights"}),
    Role.worker: frozenset(sources()) - {"append", "cancel", "pause", "retry", "mend", "rights", "touch"},
}
"""The scripts a role runs."""

IF_ALLOWED = frozenset({"ACL|USERS", "CONFIG|GET"})
"""What each connection, and ``doctor``, asks for where it may; no rule grants it."""

ABOVE = {Role.client: Role.reader, Role.operator: Role.client}
"""Whose rights a role has beside its own: an operator can what a client can, a client what a reader can."""


def commands(role: Role, *, durability: Durability | None = None) -> list[str]:
    """Exactly the commands this role uses, as ACL rules name them, sorted.

    The scripts run by hash. Nobody may load functions, or call them: who may load one can replace what others, of other namespaces
    too, call by its name.
    """
    needed = set(SENT[role])
    for script in RUN[role] - (frozenset() if durability else {"touch"}):
        needed |= called_by(script)
    if role in ABOVE:
        needed.update(name.upper() for name in commands(ABOVE[role], durability=durability))
    if RUN[role]:
        needed |= {"SCRIPT|LOAD", "EVALSHA"}
    if durability and role in (Role.client, Role.operator):
        needed |= {"WAITAOF"} if durability.fsync else {"WAIT"}
    return sorted(name.lower() for name in needed)


def rule(role: Role, namespace: str, *, durability: Durability | None = None) -> str:
    """What goes behind ``ACL SETUSER <name> on ><password>``."""
    check_namespace(namespace)  # so it holds no pattern of its own
    keys = f"%R~{namespace}:*" if role is Role.reader else f"~{namespace}:*"
    channels = {Role.reader: [], Role.client: [f"&{namespace}:reply:*"]}.get(role, [f"&{namespace}:*"])
    allowed = (f"+{name}" for name in commands(role, durability=durability))
    return " ".join(["resetkeys", "resetchannels", "-@all", keys, *channels, *allowed])


_CALL = re.compile(r"redis\.p?call\('([A-Z]+)'(?:, '([A-Z]+)')?")


@cache
def called_by(script: str) -> frozenset[str]:
    """The commands that a script calls, itself or by the words it shares with others."""
    return frozenset(f"{name}|{sub}" if name in CONTAINERS else name for name, sub in _CALL.findall(_with_words(sources()[script])))


def _with_words(body: str) -> str:
    """The source and, once each, all shared functions that it reaches; one that names ``effects`` reaches them all."""
    left, text, queue = dict(_words()), "", [body]
    while queue:
        part = queue.pop()
        text += part
        queue += [left.pop(name) for name in re.findall(r"\w+", part) if name in left]
    return text


@cache
def _words() -> dict[str, str]:
    files = sources(shared=True)
    parts = re.split(r"^local function (\w+)", files["_words"] + files["_ended"], flags=re.MULTILINE)
    return {"effects": effects(files)} | dict(zip(parts[1::2], parts[2::2], strict=True))
