"""What one server's facts mean: a line for each thing that statemq needs of it."""

from __future__ import annotations

from statemq.config import Safety
from statemq.doctor.finding import Finding, Findings
from statemq.doctor.holes import HOLES, kind_of
from statemq.store.health import ServerFacts

CLOCK_MS = 1000
"""A difference of clocks above this makes logs hard to compare."""

TORN_FILES_MENDED = {"Valkey": (9, 1, 2)}
"""The first versions known to cut a script off whole whose end is not in the append-only file. Others forget its beginning, leave it in
the file, and take it for a part of the next script when they start again."""

FULL, NEARLY_FULL = 1.0, 0.8


def judge_server(facts: ServerFacts, durability: Safety | None) -> list[Finding]:
    """All lines about this server. ``durability``: what is asked of it, if anything was."""
    say = Findings(facts.address)
    if facts.info:
        _version(say, facts)
        _scripts(say, facts)
        _role(say, facts)
        _eviction(say, facts)
        _memory(say, facts)
        _persistence(say, facts, durability)
        _torn_file(say, facts)
        _replicas(say, facts, durability)
    else:
        say.unseen("server", ["INFO"], "make sure of its version, maxmemory-policy noeviction and appendonly, or allow +info")
        _scripts(say, facts)
    _clock(say, facts)
    return say.lines


def _version(say: Findings, facts: ServerFacts) -> None:
    kind = kind_of(facts.info)
    if not kind.known:
        say.warn("version", f"{kind} is not one that statemq is tested with", "use Redis 7.0 or newer, or Valkey 7.2 or newer")
        return
    if kind.too_old:
        say.bad("version", f"{kind} is too old", "use Redis 7.0 or newer, or Valkey 7.2 or newer")
        return
    holes = [hole for hole in HOLES if hole.reaches(kind)]
    for hole in holes:
        say.warn(
            "version", f"{kind} has {hole.name}: {hole.what}", f"update to {hole.sound(kind)} or newer, unless your package has it mended"
        )
    if not holes:
        say.ok("version", str(kind))


def _scripts(say: Findings, facts: ServerFacts) -> None:
    if facts.scripts == "function":
        say.ok("functions", "functions are allowed")
    elif facts.scripts == "hash":
        say.ok("functions", "scripts run by EVALSHA: functions are refused, or could be changed by other users of the server")
    else:
        say.unseen("functions", ["FUNCTION", "SCRIPT"], "nothing, if this user only reads; workers and clients need one of both")


def _role(say: Findings, facts: ServerFacts) -> None:
    if facts.info.get("loading") == "1":
        say.bad("role", "it is loading its data", "wait until it has; INFO persistence tells how long")
    elif facts.info.get("role", "master") != "master":
        say.bad("role", "it is a replica, which takes no writes", "give the URL of its primary")
    else:
        say.ok("role", "it is a primary")


def _eviction(say: Findings, facts: ServerFacts) -> None:
    policy = facts.info.get("maxmemory_policy") or facts.config.get("maxmemory-policy")
    if not policy:
        say.unseen("eviction", ["maxmemory-policy"], "make sure that it is noeviction")
    elif policy != "noeviction":
        say.bad("eviction", f"maxmemory-policy is {policy}, which tears state apart", "CONFIG SET maxmemory-policy noeviction")
    else:
        say.ok("eviction", "maxmemory-policy is noeviction")


def _memory(say: Findings, facts: ServerFacts) -> None:
    used, limit, host = (int(facts.info.get(name) or 0) for name in ("used_memory", "maxmemory", "total_system_memory"))
    most, name = (limit, "maxmemory") if limit else (host, "the host's memory")
    shown = f"{_size(used)} of {_size(most)} ({name}) are used" if most else f"{_size(used)} are used"
    if limit and used >= limit * FULL:
        say.bad("memory", f"{shown}: new commands are refused", "raise maxmemory, or let workers drain the queues")
    elif most and used >= most * NEARLY_FULL:
        say.warn("memory", shown, "make room before it is full: raise maxmemory, or discard dead letters and old instances")
    else:
        say.ok("memory", shown)


def _size(count: int) -> str:
    power = min(3, max(0, (count.bit_length() - 1) // 10))
    return f"{count / 1024**power:.{min(power, 1)}f} {('B', 'KB', 'MB', 'GB')[power]}"


def _persistence(say: Findings, facts: ServerFacts, level: Safety | None) -> None:
    """Against what was asked for; without a question only that nothing is lost silently."""
    on, fsync = facts.info.get("aof_enabled") == "1", facts.config.get("appendfsync", "")
    if facts.info.get("aof_last_write_status") == "err" or facts.info.get("aof_last_bgrewrite_status") == "err":
        say.bad("persistence", "its last write to disk failed", "look at its log and at the disk; until then writes are refused or lost")
        return
    if level is Safety.memory:
        say.ok("persistence", "nothing is asked of it; what is in memory is lost with the process" if not on else "appendonly is on")
        return
    if not on:
        text, todo = "appendonly is off: a restart loses what is not in a snapshot", "CONFIG SET appendonly yes, and in its file"
        say.warn("persistence", text, f"{todo}; or say --durability memory") if level is None else say.bad("persistence", text, todo)
        return
    if not fsync:
        say.warn(
            "persistence", "appendonly is on; appendfsync is not seen, since CONFIG GET is refused", "make sure of it, or allow +config|get"
        )
    elif fsync == "no":
        text, todo = "appendfsync is no: a power cut loses half a minute", "CONFIG SET appendfsync everysec, or always"
        say.warn("persistence", text, todo) if level is None else say.bad("persistence", text, todo)
    elif level in (Safety.always, Safety.replicated) and fsync != "always":
        say.warn(
            "persistence",
            f"appendfsync is {fsync}: a power cut, or a killed Redis, loses up to a second or two",
            'CONFIG SET appendfsync always, or give each client durability="fsync", which waits for the disk',
        )
    else:
        say.ok("persistence", f"appendonly is on, appendfsync {fsync}")


def _torn_file(say: Findings, facts: ServerFacts) -> None:
    kind = kind_of(facts.info)
    risky = facts.info.get("aof_enabled") == "1" and facts.config.get("aof-load-truncated") == "yes"
    if risky and not (kind.name in TORN_FILES_MENDED and kind.version >= TORN_FILES_MENDED[kind.name]):
        say.warn(
            "torn file",
            f"after a power cut that tears its append-only file, the second restart of {kind} may bring half of a script back",
            "CONFIG SET aof-load-truncated no, and in its file; then a torn one is mended by redis-check-aof --fix. "
            "Or update to Valkey 9.1.2 or newer",
        )


def _replicas(say: Findings, facts: ServerFacts, level: Safety | None) -> None:
    lines = [facts.info[f"slave{n}"] for n in range(int(facts.info.get("connected_slaves") or 0)) if f"slave{n}" in facts.info]
    online = sum("state=online" in line for line in lines)
    least = facts.config.get("min-replicas-to-write", "")
    if len(lines) > online:
        say.warn("replicas", f"{online} of {len(lines)} replicas are in step", "look at the log of those that are not")
    elif level is Safety.replicated and not online:
        say.bad("replicas", "it has no replica", 'add one, and give clients durability="replicas=1"')
    elif level is Safety.replicated and least == "0":
        say.warn(
            "replicas",
            f"{online} in step, but a primary that was cut off from them still takes writes, which are lost",
            "CONFIG SET min-replicas-to-write 1",
        )
    elif level is Safety.replicated and not least:
        say.warn(
            "replicas",
            f"{online} in step; min-replicas-to-write is not seen, since CONFIG GET is refused",
            "make sure that it is 1 or more",
        )
    else:
        say.ok("replicas", f"{online} in step" if online else "none, and none is asked for")


def _clock(say: Findings, facts: ServerFacts) -> None:
    if "TIME" in facts.unseen:
        say.unseen("clock", ["TIME"])
    elif abs(facts.clock_ms) > CLOCK_MS + facts.round_trip_ms:
        ahead = "ahead of" if facts.clock_ms > 0 else "behind"
        say.warn(
            "clock",
            f"its clock is {abs(facts.clock_ms) / 1000:.1f} s {ahead} this host's",
            "set both by NTP; statemq goes by the server's, so only what is logged here differs",
        )
    else:
        say.ok("clock", f"within {max(abs(facts.clock_ms), facts.round_trip_ms, 1)} ms of this host's")
