"""Answers on stdout: tables and fields for people, one JSON object a line for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from statemq.cli.ends import say
from statemq.cli.escape import clean, json_text

T = TypeVar("T")

Columns = Mapping[str, Callable[[T], str]]
"""Title → the cell of a row. Cells are any text; they are made harmless here."""

TIMES = frozenset({"at", "due", "entered", "updated", "since", "started", "seen"})
"""Fields of records that hold ms since 1970; shown as RFC 3339, 0 as nothing."""


def out(line: str) -> None:
    """A line of the answer, already harmless."""
    sys.stdout.write(line + "\n")


def time(at_ms: int) -> str:
    from statemq.codec import rfc3339

    return rfc3339(at_ms) if at_ms else ""


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
    if sys.stdout.isatty():
        _draw(list(columns), cells)
    else:
        for line in align([list(columns), *cells]):
            out(line)


def fields(title: str, values: Mapping[str, str]) -> None:
    """A thing and what is known of it, a line each; empty values are left out."""
    out(clean(title))
    for line in align([[f"  {name}", clean(value)] for name, value in values.items() if value]):
        out(line)


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Columns two spaces apart, as wide as a terminal shows them."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _draw(titles: list[str], cells: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in cells:
        table.add_row(*[Text(cell) for cell in row])  # Text: what looks like markup stays what it is
    Console(file=sys.stdout).print(table)
