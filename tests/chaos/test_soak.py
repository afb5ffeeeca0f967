"""The soak itself: its audit leaves the shipped scripts as they are, a sound engine passes, broken ones are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from statemq.store import scripts
from statemq.testing.evidence import Commit, Invoke, Ok, read
from tests.audit import BREAKS, audited
from tests.chaos import soak
from tests.chaos.mutants import MUTANTS

FAST = ["kill -9 worker", "kill -9 server", "drop k-th reply"]


def test_an_audited_script_holds_the_shipped_one_as_it_is() -> None:
    shipped, wrapped = scripts.sources(), audited(scripts.sources())
    assert wrapped.keys() == shipped.keys()
    assert all(text in wrapped[name] for name, text in shipped.items())


def test_the_shipped_library_leaves_no_audit() -> None:
    assert "audit" not in scripts.library().source


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_changes_one_place(name: str) -> None:
    sources = scripts.sources()
    broken = MUTANTS[name].applied(sources)
    assert [script for script in sources if broken[script] != sources[script]] == [MUTANTS[name].script]


@pytest.mark.timeout(400)
def test_a_short_soak_is_clean_and_leaves_its_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for fault in FAST for word in ("--only", fault)]
    code = soak.main(["--minutes", "0.05", "--seed", "1", *words, "--evidence", str(tmp_path / "soak")])
    said = capsys.readouterr().out
    assert code == 0, said
    lines = read(tmp_path / "soak" / "evidence")
    assert {b.kind for b in lines if isinstance(b, Invoke)} == {"write", "read", "ask", "cancel"}
    applied = {r.id for r in lines if isinstance(r, Commit) and r.writes}
    assert applied >= {e.id for e in lines if isinstance(e, Ok) and e.id and e.version} != set()
    assert "all promises kept" in said


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.found])
def test_a_broken_engine_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(BREAKS, name)  # put back when the test ends, whatever the soak sets
    words = ["--minutes", "0.4", "--seed", "5", "--mutant", name, "--only", MUTANTS[name].fault]
    assert soak.main([*words, "--evidence", str(tmp_path / "soak")]) == 1
    assert "BROKEN" in capsys.readouterr().out
