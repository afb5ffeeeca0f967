"""``python -m statemq``: the command line, where no ``statemq`` is on PATH."""

from __future__ import annotations

from statemq.cli.app import entry

if __name__ == "__main__":
    entry()
