"""TARGET: from a name or file to machine classes, and one clear sentence where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from statemq.cli.app import main
from statemq.errors import DeclarationError, UsageError
from statemq.examples.resource import Resource
from statemq.target import load_target

MACHINES = """
from statemq import Machine, transition
class Second(Machine, initial="a"): pass
class First(Machine, initial="a"): pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def names(target: str) -> list[str]:
    return [machine.__name__ for machine in load_target(target)]


def test_a_module_and_a_class() -> None:
    assert load_target("statemq.examples.resource") == load_target("statemq.examples.resource:Resource") == [Resource]


def test_a_file_of_a_package_is_that_module() -> None:
    file = sys.modules[Resource.__module__].__file__
    assert load_target(f"{file}") == load_target(f"{file}:Resource") == [Resource]


def test_a_file_and_a_module_of_the_working_folder(folder: Path) -> None:
    (folder / "shop_machines.py").write_text(MACHINES)
    assert names("shop_machines.py") == ["Second", "First"]
    assert names("./shop_machines.py:First") == ["First"]
    assert names("shop_machines") == ["Second", "First"]
    assert load_target("shop_machines") == load_target("shop_machines.py")


def test_a_file_called_like_a_standard_module(folder: Path) -> None:
    (folder / "resource.py").write_text(MACHINES)
    assert names("resource.py") == ["Second", "First"]


def test_a_file_may_import_its_neighbours(folder: Path) -> None:
    (folder / "neighbour_data.py").write_text("INITIAL = 'a'\n")
    (folder / "neighbour.py").write_text(
        "from statemq import Machine\nfrom neighbour_data import INITIAL\nclass Own(Machine, initial=INITIAL): pass\n"
    )
    assert names("neighbour.py") == ["Own"]


def test_imported_machines_count_only_where_none_is_declared(folder: Path) -> None:
    (folder / "gathered.py").write_text("from statemq.examples.resource import Resource\nfrom statemq.examples.switch import Switch\n")
    (folder / "mixed.py").write_text("from statemq.examples.switch import Switch\n" + MACHINES)
    assert names("gathered") == ["Resource", "Switch"]
    assert names("mixed") == ["Second", "First"]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("", '"" is no target; write package.module, package.module:Class or a .py file'),
        ("no_such_module", 'there is no module "no_such_module" (looked for no_such_module from '),
        ("statemq.no_such", 'there is no module "statemq.no_such"'),
        ("no_such_file.py", "there is no file no_such_file.py"),
        ("json", "json declares no machine: no class in it subclasses statemq.Machine"),
        ("statemq.examples.switch:Swich", "statemq.examples.switch has no Swich; its machines: Switch"),
        ("statemq.examples.switch:Count", "Count in statemq.examples.switch is no machine; its machines: Switch"),
        ("broken_name.py", "importing broken_name.py failed: NameError: name 'missing' is not defined ("),
        ("broken_syntax.py", "importing broken_syntax.py failed: SyntaxError: "),
        ("broken_import", "importing broken_import failed: ModuleNotFoundError: No module named 'not_installed_here'"),
        ("broken_exit.py", "importing broken_exit.py failed: SystemExit: 3"),
        ("spelled", 'there is no module "spelled" (looked for spelled from '),
    ],
)
def test_one_sentence_says_what_is_wrong(folder: Path, target: str, sentence: str) -> None:
    (folder / "broken_name.py").write_text("\nmissing\n")
    (folder / "broken_syntax.py").write_text("class :\n")
    (folder / "broken_import.py").write_text("import not_installed_here\n")
    (folder / "broken_exit.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(UsageError) as caught:
        load_target(target)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_the_line_of_the_users_code_is_named(folder: Path) -> None:
    (folder / "broken_line.py").write_text("\n\nmissing\n")
    with pytest.raises(UsageError, match=r"broken_line\.py, line 3\)$"):
        load_target("broken_line")


def test_a_line_of_a_library_is_not_the_users(folder: Path) -> None:
    (folder / "misspelt.py").write_text("from enum import StrEnum\nclass State(StrEnum):\n    UP = 'UP'\n\nState.UPP\n")
    with pytest.raises(UsageError, match=r"AttributeError: (UPP|type object 'State' has no attribute 'UPP'.*) \(.*misspelt\.py, line 5\)$"):
        load_target("misspelt.py")


def test_a_wrong_declaration_keeps_its_list(folder: Path) -> None:
    (folder / "declared.py").write_text("from statemq import Machine\nclass Bad(Machine): pass\n")
    with pytest.raises(DeclarationError, match="it has no initial state"):
        load_target("declared.py")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("class Order(Machine, initial=1): pass", 3),
        ("x = 1\n\nclass Order(Machine, initial='a'):\n    @transition(source='b')\n    def go(self): ...", 5),
        ("class Order(Machine): pass", 3),
    ],
)
def test_a_wrong_class_is_told_with_its_file_and_line(folder: Path, text: str, line: int, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "order_wrong.py").write_text(f"# a file\nfrom statemq import Machine, transition\n{text}\n")
    for words in ("graph order_wrong.py", "worker order_wrong.py", "worker order_wrong", "graph order_wrong.py:Order"):
        assert main(words.split()) == 2
        said = capsys.readouterr().err
        assert said.startswith("statemq: machine Order is declared wrong:\n  - ")
        assert said.endswith(f"\n  in {folder}/order_wrong.py, line {line}\n")
        sys.modules.pop("order_wrong", None)


def test_what_is_no_machine_is_told_with_its_line(folder: Path) -> None:
    (folder / "of_order.py").write_text("class Order:\n    pass\n\nx = 1\n")
    with pytest.raises(UsageError, match=r"Order in of_order\.py is no machine; its machines: none \(Order: .*/of_order\.py, line 1\)$"):
        load_target("of_order.py:Order")
    with pytest.raises(UsageError, match=r"x in of_order\.py is no machine; its machines: none$"):
        load_target("of_order.py:x")
