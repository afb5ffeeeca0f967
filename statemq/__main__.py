"""``python -m statemq``: the command line, where no ``statemq`` is on PATH."""

from __future__ import annotations

import os
import sys

if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109 - pathlib would be imported from there, too
    sys.path.append(sys.path.pop(0))  # the working folder, behind the libraries: no file in it is imported in place of one

from statemq.cli.app import entry

if __name__ == "__main__":
    entry()
