"""TARGET of the command line: from ``package.module[:Class]`` or ``file.py[:Class]`` to machine classes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from statemq.errors import DeclarationError, StatemqError, UsageError
from statemq.inherited import is_machine_class
from statemq.spec import NO_INITIAL, MachineSpec

NOT_THE_USERS = [Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))]


def load_target(target: str) -> list[Any]:
    """The machine classes of a target, in the order in which they are written.

    A module gives the machines it defines, or, if it defines none, those it imports. The working folder (for a file:
    its folder) is on the import path afterwards, behind the libraries. Raises UsageError in one sentence, DeclarationError.
    """
    place, _, name = target.partition(":")
    if not place:
        raise UsageError(f'"{target}" is no target; write package.module, package.module:Class or a .py file')
    module = _import_file(place) if place.endswith(".py") or "/" in place else _import_module(place)
    if name:
        value = getattr(module, name, None)
        if value is None:
            raise UsageError(f"{place} has no {name}; its machines: {_names(_machines(module))}")
        if not _is_machine(value):
            if is_machine_class(value):
                raise DeclarationError(name, [NO_INITIAL])
            raise UsageError(f"{name} in {place} is no machine; its machines: {_names(_machines(module))}")
        return [value]
    for value in vars(module).values():
        if is_machine_class(value) and value.__module__ == module.__name__ and not _is_machine(value) and not value.__subclasses__():
            raise DeclarationError(value.__name__, [f"{NO_INITIAL}; without one it is a base, and no machine derives from it"])
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
    _on_path(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            hint = f"; did you mean the file {name}.py?" if Path(f"{name}.py").is_file() else ""
            raise UsageError(f'there is no module "{error.name}" (looked for {name} from {Path.cwd()}){hint}') from None
        raise _broken(name, error) from error
    except (StatemqError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _broken(name, error) from error


def _import_file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise UsageError(f"there is no file {place}")
    root, package = path.parent, ""
    while (root / "__init__.py").is_file():
        root, package = root.parent, f"{root.name}.{package}"
    _on_path(root)
    name = f"{package}{path.stem}"
    if package:
        return _import_module(name)
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if loaded is not None or name in sys.stdlib_module_names or not name.isidentifier():
        name = f"target_{path.stem}"  # a file may be called like a module that is not meant
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{place} cannot be imported")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, StatemqError | KeyboardInterrupt):
            raise
        raise _broken(place, error) from error
    return module


def _on_path(folder: Path) -> None:
    """Behind the libraries, so that no file beside the target is imported in place of one."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _broken(place: str, error: BaseException) -> UsageError:
    """What importing raised, and on which line of the user's code."""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
        return UsageError(f"importing {place} failed: SyntaxError: {error.msg}{where}")
    frame = users_frame(error)
    where = f" ({frame.filename}, line {frame.lineno})" if frame else ""
    return UsageError(f"importing {place} failed: {type(error).__name__}: {error}{where}")


def users_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The last line of the user's own code on the way to the error: not one of a library that it called."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and "site-packages" not in path.parts and not any(path.is_relative_to(folder) for folder in NOT_THE_USERS):
            return frame
    return None
