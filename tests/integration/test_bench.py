"""``statemq bench`` as a user runs it. Nothing here says how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import redis as redis_py

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "statemq", "bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_many_keys_on_a_server_of_its_own_loses_nothing() -> None:
    run = bench("--work", "many-keys", "--seconds", "0.5", "--json")
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    balance = said["balances"]["many-keys"]
    assert balance["answered"] > 0
    assert (balance["lost"], balance["extra"], balance["errors"]) == (0, 0, 0)
    assert said["rows"][0]["work"] == "many keys"
    assert said["rows"][0]["value"] > 0
    assert said["rows"][0]["base"] > 0


def test_a_redis_that_was_named_is_left_as_it_was(url: str) -> None:
    with redis_py.Redis.from_url(url, decode_responses=True) as redis:
        redis.set("bystander", "there")
        run = bench("--redis", url, "--work", "steps", "--seconds", "0.3", "--json")
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["even"] is True
        assert redis.get("bystander") == "there"
        assert list(redis.scan_iter("bench-*")) == []
        redis.delete("bystander")


def test_what_cannot_be_measured_is_one_sentence() -> None:
    unknown = bench("--work", "fast")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("statemq: there is no work fast; choose from many-keys, ")
    away = bench("--redis", "redis://127.0.0.1:1", "--work", "many-keys")
    assert (away.returncode, away.stdout) == (3, "")
    assert "no Redis answers at redis://127.0.0.1:1" in away.stderr
