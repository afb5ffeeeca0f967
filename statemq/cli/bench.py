"""``statemq bench``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from statemq.cli import ends, show
from statemq.cli.ends import say
from statemq.cli.escape import json_text
from statemq.errors import UsageError

if TYPE_CHECKING:
    from statemq.bench.runner import Report


def bench(
    redis: Annotated[
        str | None,
        typer.Option("--redis", metavar="URL", help="Measure this Redis instead of one of its own.", show_default=False),
    ] = None,
    work: Annotated[
        str,
        typer.Option(
            "--work", metavar="NAMES", help="many-keys, hot-key, steps, idle, batch, http, partitions, start, scale; by commas. [all]"
        ),
    ] = "",
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, metavar="N", help="Measured time of each side of a comparison.")] = 3.0,
    scale: Annotated[int, typer.Option("--scale", min=1000, metavar="N", help="Commands queued and instances made by scale.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure what a Redis and one worker process give.

    Each work runs beside the raw line (the same Redis work by bare hiredis, nothing safe about it) in turns, and is checked
    for lost updates. Ratios hold between machines, rates do not. A Redis that is in use slows down and is slowed down.

    Example: statemq bench --work many-keys,steps
    """
    from statemq.bench.runner import choose
    from statemq.bench.table import as_json as plain
    from statemq.bench.table import findings

    report = _run(redis, choose([name.strip() for name in work.split(",") if name.strip()]), seconds, scale)
    if as_json:
        show.out(json_text(plain(report)))
    else:
        _print(report)
    for finding in findings(report):
        say(finding)
    if not report.even:
        raise typer.Exit(ends.ENDED_BADLY)
    answered = sum(balance.answered for balance in report.balances.values())
    say(f"{answered:,} commands answered, none lost, none done twice")


def _run(redis: str | None, names: list[str], seconds: float, scale: int) -> Report:
    from statemq.bench.runner import bench as measure

    if "http" in names:
        _check_http()
    if not sys.stderr.isatty():
        return measure(redis, names, seconds=seconds, count=scale, tell=lambda text: None, finished=lambda: None)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=len(names))
        return measure(
            redis,
            names,
            seconds=seconds,
            count=scale,
            tell=lambda text: progress.update(task, description=text),
            finished=lambda: progress.advance(task),
        )


def _print(report: Report) -> None:
    """The table, as wide as a usual terminal, then what there is to say of its rows and of the run."""
    from statemq.bench.table import TITLES, cells, remark, rows

    table = rows(report.figures)
    for line in show.align([TITLES, *map(cells, table)]):
        show.out(line)
    show.out("")
    for line in show.align([said for said in map(remark, table) if said] or [("", "")]):
        show.out(line)
    loop = "uvloop" if report.uvloop else "asyncio"
    show.out(
        f"\nbase: the raw line, unless named. {report.server}, Python {report.python} with {loop}, {report.cpus} CPUs.\n"
        "One worker and one client process, 16 partitions, 128 in flight; "
        f"medians of {report.rounds} rounds in {report.seconds:g} s a side."
    )


def _check_http() -> None:
    import importlib.util

    if any(importlib.util.find_spec(name) is None for name in ("falcon", "granian")):
        raise UsageError('the work http needs more packages: pip install "statemq[web]"; or name others with --work')
