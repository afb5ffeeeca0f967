"""Whether a file of the user's was imported in place of a library: PYTHONPATH can bring that about, and what follows is unreadable."""

from __future__ import annotations

import os
import sys

LIBRARIES = ("site-packages", "dist-packages")
"""What is installed there in place of one of Python's own (a backport, setuptools' distutils) is meant to be."""


def in_place_of_a_library(error: BaseException) -> str:
    """One sentence that names the file, loaded or on the way to the error; empty if there is none. What Python has always loaded is all
    that is needed here."""
    standard = os.path.dirname(os.__file__)  # noqa: PTH120 - pathlib may be what is hidden
    found = [(name, getattr(module, "__file__", None) or "") for name, module in list(sys.modules.items())]
    if isinstance(error, SyntaxError) and error.filename:
        found.append((os.path.basename(error.filename).partition(".")[0], error.filename))  # noqa: PTH119
    step = error.__traceback__
    while step is not None:
        found.append((step.tb_frame.f_globals.get("__name__", ""), step.tb_frame.f_code.co_filename))
        step = step.tb_next
    for name, file in found:
        installed = file.startswith(standard) or any(f"{os.sep}{place}{os.sep}" in file for place in LIBRARIES)
        if name in sys.stdlib_module_names and file.endswith(".py") and not installed:
            return f"{file} is imported in place of Python's own {name}, since PYTHONPATH has its folder; rename it, or unset PYTHONPATH"
    return ""


def why_not_imported(error: Exception) -> str:
    """One sentence for what kept statemq itself from being imported."""
    if hidden := in_place_of_a_library(error):
        return hidden
    if isinstance(error, PermissionError):
        return f"{error.filename} may not be read by this user; use a Python environment of your own"
    if isinstance(error, ModuleNotFoundError):
        name = str(error.name).partition(".")[0]
        file = getattr(sys.modules.get(name), "__file__", None)
        if file:
            return f"{file} is imported as {name}, and is not the library that statemq needs; rename it, or unset PYTHONPATH"
        return f"{name}, which statemq needs, is not in {sys.prefix}, or may not be read by this user; install statemq there anew"
    return ""
