"""How long Python takes to be ready: ``import statemq`` and ``statemq --help``, over bare Python."""

from __future__ import annotations

import subprocess
import sys
import time

from statemq.bench.figures import Figure, middle
from statemq.bench.stage import Stage

ROUNDS = 7

PROGRAMS = {
    "bare": ["-c", "pass"],
    "import statemq": ["-c", "import statemq"],
    "statemq --help": ["-m", "statemq", "--help"],
}


def start(stage: Stage) -> list[Figure]:
    took_ms: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for number in range(ROUNDS + 1):
        stage.tell(f"start: round {number} of {ROUNDS}")
        for name, words in PROGRAMS.items():
            began_s = time.monotonic()
            subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
            if number:  # the first round fills the caches
                took_ms[name].append((time.monotonic() - began_s) * 1000)
    bare_ms = middle(took_ms.pop("bare"))
    note = f"over bare Python's {bare_ms:.0f} ms"
    return [Figure(name=name, value=middle(times) - bare_ms, unit="ms", note=note) for name, times in took_ms.items()]
