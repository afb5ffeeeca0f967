"""What doctor makes of a server's words: versions with known holes (S20), and each line's ok, warn and bad."""

from __future__ import annotations

import pytest

from statemq.config import Safety
from statemq.doctor.finding import Finding, Level
from statemq.doctor.holes import kind_of
from statemq.doctor.server import judge_server
from statemq.store.health import ServerFacts

SOUND = {
    "redis_version": "8.2.2",
    "role": "master",
    "maxmemory_policy": "noeviction",
    "used_memory": "1000",
    "maxmemory": "10000",
    "aof_enabled": "1",
    "connected_slaves": "1",
    "slave0": "ip=10.0.0.2,port=6379,state=online,offset=1,lag=0",
}
CONFIG = {"appendfsync": "always", "min-replicas-to-write": "1"}


def judge(durability: Safety | None = None, config: dict[str, str] = CONFIG, **info: str) -> dict[str, Finding]:
    facts = ServerFacts("redis://host:6379", info=SOUND | info, config=config, scripts="function")
    lines = judge_server(facts, durability)
    found = {line.check: line for line in lines}
    assert len(found) == len(lines)
    return found


def test_a_sound_server_is_ok_at_every_level() -> None:
    for level in (None, *Safety):
        assert {line.level for line in judge(level).values()} == {Level.ok}


VALKEY = {"server_name": "valkey", "redis_version": "7.2.4"}


@pytest.mark.parametrize(
    ("info", "level", "says"),
    [
        ({"redis_version": "7.0.15"}, Level.warn, "update to 7.2.11 or newer"),
        ({"redis_version": "7.2.10"}, Level.warn, "update to 7.2.11 or newer"),
        ({"redis_version": "7.2.11"}, Level.ok, "Redis 7.2.11"),
        ({"redis_version": "7.4.5"}, Level.warn, "update to 7.4.6 or newer"),
        ({"redis_version": "7.4.6"}, Level.ok, ""),
        ({"redis_version": "8.0.3"}, Level.warn, "update to 8.0.4 or newer"),
        ({"redis_version": "8.0.4"}, Level.ok, ""),
        ({"redis_version": "8.2.1"}, Level.warn, "update to 8.2.2 or newer"),
        ({"redis_version": "8.2.2"}, Level.ok, ""),
        ({"redis_version": "8.4.0"}, Level.ok, ""),
        (VALKEY | {"valkey_version": "7.2.10"}, Level.warn, "update to 7.2.11 or newer"),
        (VALKEY | {"valkey_version": "7.2.11"}, Level.ok, "Valkey 7.2.11"),
        (VALKEY | {"valkey_version": "8.0.5"}, Level.warn, "update to 8.0.6 or newer"),
        (VALKEY | {"valkey_version": "8.1.3"}, Level.warn, "update to 8.1.4 or newer"),
        (VALKEY | {"valkey_version": "8.1.4"}, Level.ok, ""),
        (VALKEY | {"valkey_version": "9.0.0-rc1"}, Level.ok, "Valkey 9.0.0"),
        ({"redis_version": "6.2.6"}, Level.bad, "too old"),
        (VALKEY | {"valkey_version": "7.1.0"}, Level.bad, "too old"),
        ({"dragonfly_version": "df-1.21.2"}, Level.warn, "not one that statemq is tested with"),
        ({"redis_version": ""}, Level.bad, "too old"),
    ],
)
def test_versions(info: dict[str, str], level: Level, says: str) -> None:
    line = judge(**info)["version"]
    assert line.level is level
    assert says in f"{line.text} {line.todo}"
    assert ("CVE-2025-49844" in line.text) == ("update to" in line.todo)


def test_the_hole_of_old_scripts_is_named() -> None:
    facts = ServerFacts("h", info=SOUND | {"redis_version": "6.9.240"})  # a release candidate of 7.0
    assert kind_of(facts.info).version < (7, 0, 0)
    texts = [line.text for line in judge_server(facts, None) if line.check == "version"]
    assert texts == ["Redis 6.9.240 is too old"]


@pytest.mark.parametrize(
    ("config", "info"),
    [
        ({"aof-load-truncated": "no"}, {}),
        ({"aof-load-truncated": "yes"}, {"aof_enabled": "0"}),
        ({"aof-load-truncated": "yes"}, VALKEY | {"valkey_version": "9.1.2"}),
    ],
)
def test_a_torn_file_is_of_no_matter(config: dict[str, str], info: dict[str, str]) -> None:
    assert "torn file" not in judge(config=CONFIG | config, **info)


@pytest.mark.parametrize(
    ("check", "level", "durability", "config", "info"),
    [
        ("eviction", Level.bad, None, CONFIG, {"maxmemory_policy": "allkeys-lru"}),
        ("eviction", Level.warn, None, CONFIG, {"maxmemory_policy": ""}),
        ("role", Level.bad, None, CONFIG, {"role": "slave"}),
        ("role", Level.bad, None, CONFIG, {"loading": "1"}),
        ("memory", Level.bad, None, CONFIG, {"used_memory": "10000"}),
        ("memory", Level.warn, None, CONFIG, {"used_memory": "8000"}),
        ("memory", Level.warn, None, CONFIG, {"maxmemory": "0", "total_system_memory": "1200"}),
        ("persistence", Level.warn, None, CONFIG, {"aof_enabled": "0"}),
        ("persistence", Level.ok, Safety.memory, CONFIG, {"aof_enabled": "0"}),
        ("persistence", Level.bad, Safety.everysec, CONFIG, {"aof_enabled": "0"}),
        ("torn file", Level.warn, None, CONFIG | {"aof-load-truncated": "yes"}, {}),
        ("torn file", Level.warn, None, CONFIG | {"aof-load-truncated": "yes"}, VALKEY | {"valkey_version": "8.1.8"}),
        ("persistence", Level.bad, Safety.memory, CONFIG, {"aof_last_write_status": "err"}),
        ("persistence", Level.warn, None, {"appendfsync": "no"}, {}),
        ("persistence", Level.bad, Safety.everysec, {"appendfsync": "no"}, {}),
        ("persistence", Level.ok, Safety.everysec, {"appendfsync": "everysec"}, {}),
        ("persistence", Level.warn, Safety.always, {"appendfsync": "everysec"}, {}),
        ("persistence", Level.warn, Safety.everysec, {}, {}),
        ("replicas", Level.ok, None, CONFIG, {"connected_slaves": "0"}),
        ("replicas", Level.bad, Safety.replicated, CONFIG, {"connected_slaves": "0"}),
        ("replicas", Level.warn, Safety.replicated, CONFIG | {"min-replicas-to-write": "0"}, {}),
        ("replicas", Level.warn, Safety.replicated, {"appendfsync": "always"}, {}),
        ("replicas", Level.warn, None, CONFIG, {"slave0": "ip=10.0.0.2,port=6379,state=wait_bgsave,offset=0,lag=0"}),
    ],
)
def test_lines(check: str, level: Level, durability: Safety | None, config: dict[str, str], info: dict[str, str]) -> None:
    line = judge(durability, config, **info)[check]
    assert line.level is level
    assert bool(line.todo) == (level is not Level.ok)


@pytest.mark.parametrize(("ahead_ms", "level"), [(900, Level.ok), (1500, Level.warn), (-1500, Level.warn)])
def test_the_clock(ahead_ms: int, level: Level) -> None:
    facts = ServerFacts("h", info=SOUND, config=CONFIG, scripts="function", clock_ms=ahead_ms)
    [line] = [line for line in judge_server(facts, None) if line.check == "clock"]
    assert line.level is level


def test_a_slow_network_does_not_look_like_a_wrong_clock() -> None:
    facts = ServerFacts("h", info=SOUND, config=CONFIG, scripts="function", clock_ms=1500, round_trip_ms=3000)
    assert {line.level for line in judge_server(facts, None)} == {Level.ok}


def test_what_is_refused_is_said() -> None:
    facts = ServerFacts("h", unseen=["TIME", "INFO", "CONFIG GET"], why="no")
    lines = judge_server(facts, Safety.always)
    assert {line.level for line in lines} == {Level.warn}
    assert [line.text for line in lines if "INFO is refused" in line.text]
