"""What `dev` sees of saves."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from statemq.cli.dev_imports import importable
from statemq.cli.dev_sources import Watch, changed, snapshot, sources


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def save(path: Path, text: str) -> None:
    """As an editor does; the time moves even where the clock is coarse."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


def test_a_package_is_watched_with_what_is_below_it(tmp_path: Path) -> None:
    for name in ("__init__.py", "order.py", "prices.py", "notes.txt", "deep/rules.py"):
        write(tmp_path / "shop" / name)
    for name in (".hidden/a.py", "__pycache__/b.py", "env/lib/c.py"):
        write(tmp_path / "shop" / name)
    write(tmp_path / "shop/env/pyvenv.cfg")
    write(tmp_path / "beside.py")
    found = sources([tmp_path / "shop/order.py"])
    assert [path.name for path in found] == ["order.py", "__init__.py", "prices.py", "rules.py"]


def test_a_script_is_watched_with_its_neighbours_only(tmp_path: Path) -> None:
    for name in ("order.py", "prices.py", "deep/rules.py"):
        write(tmp_path / name)
    assert [path.name for path in sources([tmp_path / "order.py"])] == ["order.py", "prices.py"]


def test_changed_names_saved_made_and_removed_files(tmp_path: Path) -> None:
    saved, made, removed, same = (tmp_path / name for name in ("a.py", "b.py", "c.py", "d.py"))
    for path in (saved, removed, same):
        write(path)
    before = snapshot([saved, made, removed, same])
    save(saved, "x = 1")
    write(made)
    removed.unlink()
    assert changed(before, snapshot([saved, made, removed, same])) == [saved, made, removed]


def test_a_save_is_told_once_and_when_it_is_still(tmp_path: Path) -> None:
    order = write(tmp_path / "order.py")
    watch = Watch([order])
    assert watch.look() == []
    save(order, "x = 1")
    assert watch.look() == []
    assert watch.unsettled
    save(order, "x = 12")
    assert watch.look() == []
    assert watch.look() == [order]
    assert not watch.unsettled
    assert watch.look() == []


def test_a_file_that_was_away_and_is_back_has_changed(tmp_path: Path) -> None:
    """Somebody may have met its absence, though its content is as before."""
    order = write(tmp_path / "order.py")
    watch = Watch([order])
    order.rename(tmp_path / "away")
    (tmp_path / "away").rename(order)
    assert watch.look() == []
    assert watch.look() == [order]


def test_a_file_that_is_not_imported_is_none_of_its_sources(tmp_path: Path) -> None:
    order, beside = write(tmp_path / "order.py"), write(tmp_path / "beside.py")
    watch = Watch([order])
    save(beside, "x = 1")
    assert [watch.look(), watch.look()] == [[], []]
    write(tmp_path / "new.py")
    assert [watch.look(), watch.look()] == [[], []]
    watch.broken = True
    save(beside, "x = 12")
    assert [watch.look(), watch.look()] == [[], [beside]], "while the code is broken, any file near may be what it lacks"


def test_a_folder_that_may_not_be_read_is_passed_over() -> None:
    """As another user's virtual environment within a package; root may read everything, so this is tried as nobody."""
    folder = Path(tempfile.mkdtemp())
    try:
        order = write(folder / "shop" / "order.py")
        write(folder / "shop" / "__init__.py")
        write(folder / "shop" / "env" / "pyvenv.cfg")
        folder.chmod(0o755)
        (folder / "shop" / "env").chmod(0)
        with nobody():
            assert Watch([order, folder / "shop" / "env" / "late.py"]).look() == []
            assert [path.name for path in sources([order])] == ["order.py", "__init__.py"]
    finally:
        (folder / "shop" / "env").chmod(0o700)
        shutil.rmtree(folder)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture(autouse=True)
def nothing_else_by_these_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets of other tests stay imported; what is imported hides a file of its name."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {"order", "prices", "rates", "shop", "never"}]:
        monkeypatch.delitem(sys.modules, name)


def imported(folder: Path, *loaded: str) -> list[str]:
    found = importable([folder / name for name in loaded], [folder], lambda path: path.is_relative_to(folder))
    return sorted(str(path.relative_to(folder)) for path in found if path.is_file())


def test_what_a_file_may_import_later_counts(tmp_path: Path) -> None:
    write(tmp_path / "order.py", "import json, queue\ndef pay():\n    import prices\n    from shop.deep import rules, LIMIT\n")
    write(tmp_path / "prices.py", "from rates import *\n")
    write(tmp_path / "shop" / "__init__.py", "from . import near\n")
    for name in ("rates", "never", "queue", "shop/near", "shop/other", "shop/deep/__init__", "shop/deep/rules", "shop/deep/unused"):
        write(tmp_path / f"{name}.py")
    write(tmp_path / "shop" / "deep" / "rules.py", "from ..other import x\nfrom . import missing\n")
    assert imported(tmp_path, "order.py") == [
        "order.py",
        "prices.py",
        "rates.py",
        "shop/__init__.py",
        "shop/deep/__init__.py",
        "shop/deep/rules.py",
        "shop/near.py",
        "shop/other.py",
    ]


def test_a_module_that_is_not_there_yet_counts(tmp_path: Path) -> None:
    order = write(tmp_path / "order.py", "try:\n    import local_settings\nexcept ImportError:\n    pass\n")
    watch = Watch(importable([order], [tmp_path], lambda path: True))
    new = write(tmp_path / "local_settings.py")
    assert [watch.look(), watch.look()] == [[], [new]]


@pytest.mark.parametrize("line", ["importlib.import_module(f'rules.{name}')", "__import__(name)", "runpy.run_path(name)"])
def test_who_imports_by_a_computed_name_may_import_whatever_is_near(tmp_path: Path, line: str) -> None:
    write(tmp_path / "order.py", line)
    write(tmp_path / "beside.py")
    assert imported(tmp_path, "order.py") == ["beside.py", "order.py"]


def test_a_file_that_is_broken_hides_only_what_it_imports(tmp_path: Path) -> None:
    write(tmp_path / "order.py", "import prices")
    write(tmp_path / "prices.py", "def half(:")
    assert imported(tmp_path, "order.py") == ["order.py", "prices.py"]


def test_following_more_modules_keeps_what_was_not_told(tmp_path: Path) -> None:
    order, far = write(tmp_path / "order.py"), write(tmp_path / "far" / "prices.py")
    watch = Watch([order])
    save(order, "x = 1")
    watch.follow([order, far])
    assert watch.look() == [order]
    save(far, "y = 1")
    watch.look()
    assert watch.look() == [far]
