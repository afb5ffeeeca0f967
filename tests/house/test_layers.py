"""Imports point one way: edges -> client | worker -> store -> machine -> context, retry -> ground."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "statemq"

LAYERS = [
    {"errors", "config", "keys", "records", "codec", "events", "log", "native", "python", "shadow"},
    {"context", "fresh", "retry"},
    {"machine", "command", "declaration", "target", "testing"},
    {"store"},
    {"client", "worker", "server"},
    {"blocking", "sync", "doctor", "bench"},
    {"http"},
    {"cli"},
    {"__main__"},
]
"""From the ground up; a name is a module or package directly under statemq/. Names of one layer may use each other ..."""

STRANGERS = {frozenset(pair) for pair in ({"worker", "server"}, {"client", "worker"}, {"client", "server"})}
"""... but these do not know each other."""

HOMES = {
    "redis": {"store"},
    "hiredis": {"store", "bench"},
    "typer": {"cli"},
    "rich": {"cli"},
    "click": {"cli"},
    "falcon": {"http"},
    "granian": {"http"},
    "uvloop": {"cli", "http", "worker", "bench"},
}
"""Packages that only these parts import."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PUBLIC = {"__init__", "examples"}
"""May import anything public; ``from statemq import ...`` is for them and for the command line."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of all that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno}: write the import in full, from statemq..."
            if node.module == "statemq":
                yield from ((node.lineno, f"statemq.{name.name}") for name in node.names)
            else:
                yield node.lineno, node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    if part in PUBLIC:
        return
    assert part in RANK, f"statemq/{part} has no layer yet: give it one in {Path(__file__).relative_to(ROOT)}"
    for line, name in imports(path):
        where = f"{path.relative_to(ROOT)}:{line}"
        top, *rest = name.split(".")
        if top != "statemq":
            assert part in HOMES.get(top, {part}), f"{where} imports {top}, which only {sorted(HOMES[top])} may"
            continue
        other = rest[0] if rest else "__init__"
        if other == part:
            continue
        if other not in RANK:
            assert part == "cli", f"{where} takes {name} from the public door; inside the house, import the module that has it"
            continue
        assert RANK[other] <= RANK[part], f"{where}: {part} must not know {other}, which stands above it"
        assert frozenset({part, other}) not in STRANGERS, f"{where}: {part} and {other} do not know each other"


def test_names_say_what_a_module_is() -> None:
    vague = {"utils", "util", "common", "helpers", "types", "base", "manager", "misc"}
    found = [str(path.relative_to(ROOT)) for path in MODULES if path.stem in vague]
    assert not found, f"name these for the one thing they are: {found}"
