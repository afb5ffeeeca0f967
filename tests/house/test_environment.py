"""``bin/_env``: which Python the scripts of ``bin/`` run on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def sourced(folder: Path, named: str | None) -> subprocess.CompletedProcess[str]:
    """What a script of ``bin/`` in ``folder`` would run."""
    (folder / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "_env", folder / "bin")
    (folder / "bin" / "which").write_text('set -eu\nsource "$(dirname "$0")/_env"\necho "$PYTHON"\n')
    env = {name: value for name, value in os.environ.items() if name != "STATEMQ_PYTHON"}
    if named is not None:
        env["STATEMQ_PYTHON"] = named
    return subprocess.run(["bash", folder / "bin" / "which"], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_named_python_has_a_folder_of_its_own(tmp_path: Path) -> None:
    with_space = tmp_path / "a python"
    with_space.symlink_to(sys.executable)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)  # another one's, which does not count
    ran = sourced(tmp_path, str(with_space))
    assert ran.stdout.strip() == str(tmp_path / f".venv-{sys.version_info.major}.{sys.version_info.minor}" / "bin" / "python")


def test_no_name_is_the_folder_of_all(tmp_path: Path) -> None:
    assert sourced(tmp_path, None).stdout.strip() == str(tmp_path / ".venv" / "bin" / "python")


@pytest.mark.parametrize("says", ["exit 1", "echo Python 3.10.13; exit 1"])
def test_a_named_one_that_will_not_do_is_said_so(tmp_path: Path, says: str) -> None:
    old = tmp_path / "python3.10"
    old.write_text(f"#!/bin/sh\n{says}\n")
    old.chmod(0o755)
    ran = sourced(tmp_path, str(old))
    assert (ran.returncode, ran.stderr) == (
        1, f"statemq: STATEMQ_PYTHON={old} is no Python 3.11 or newer that can be run; name another, or unset it\n",
    )  # fmt: skip
