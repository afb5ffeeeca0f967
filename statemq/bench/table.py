"""A report as a table for people and as plain values for programs."""

from __future__ import annotations

from typing import Any

import msgspec

from statemq.bench.figures import Figure
from statemq.bench.goals import GOALS, Goal, reached, verdict
from statemq.bench.runner import Report


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table. ``against``: what ``base`` is. ``at_least`` and ``aim`` are limits from above where ``less_is_better``."""

    work: str
    value: float
    unit: str
    base: float | None
    against: str
    ratio: float | None
    at_least: float | None
    aim: float | None
    less_is_better: bool
    verdict: str
    note: str


def rows(figures: list[Figure]) -> list[Row]:
    return [row(figure, GOALS.get(figure.name)) for figure in figures]


def row(figure: Figure, goal: Goal | None) -> Row:
    return Row(
        work=figure.name,
        value=rounded(figure.value),
        unit=figure.unit,
        base=None if figure.base is None else rounded(figure.base),
        against=figure.against,
        ratio=None if figure.ratio is None else round(reached(figure), 4),
        at_least=goal.at_least if goal else None,
        aim=goal.aim if goal else None,
        less_is_better=bool(goal and goal.less_is_better),
        verdict=verdict(figure),
        note=figure.note,
    )


def rounded(value: float) -> float:
    """Three digits, and all before the point."""
    return round(value, 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3)


TITLES = ("work", "value", "base", "ratio", "at least", "aim", "")


def cells(row: Row) -> tuple[str, ...]:
    """What is shown of a row under TITLES."""
    sign = "≤ " if row.less_is_better else ""
    unit = row.unit if row.unit.startswith("/") else f" {row.unit}"
    return (
        row.work,
        f"{number(row.value)}{unit}",
        "" if row.base is None else number(row.base),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.at_least is None else f"{sign}{row.at_least:g}",
        "" if row.aim is None else f"{sign}{row.aim:g}",
        row.verdict,
    )


def remark(row: Row) -> tuple[str, str] | None:
    """What else there is to say of a row: what its base is, and its note."""
    base = f"base: {row.against}" if row.against not in ("", "raw") else ""
    said = "; ".join(part for part in (base, row.note) if part)
    return (row.work, said) if said else None


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"


def as_json(report: Report) -> dict[str, Any]:
    """Everything, in plain values."""
    plain: dict[str, Any] = msgspec.to_builtins(report)
    del plain["figures"]
    return plain | {"even": report.even, "rows": msgspec.to_builtins(rows(report.figures))}


def findings(report: Report) -> list[str]:
    """One sentence for each work whose answers and data do not agree."""
    return [
        f"{work}: of {b.answered:,} answered commands {b.lost} were lost, {b.extra} done without an answer; {b.errors} ended in an error"
        + (f" (the first: {b.first_error})" if b.first_error else "")
        for work, b in report.balances.items()
        if not b.even
    ]
