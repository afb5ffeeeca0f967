"""``bin/mutants [-k name] [--table]``: each mutant against its catcher; ends with 1 if one survives."""

from __future__ import annotations

import argparse
import sys

from tests.mutants.catalog import MUTANTS
from tests.mutants.hunt import hunt


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/mutants", description="Breaks the engine in many ways; each must be noticed.")
    parser.add_argument("-k", default="", metavar="NAME", help="only mutants whose name or rule holds this")
    parser.add_argument("--table", action="store_true", help="print a Markdown table, as in docs/MUTANTS.md")
    options = parser.parse_args()
    names = [name for name, m in MUTANTS.items() if options.k in name or options.k in m.rule.split(", ")]
    names.sort(key=lambda name: [int(rule[1:]) for rule in MUTANTS[name].rule.split(", ")])
    if options.table:
        say("| mutant | rule | what is broken | caught by | seconds |\n|---|---|---|---|---|")
    survivors = []
    for name in names:
        mutant, found = MUTANTS[name], hunt(name)
        if not found.by:
            survivors.append(name)
        if options.table:
            say(f"| {name} | {mutant.rule} | {mutant.what} | {found.by or '**survives**'} | {found.seconds:.1f} |")
        else:
            say(f"{name:36} {mutant.rule:8} {found.seconds:6.1f} s  {found.by or 'SURVIVES'}")
    say(f"\n{len(names)} mutants, {len(survivors)} survive{': ' + ', '.join(survivors) if survivors else ''}")
    return 1 if survivors else 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
