"""The soak itself: its audit leaves the shipped scripts as they are, a sound engine passes, broken ones are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from statemq.store import scripts
from statemq.testing.evidence import Commit, Effect, Invoke, Ok, Record, read
from tests.audit import BREAK, audited
from tests.chaos import soak
from tests.chaos.faults import FAULTS

FAST = ["kill -9 worker", "kill -9 server", "drop k-th reply"]


def test_an_audited_script_holds_the_shipped_one_as_it_is() -> None:
    shipped, wrapped = scripts.sources(shared=True), audited(scripts.sources(shared=True))
    assert wrapped.keys() == shipped.keys()
    assert all(text in wrapped[name] for name, text in shipped.items())


def test_the_shipped_library_leaves_no_audit() -> None:
    assert "audit" not in scripts.library().source


@pytest.mark.timeout(400)
def test_a_short_soak_is_clean_and_leaves_its_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "SLACK_S", 60.0)  # how soon all goes on again is a soak's to say, on a machine of its own
    words = [word for fault in FAST for word in ("--only", fault)]
    code = soak.main(["--minutes", "0.05", "--seed", "1", *words, "--evidence", str(tmp_path / "soak")])
    said = capsys.readouterr().out
    assert code == 0, said
    lines = read(tmp_path / "soak" / "evidence")
    assert {b.kind for b in lines if isinstance(b, Invoke)} == {"write", "read", "ask", "cancel"}
    applied = {r.id for r in lines if isinstance(r, Commit) and r.writes}
    assert applied >= {e.id for e in lines if isinstance(e, Ok) and e.id and e.version} != set()
    recorded = {(r.id, r.step) for r in lines if isinstance(r, Record)}
    assert recorded
    assert recorded <= {(e.id, e.step) for e in lines if isinstance(e, Effect)}
    assert "all promises kept" in said


BROKEN = {
    "a resent append is queued again": ("append", "elseif known[c] or here[id] then", "elseif here[id] then", "drop k-th reply"),
    "a journal outlives its command": ("commit", "if #journals > 0 then redis.call('UNLINK', unpack(journals)) end", "", "delay"),
    "no step is recorded": ("record", "redis.call('HSETNX', steps, field, value) == 0", "false", "kill -9 worker"),
}
"""Broken engines: a script, what is changed in it, and the fault under which that must be found."""


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_to_be_broken_is_there_once(what: str) -> None:
    script, old, new, fault = BROKEN[what]
    assert (scripts.sources(shared=True)[script].count(old), old != new, fault in FAULTS) == (1, True, True)


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_engine_is_found(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    *broken, fault = BROKEN[what]
    monkeypatch.setenv(BREAK, json.dumps(broken))
    code = soak.main(["--minutes", "0.4", "--seed", "5", "--only", fault, "--evidence", str(tmp_path / "soak")])
    assert code == 1
    assert "BROKEN" in capsys.readouterr().out
