"""``python -m statemq``: the command line, where no ``statemq`` is on PATH."""

from __future__ import annotations

import sys

from statemq.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
