"""What lies in the working folder is not imported in place of a library, and the target there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from statemq.cli.dev_target import Look
from statemq.python import python
from tests.unit.test_dev_target import GOOD

TRAP = 'raise SystemExit("imported from the working folder")\n'
SHADOWS = ["queue", "json", "redis", "random", "msgspec", "typing_extensions", "uvloop", "falcon", "hiredis", "typer"]

MACHINE = """
from statemq import Machine, transition
class Order(Machine, initial="NEW", partitions=4):
    @transition(source="NEW", target="PAID")
    def pay(self) -> str:
        return "paid"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(TRAP)
    (tmp_path / "prices.py").write_text("PRICE = 3\n")
    (tmp_path / "order.py").write_text(GOOD)
    return tmp_path


def run(argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def serves(target: str, folder: Path, url: str, namespace: str) -> None:
    """A worker of that target says that it runs, and ends in good order."""
    argv = python("statemq", "worker", target, "--redis", url, "--namespace", namespace)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    said = []
    with subprocess.Popen(argv, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr
        for line in worker.stderr:
            said.append(line)
            if "runs order at" in line:
                worker.terminate()
    assert worker.returncode == 0 and any("runs order at" in line for line in said), (target, said)


@pytest.mark.parametrize("target", ["order.py", "order:Order"])
def test_a_child_imports_the_target_and_no_shadow(folder: Path, target: str) -> None:
    ended = run(python("statemq", "graph", target), folder)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert "PAID" in ended.stdout


def test_what_dev_looks_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    looked = Look("order.py", env).wait()
    assert looked.wrong == "" and f"{folder}/prices.py" in looked.files


def test_every_child_is_started_so() -> None:
    sources = Path(python.__code__.co_filename).parent
    starts = [path.name for path in sources.rglob("*.py") if '"-m", "statemq' in path.read_text()]
    assert sorted(starts) == ["stage.py", "start.py"], "only the bench names its own, in a folder of its own"
    assert all("-P" in python(module) for module in ("statemq", "statemq.http"))


def test_a_checkout_that_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from statemq.python import ROOT

    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(ROOT)])
    argv = python("statemq", "graph", "order.py")
    assert "-c" in argv
    ended = run(argv, folder)
    assert ended.returncode == 0 and "PAID" in ended.stdout, ended.stderr


@pytest.mark.parametrize("name", ["queue", "json", "redis", "random", "falcon", "click", "statemq", "asyncio"])
def test_a_target_may_be_called_like_a_library(tmp_path: Path, url: str, namespace: str, name: str) -> None:
    """And what statemq imports after it is the library still: a worker that runs it, too."""
    (tmp_path / f"{name}.py").write_text(MACHINE)
    for target in (f"{name}.py", f"./{name}.py:Order", *([name] if name != "statemq" else [])):
        serves(target, tmp_path, url, namespace)


def test_a_package_may_be_called_like_a_library(tmp_path: Path, url: str, namespace: str) -> None:
    for name in ("redis", "queue", "utils"):
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text("SIZE = 3\n")
        (package / "prices.py").write_text("PRICE = 3\n")
        (package / "order.py").write_text(MACHINE + "from . import SIZE\nfrom .prices import PRICE\n")
        for target in (f"{name}.order", f"{name}/order.py"):
            serves(target, tmp_path, url, namespace)


def test_the_users_package_is_meant_not_an_installed_one_of_its_name(tmp_path: Path) -> None:
    """Another project's ``shop``, as many wheels bring a ``tests`` or ``utils``, or a former copy of this one."""
    (tmp_path / "installed" / "shop").mkdir(parents=True)
    (tmp_path / "installed" / "shop" / "__init__.py").write_text(TRAP)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "prices.py").write_text("PRICE = 3\n")
    (tmp_path / "shop" / "order.py").write_text(MACHINE + "from shop.prices import PRICE\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}/installed"}
    for target in ("shop.order", "shop/order.py"):
        argv = python("statemq", "graph", target)
        ended = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0 and "PAID" in ended.stdout, (target, ended.stderr)


@pytest.mark.parametrize("line", ["from queue import put_job", "import queue; queue.put_job()", "import redis.jobs"])
def test_a_neighbour_that_a_library_hides_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "queue.py").write_text("def put_job(): pass\n")
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "__init__.py").touch()
    (tmp_path / "redis" / "jobs.py").touch()
    (tmp_path / "order.py").write_text(f"{line}\n{MACHINE}")
    ended = run(python("statemq", "graph", "order.py"), tmp_path)
    (said,) = ended.stderr.splitlines()
    hidden = tmp_path / ("redis" if "redis" in line else "queue.py")
    assert f"{hidden} is not what an import of {hidden.stem} finds, since a library has that name: rename it" in said


def test_what_is_kept_from_users_packages_is_all_that_statemq_imports() -> None:
    code = """
import importlib, pkgutil, sys, statemq
before = set(sys.stdlib_module_names) | {"statemq"}
for module in pkgutil.walk_packages(statemq.__path__, "statemq."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import rich.console, rich.table, rich.live, rich.markup, rich.syntax
from statemq.target import NEEDED
tops = {name.partition(".")[0] for name in sys.modules} - before
site = {name for name in tops if "site-packages" in (getattr(sys.modules[name], "__file__", "") or "")}
print(sorted(name for name in site - NEEDED if not name.startswith(("__editable__", "_virtualenv", "coverage", "a1_coverage"))))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert said.stdout.strip() == "[]", (said.stdout, said.stderr)
