"""``statemq init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statemq.cli import show
from statemq.cli.ends import command, say, to_copy
from statemq.cli.escape import clean
from statemq.errors import UsageError

TEMPLATE = "order.py"


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path(TEMPLATE),
) -> None:
    """Write a small commented machine to start from.

    Nothing that is there is overwritten.

    Example: statemq init
    """
    from statemq.examples import order

    if file.suffix != ".py":
        raise UsageError(f"{file} is no name for a machine's code; end it with .py")
    text = Path(order.__file__).read_text().replace(f"statemq dev {TEMPLATE}", f"statemq dev {file}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x") as written:
            written.write(text)
    except FileExistsError:
        raise UsageError(f"{file} is there already; name another file") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None
    show.out(clean(str(file)))
    say(f"next: {to_copy('dev', str(file))}\nand in another terminal: {command()} call order o-1 pay cents=1200")
