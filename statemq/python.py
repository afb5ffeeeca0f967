"""How a child Python is started: what lies in the working folder is never imported in place of a library."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

_UNINSTALLED = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
sys.argv.pop(0)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def python(module: str, *words: str) -> list[str]:
    """The command line that runs a module of statemq, with ``-P``: a ``queue.py`` or ``redis.py`` of the user's is not imported by it.
    The target is found all the same, since its folder is added behind the libraries."""
    first = 0 if sys.flags.safe_path else 1
    if str(ROOT) in sys.path[first:]:
        return [sys.executable, "-P", "-m", module, *words]
    return [sys.executable, "-P", "-c", _UNINSTALLED, str(ROOT), module, *words]
