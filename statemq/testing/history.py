"""The checker: evidence in, a verdict out. Pure functions; nothing here knows how the evidence came about.

Feed it what happened (``statemq.testing.evidence`` has the records)::

    lines = read(folder)                                   # *.jsonl, or make the records yourself
    verdict = check(lines, Chain())                        # Chain: the model of the machine under test
    print(verdict.text()); sys.exit(not verdict.ok)

or ``python -m statemq.testing FOLDER``. The machine under test should give a value that binds its whole past, as ``chain.Chain`` does: each
applied command then is at a known place, and what is NP-hard for histories in general is a sort.

The checks, each a function of its own that yields a sentence a finding:

1 ``shape`` · 2 ``once`` · 3 ``no_phantom`` · 4 ``durable`` · 5 ``definite`` · 6 ``model`` · 7 ``entry_order`` · 8 ``real_time`` ·
9 ``one_writer`` · 10 ``replies_agree`` · 11 ``steps`` · 12 ``clean_end`` · 13 ``liveness`` · 14 ``not_vacuous`` ·
15 ``false_death`` · 16 ``beside`` · 17 ``sleeps`` ·
and ``losses``, where Redis may lose writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import msgspec

from statemq.testing.alive import beside, false_death, sleeps
from statemq.testing.chain import Chain
from statemq.testing.ends import clean_end, liveness, not_vacuous, replies_agree
from statemq.testing.evidence import Acquire, Fail, Info, Line, Ok, line, read, write
from statemq.testing.losses import losses
from statemq.testing.order import entry_order, one_writer, real_time
from statemq.testing.steps import steps
from statemq.testing.versions import definite, durable, model, no_phantom, once, shape
from statemq.testing.view import Model, View

__all__ = ["CHECKS", "Chain", "Finding", "Model", "Verdict", "View", "check", "line", "read", "write"]

CHECKS: dict[str, Callable[[View], Iterator[str]]] = {
    "losses": losses,  # first: it names what the others leave alone
    "1": shape,
    "2": once,
    "3": no_phantom,
    "4": durable,
    "5": definite,
    "6": model,
    "7": entry_order,
    "8": real_time,
    "9": one_writer,
    "10": replies_agree,
    "11": steps,
    "12": clean_end,
    "13": liveness,
    "14": not_vacuous,
    "15": false_death,
    "16": beside,
    "17": sleeps,
}


class Finding(msgspec.Struct, frozen=True):
    """A promise that was broken. ``check``: which one; ``name``: the function that found it."""

    check: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.check} {self.name}: {self.text}"


class Verdict(msgspec.Struct, frozen=True):
    """``counts``: what was judged, so that nobody takes an empty history for a clean one. ``lost``: answered writes that Redis lost."""

    findings: list[Finding]
    counts: dict[str, int]
    lost: int = 0

    @property
    def ok(self) -> bool:
        return not self.findings

    def text(self, most: int = 20) -> str:
        """For a person: what was judged, then the first findings of each check."""
        judged = ", ".join(f"{n} {what}" for what, n in self.counts.items())
        lost = f"; {self.lost} answered writes were lost with Redis, each partition's last ones" if self.lost else ""
        if self.ok:
            return f"clean: {judged}{lost}"
        by_check = Counter(f"{f.check} {f.name}" for f in self.findings)
        lines = [f"{len(self.findings)} findings ({', '.join(f'{n} of {c}' for c, n in by_check.items())}) in {judged}{lost}"]
        for name in by_check:
            lines += [f"  {f}" for f in self.findings if f"{f.check} {f.name}" == name][: max(1, most // len(by_check))]
        return "\n".join(lines)


def check(lines: Iterable[Line], model: Model) -> Verdict:
    """All checks over all evidence."""
    view = View(lines, model)
    found = [Finding(number, judge.__name__, text) for number, judge in CHECKS.items() for text in judge(view)]
    ends = Counter(type(op.end) for op in view.ops if op.begun.kind == "write")
    counts = {
        "writes answered": ends[Ok],
        "refused or cancelled": ends[Fail],
        "unknown": ends[Info] + ends[type(None)],
        "reads": sum(op.begun.kind == "read" for op in view.ops),
        "applied": len(view.row_of),
        "keys": len(view.applied),
        "tenures": sum(isinstance(row, Acquire) for rows in view.audit.values() for row in rows),
        "step runs": len(view.effects),
        "sleeps": len({woke.id for woke in view.woke}),
        "faults": len(view.faults),
    }
    return Verdict(found, counts, len(view.lost))
