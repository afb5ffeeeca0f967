"""``python -m statemq``, and the command ``statemq``: the command line."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from statemq.shadow import why_not_imported


def entry() -> NoReturn:
    """The process ends with the command line's exit code; what keeps that from being imported is one sentence."""
    try:
        from statemq.cli.app import entry as run
    except Exception as error:
        sentence = "" if os.environ.get("STATEMQ_TRACEBACK") else why_not_imported(error)
        if not sentence:
            raise
        sys.stderr.write(f"statemq: {sentence}\n")
        sys.exit(2)
    run()


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - pathlib would be imported from there, too
    except OSError:
        return ""


if not sys.flags.safe_path and sys.path[:1] == [_folder()]:
    sys.path.append(sys.path.pop(0))  # the working folder, behind the libraries: no file in it is imported in place of one

if __name__ == "__main__":
    entry()
