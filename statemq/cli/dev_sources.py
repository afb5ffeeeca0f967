"""Which files a target is made of, and whether one of them was saved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
"""Folders that hold no source of the user's; neither do those whose names begin with a dot, nor virtual environments."""

MOST_FILES = 2_000
"""More are not looked at twice a second; the target's own modules come first."""

Snapshot = dict[Path, tuple[int, int]]
"""Path → its time of change (ns) and size."""


def sources(modules: Iterable[Path]) -> list[Path]:
    """The modules' files, then every other Python file in their folders: all below a package, beside a plain script."""
    modules = list(modules)
    found = dict.fromkeys(modules)
    for folder in dict.fromkeys(path.parent for path in modules):
        inside = _python_files(folder) if (folder / "__init__.py").is_file() else sorted(folder.glob("*.py"))
        for path in inside:
            if len(found) >= MOST_FILES:
                return list(found)
            found.setdefault(path)
    return list(found)


def snapshot(paths: Iterable[Path]) -> Snapshot:
    """How the files are now; one that is not there is left out."""
    taken: Snapshot = {}
    for path in paths:
        try:
            about = path.stat()
        except OSError:
            continue
        taken[path] = (about.st_mtime_ns, about.st_size)
    return taken


def changed(before: Snapshot, after: Snapshot) -> list[Path]:
    """The files that were saved, made or removed in between, by name."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


class Watch:
    """Tells that sources were saved, once they have been still for one look."""

    def __init__(self, modules: Iterable[Path]) -> None:
        self._told: Snapshot = {}
        self.follow(modules)

    def follow(self, modules: Iterable[Path]) -> None:
        """From now on these modules and their folders. A file that is new to it counts as it is now."""
        self.modules = list(modules)
        self._last = snapshot(sources(self.modules))
        self._told = {path: self._told.get(path, about) for path, about in self._last.items()}

    def look(self) -> list[Path]:
        """What was saved since it last told, if nothing has changed since the last look: editors write in pieces."""
        now, last = snapshot(sources(self.modules)), self._last
        self._last = now
        if now != last or now == self._told:
            return []
        saved = changed(self._told, now)
        self._told = now
        return saved

    @property
    def unsettled(self) -> bool:
        """Whether the last look saw something that it did not tell yet: look again soon."""
        return self._last != self._told


def _python_files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        here = Path(where)
        folders[:] = sorted(name for name in folders if _is_source_folder(here / name))
        yield from (here / name for name in sorted(files) if name.endswith(".py"))


def _is_source_folder(folder: Path) -> bool:
    return not folder.name.startswith(".") and folder.name not in SKIPPED and not (folder / "pyvenv.cfg").exists()
