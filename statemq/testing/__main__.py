"""``python -m statemq.testing FOLDER``: judges the evidence of a folder, by the chain model. Exit code 1: a promise was broken."""

from __future__ import annotations

import sys
from pathlib import Path

from statemq.testing.history import Chain, check, read


def main(folder: str) -> int:
    verdict = check(read(Path(folder)), Chain())
    sys.stdout.write(verdict.text() + "\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
