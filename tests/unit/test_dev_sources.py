"""What `dev` sees of saves."""

from __future__ import annotations

import os
from pathlib import Path

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


def test_a_change_taken_back_is_none(tmp_path: Path) -> None:
    order = write(tmp_path / "order.py")
    about = order.stat()
    watch = Watch([order])
    save(order, "x = 1")
    watch.look()
    order.write_text("")
    os.utime(order, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert watch.look() == watch.look() == []


def test_following_more_modules_keeps_what_was_not_told(tmp_path: Path) -> None:
    order, far = write(tmp_path / "order.py"), write(tmp_path / "far" / "prices.py")
    watch = Watch([order])
    save(order, "x = 1")
    watch.follow([order, far])
    assert watch.look() == [order]
    save(far, "y = 1")
    watch.look()
    assert watch.look() == [far]
