"""Answers on stdout: tables and fields for people, one JSON object a line for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import typer

from statemq.cli.ends import say
from statemq.cli.escape import clean, json_text
from statemq.cli.fold import fold, hanging, in_colour, room

T = TypeVar("T")

Columns = Mapping[str, Callable[[T], str]]
"""Title → the cell of a row. Cells are any text; they are made harmless here."""

APART = INDENT = "  "
SHORT = 12
"""Characters of a cell that shares a line with others where its column does not fit."""

TIMES = frozenset({"at", "due", "entered", "updated", "since", "started", "seen"})
"""Fields of records that hold ms since 1970; shown as RFC 3339, 0 as nothing."""


def out(line: str) -> None:
    """A line of the answer, already harmless."""
    sys.stdout.write(line + "\n")


def tell(text: str, indent: str = "") -> None:
    """A sentence for people, in lines as wide as the terminal."""
    wide = room(sys.stdout)
    for line in [clean(text)] if wide is None else fold(text, wide - len(indent)):
        out(indent + line)


def time(at_ms: int) -> str:
    from statemq.codec import rfc3339

    return rfc3339(at_ms) if at_ms else ""


def when(at_ms: int) -> str:
    """A time in a table: short where people read it."""
    if room(sys.stdout) is None:
        return time(at_ms)
    from time import time as now_s

    from statemq.codec import short_time

    return short_time(at_ms, round(now_s() * 1000)) if at_ms else ""


def plain(value: Any) -> Any:
    """A record as plain JSON values with every field; the data of users in it stays as it is."""
    import msgspec

    if isinstance(value, msgspec.Struct):
        return {name: _field(name, getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _field(name: str, value: Any) -> Any:
    return (time(value) or None) if name in TIMES and isinstance(value, int) else plain(value)


def rows(records: Sequence[T], columns: Columns[T], as_json: bool, empty: str) -> None:
    """A table, or with ``as_json`` one object a line. ``empty`` is said on stderr when there is nothing."""
    if as_json:
        for record in records:
            out(json_text(plain(record)))
        return
    if not records:
        say(empty)
        return
    cells = [[clean(cell(record)) for cell in columns.values()] for record in records]
    wide = room(sys.stdout)
    if wide is None:
        for line in align([list(columns), *cells]):
            out(line)
    else:
        _table(list(columns), cells, wide)


def _table(titles: list[str], cells: list[list[str]], wide: int) -> None:
    """As many of the columns as fit, from the first one on; what each row has in the others stands below it. Empty columns are left out."""
    used = [number for number in range(len(titles)) if any(row[number] for row in cells)]
    table = [[row[number] for number in used] for row in [titles, *cells]]
    heads = _that_fit(table, wide)
    lines = align([row[:heads] for row in table]) if heads else [""] * len(table)
    if heads:
        out(typer.style(lines[0], bold=True) if in_colour(sys.stdout) else lines[0])
    for number, (line, row) in enumerate(zip(lines[1:], table[1:], strict=True)):
        below = list(zip(table[0][heads:], row[heads:], strict=True))
        if heads:
            out(line)
        else:  # its first cell alone is its title
            for part in ([""] if number else []) + fold(below.pop(0)[1], wide):
                out(part)
        for part in _below(below, wide):
            out(part)


def _that_fit(table: list[list[str]], wide: int) -> int:
    from rich.cells import cell_len

    used, heads = -len(APART), 0
    for column in zip(*table, strict=True):
        used += len(APART) + max(map(cell_len, column))
        if used > wide:
            break
        heads += 1
    return heads


def _below(cells: list[tuple[str, str]], wide: int) -> list[str]:
    """What did not fit into a row: short ones beside one another, each of the others on a line of its own."""
    said = [(f"{title.lower()} " if title else "", cell) for title, cell in cells if cell]
    short = APART.join(label + cell for label, cell in said if len(cell) <= SHORT)
    lines = fold(short, wide - len(INDENT)) if short else []
    for label, cell in said:
        if len(cell) > SHORT:
            lines += hanging(label, cell, wide - len(INDENT))
    return [INDENT + line for line in lines]


def fields(title: str, values: Mapping[str, str]) -> None:
    """A thing and what is known of it, a line each; empty values are left out."""
    tell(title)
    wide = room(sys.stdout)
    known = {name: value for name, value in values.items() if value}
    labels = align([[f"{INDENT}{name}", "|"] for name in known]) if known else []
    for label, value in zip(labels, known.values(), strict=True):
        begins = label.removesuffix("|")
        for line in [begins + clean(value)] if wide is None else hanging(begins, value, wide):
            out(line)


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Columns two spaces apart, as wide as a terminal shows them."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return [APART.join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
