"""What `dev` learns of a target, in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from statemq.cli.dev_target import Look, Looked

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}

GOOD = """
from statemq import Machine, transition
import prices

print("not an answer")

class Order(Machine, initial="NEW", partitions=4):
    @transition(source="NEW", target="PAID")
    def pay(self, cents: int) -> str:
        return "paid"

    @transition(source="PAID", target="NEW")
    def refund(self) -> str:
        return "refunded"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices.py").write_text("PRICE = 3\n")
    return tmp_path


def look(folder: Path, text: str) -> Looked:
    (folder / "order.py").write_text(text)
    return Look("order.py", ENV).wait()


def test_machines_and_their_files(folder: Path) -> None:
    looked = look(folder, GOOD)
    assert looked.wrong == ""
    (order,) = looked.machines
    assert (order.name, order.partitions, order.initial) == ("order", 4, "NEW")
    assert (order.allowed, order.transitions) == (["pay"], ["pay", "refund"])
    assert looked.files[:2] == [f"{folder}/order.py", f"{folder}/prices.py"]


def test_a_file_of_the_folder_that_it_does_not_import_is_none_of_its_files(folder: Path) -> None:
    (folder / "unrelated.py").touch()
    (folder / "later.py").touch()
    looked = look(folder, GOOD.replace('return "refunded"', "import later; return 'refunded'"))
    files = {Path(path).name for path in looked.files if Path(path).is_file()}
    assert files == {"order.py", "prices.py", "later.py"}, looked.files


def test_an_answer_may_be_long(folder: Path) -> None:
    more = "".join(
        f"    @transition(source='NEW')\n    def t{n}(self, {'x' * 40}: int, {'y' * 40}: str) -> None: ...\n" for n in range(300)
    )
    looked = look(folder, GOOD + more)
    assert len(looked.machines[0].transitions) == 302, looked.wrong


def test_an_error_shows_its_line(folder: Path) -> None:
    looked = look(folder, GOOD.replace("import prices", "import prices\nprices.PRIZE"))
    assert looked.machines == []
    assert "AttributeError: module 'prices' has no attribute 'PRIZE'" in looked.wrong
    assert looked.block().endswith(f"{folder}/order.py, line 4:\n    prices.PRIZE")


def test_a_syntax_error_shows_its_line(folder: Path) -> None:
    looked = look(folder, "def half(:\n    pass\n")
    assert "SyntaxError" in looked.wrong
    assert looked.block().endswith("order.py, line 1:\n    def half(:")


def test_a_wrong_declaration_shows_its_problems_and_its_class(folder: Path) -> None:
    looked = look(folder, GOOD.replace("def refund(self)", "def refund(self, *rest)"))
    assert "Order is declared wrong" in looked.wrong
    assert looked.text == 'class Order(Machine, initial="NEW", partitions=4):'


def test_a_missing_module_is_one_sentence(folder: Path) -> None:
    looked = Look("no.such.module", ENV).wait()
    assert looked.block().startswith('there is no module "no" (looked for no.such.module from ')
    assert "\n" not in looked.block()


def test_a_module_without_machines_is_one_sentence(folder: Path) -> None:
    assert look(folder, "x = 1\n").block() == "order.py declares no machine: no class in it subclasses statemq.Machine"


def test_a_module_that_ends_the_process_is_said(folder: Path) -> None:
    assert look(folder, "import os\nos._exit(5)\n").wrong == "importing order.py ended the process (exit code 5)"


def test_a_breakpoint_at_import_is_one_sentence(folder: Path) -> None:
    wrong = look(folder, f"breakpoint()\n{GOOD}").wrong
    assert wrong.startswith("importing order.py failed: breakpoint() was quit, or has no terminal there (") and "BdbQuit" not in wrong
    assert wrong.endswith("; call it in a transition or step")


def test_an_import_that_hangs_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statemq.cli.dev_target.IMPORT_WITHIN_S", 0.05)
    looked = look(folder, "import signal\nsignal.pause()\n")
    assert looked.wrong == "importing order.py did not end within 0 s"


def test_closing_leaves_no_process(folder: Path) -> None:
    (folder / "order.py").write_text("import signal\nsignal.pause()\n")
    going = Look("order.py", ENV)
    assert going.poll() is None
    going.close()
    assert going._process.returncode == -9
