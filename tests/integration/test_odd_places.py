"""The command line where its process is odd: its locale, its folder, what its Python imports. One sentence, no traceback."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from statemq.python import python
from tests.integration.test_working_folder import MACHINE, serves

ROOT = Path(__file__).parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(argv: list[str], folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STATEMQ_", "PYTHON"))}
    return subprocess.run(argv, cwd=folder, env=kept | env, capture_output=True, text=True, timeout=120, check=False)


def sentence_of(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 2, ended
    (said,) = ended.stderr.splitlines()
    return said


def test_a_worker_runs_where_the_locale_knows_ascii_only(tmp_path: Path, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "order.py").write_text(MACHINE)
    for name, value in ASCII.items():
        monkeypatch.setenv(name, value)
    serves("order.py", tmp_path, url, namespace)


def test_words_that_such_a_locale_has_not_are_one_sentence(tmp_path: Path) -> None:
    said = sentence_of(run(python("statemq", "get", "order", "köln"), tmp_path, **ASCII))
    assert said.endswith("is no text where the locale's encoding is ascii; set LC_ALL=C.UTF-8, or PYTHONUTF8=1"), said


@pytest.mark.parametrize("path", sorted((ROOT / "statemq").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_is_read_as_the_locale_happens_to_be(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("read_text", "write_text"):
            assert node.args[node.func.attr == "write_text" :] or node.keywords, f"{path}:{node.lineno} names no encoding"


@pytest.mark.parametrize("words", [["get", "order", "a"], ["worker", "order.py"], ["dev", "order.py"], ["graph", "order"]])
@pytest.mark.parametrize("start", [python("statemq"), [sys.executable, "-m", "statemq"]])
def test_a_folder_that_was_removed_is_one_sentence(tmp_path: Path, words: list[str], start: list[str]) -> None:
    (tmp_path / "gone").mkdir()
    argv = ["sh", "-c", 'cd gone && rmdir "$PWD" && exec "$@"', "sh", *start, *words]
    said = sentence_of(run(argv, tmp_path, PYTHONPATH=str(ROOT)))
    assert said == "statemq: the working folder cannot be used (No such file or directory); go to another one"


@pytest.mark.parametrize("name", ["queue", "json", "random", "logging"])
@pytest.mark.parametrize("content", ["", "raise ValueError('mine')\n", "def half(:\n"])
def test_what_pythonpath_puts_before_pythons_own_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "order.py").write_text(MACHINE)
    (tmp_path / f"{name}.py").write_text(content)
    said = sentence_of(run([sys.executable, "-m", "statemq", "worker", "order.py"], tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}"))
    assert f"{tmp_path}/{name}.py" in said and "rename it" in said


def test_what_pythonpath_puts_before_a_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "typer.py").touch()
    said = sentence_of(run([sys.executable, "-m", "statemq", "machines"], tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}"))
    assert said.startswith(f"statemq: {tmp_path}/typer.py is imported as typer, and is not the library that statemq needs; rename it")


def test_an_environment_without_what_it_needs_is_one_sentence(tmp_path: Path) -> None:
    """As one whose packages this user may not read, which Python takes for not being there."""
    said = sentence_of(run([sys.executable, "-S", "-m", "statemq", "machines"], tmp_path, PYTHONPATH=str(ROOT)))
    assert re.fullmatch(
        r"statemq: \w+, which statemq needs, is not in .+, or may not be read by this user; install statemq there anew", said
    )


def test_an_installed_backport_is_nobodys_mistake(tmp_path: Path) -> None:
    code = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("distutils", sys.argv[1])
sys.modules["distutils"] = importlib.util.module_from_spec(spec)
from statemq.shadow import in_place_of_a_library
print([in_place_of_a_library(ValueError())])
"""
    for place, named in (("lib/site-packages", False), ("mine", True)):
        file = tmp_path / place / "distutils.py"
        file.parent.mkdir(parents=True)
        file.touch()
        said = subprocess.run([sys.executable, "-c", code, str(file)], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert (str(file) in said) is (named and "distutils" in sys.stdlib_module_names), said


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_a_checkout_of_another_user_is_one_sentence(tmp_path: Path) -> None:
    clone = Path("/tmp") / f"statemq-{tmp_path.name}-{os.getpid()}"
    (clone / "bin").mkdir(parents=True)
    try:
        for name in ("_env", "statemq"):
            (clone / "bin" / name).write_bytes((ROOT / "bin" / name).read_bytes())
            (clone / "bin" / name).chmod(0o755)
        (clone / ".venv").mkdir(mode=0o700)
        for folder in (clone, clone / "bin"):
            folder.chmod(0o755)
        argv = ["bash", str(clone / "bin" / "statemq"), "--version"]
        ended = subprocess.run(argv, cwd="/", user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert ended.stderr == f"statemq: {clone} is another user's, and its .venv may not be used by this one; make a clone of your own\n"
    finally:
        for path in sorted(clone.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        clone.rmdir()
