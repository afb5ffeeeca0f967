"""Which files a target's code may import, now or in the middle of a transition: a save of one of them is a restart of `dev`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from statemq.cli.dev_sources import MOST_FILES, sources

DYNAMIC = frozenset({"__import__", "exec_module", "import_module", "iter_modules", "run_module", "run_path", "walk_packages"})
"""Who calls these may import whatever lies near."""


def importable(loaded: Iterable[Path], roots: Iterable[Path], ours: Callable[[Path], bool]) -> list[Path]:
    """The loaded files, what their import statements mean, also those in functions, and so on from file to file.

    A module that is not there yet counts, too: `try: import local_settings` finds it once it is. ``ours`` leaves libraries out.
    """
    found = dict.fromkeys(loaded)
    roots, waiting = list(roots), list(found)
    while waiting and len(found) < MOST_FILES:
        path = waiting.pop()
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):  # it is watched; whoever imports it hears why it cannot be
            continue
        meant = [one for one in _meant(tree, path, roots) if ours(one)]
        if any(_name(node) in DYNAMIC for node in ast.walk(tree)):
            meant += sources([path])
        for one in meant:
            if one not in found:
                found[one] = None
                if one.is_file():
                    waiting.append(one)
    return list(found)


def _meant(tree: ast.AST, path: Path, roots: list[Path]) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(_places(alias.name, roots), alias.name, [])
        elif isinstance(node, ast.ImportFrom):
            module, names = node.module or "", [alias.name for alias in node.names]
            places = [path.parents[node.level - 1]] if 0 < node.level <= len(path.parents) else _places(module, roots)
            yield from _modules(places, module, names)


def _places(module: str, roots: list[Path]) -> list[Path]:
    """Where a module may lie: nowhere near if a library has its name."""
    first = module.partition(".")[0]
    loaded = getattr(sys.modules.get(first), "__file__", None)
    hidden = first in sys.stdlib_module_names or (loaded is not None and not any(Path(loaded).is_relative_to(root) for root in roots))
    return [] if hidden else roots


def _modules(places: list[Path], module: str, names: list[str]) -> Iterator[Path]:
    """The files of a module, of the packages around it, and of its modules of these names."""
    for place in places:
        here = place
        for part in module.split(".") if module else []:
            yield here / "__init__.py"
            here = here / part
            yield here.with_name(f"{part}.py")
        yield here / "__init__.py"
        if here.is_dir():
            for name in names:
                yield here / f"{name}.py"
                yield here / name / "__init__.py"


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
