"""Which files a target is made of, and whether one of them was saved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
"""Folders that hold no source of the user's; neither do those whose names begin with a dot, nor virtual environments."""

MOST_FILES = 2_000
"""More are not looked at twice a second; the target's own files come first."""

Snapshot = dict[Path, tuple[int, int, int]]
"""Path → when its content and when its name or rights changed (ns), and its size: a file that was away and is back has changed."""


def sources(modules: Iterable[Path]) -> list[Path]:
    """The modules' files, then every other Python file in their folders: all below a package, beside a plain script."""
    modules = list(modules)
    found = dict.fromkeys(modules)
    for folder in dict.fromkeys(path.parent for path in modules):
        package = os.path.isfile(folder / "__init__.py")  # noqa: PTH113 - it says no where Path raises
        inside = _python_files(folder) if package else sorted(folder.glob("*.py"))
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
        taken[path] = (about.st_mtime_ns, about.st_ctime_ns, about.st_size)
    return taken


def changed(before: Snapshot, after: Snapshot) -> list[Path]:
    """The files that were saved, made or removed in between, by name."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


class Watch:
    """Tells that sources were saved, once they have been still for one look."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.broken = False
        """While the code cannot be used every Python file near it is looked at: any may be what it lacks."""
        self._told: Snapshot = {}
        self.follow(files)

    def follow(self, files: Iterable[Path]) -> None:
        """From now on these files count. One that is new to it counts as it is now."""
        self.files = list(files)
        self._last = self._now()
        self._told = {path: self._told.get(path, about) for path, about in self._last.items()}

    def mark(self) -> None:
        """What there is now is told."""
        self._told = self._last = self._now()

    def look(self) -> list[Path]:
        """What was saved since it last told, if nothing has changed since the last look: editors write in pieces."""
        now, last = self._now(), self._last
        self._last = now
        if now != last or now == self._told:
            return []
        saved, files = changed(self._told, now), set(self.files)
        self._told = now
        return [path for path in saved if self.broken or path in files]

    def _now(self) -> Snapshot:
        near = [path for path in self.files if os.path.isdir(path.parent)]  # noqa: PTH112 - it says no where Path raises
        return snapshot([*self.files, *sources(near)])

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
    return not folder.name.startswith(".") and folder.name not in SKIPPED and not os.path.exists(folder / "pyvenv.cfg")  # noqa: PTH110
