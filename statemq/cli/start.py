"""``statemq init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statemq.cli import show
from statemq.cli.ends import say, to_copy
from statemq.cli.escape import quote
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
    named = quote(str(file))
    text = Path(order.__file__).read_text("utf-8")
    if not {'"', "\\"} & set(named):  # it stands in a text of Python's
        text = text.replace(f"statemq dev {TEMPLATE}", f"statemq dev {named}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        raise UsageError(f"{file} is there already; name another file") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None
    show.tell(str(file))
    run, call = to_copy("dev", str(file)), to_copy("call", "order", "o-1", "pay", "cents=1200")
    say(f"next: {run}\nand in another terminal: {call}", run, call)
