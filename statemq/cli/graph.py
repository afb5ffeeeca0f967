"""``statemq graph``."""

from __future__ import annotations

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from statemq.cli import complete, draw, options, show
from statemq.cli.connect import ask
from statemq.cli.escape import json_text
from statemq.errors import RedisAway, UnknownMachine


class Format(StrEnum):
    text = "text"
    mermaid = "mermaid"
    dot = "dot"
    json = "json"


def graph(
    what: Annotated[
        str,
        typer.Argument(
            autocompletion=complete.targets_or_machines,
            metavar="TARGET-or-MACHINE",
            help="Code (package.module, …:Class, file.py), or a declared machine's name.",
            show_default=False,
        ),
    ],
    format: Annotated[Format, typer.Option("--format", help="A drawing, Mermaid or DOT text, or all that is declared.")] = Format.text,
    redis: options.Redis = None,
    namespace: options.Namespace = None,
) -> None:
    """Draw a machine's states and transitions.

    From its code, or as declared in Redis.

    Example: statemq graph statemq.examples.resource --format mermaid
    """
    formats = {Format.text: draw.text, Format.mermaid: draw.mermaid, Format.dot: draw.dot, Format.json: json_text}
    for number, found in enumerate(_graphs(what, redis, namespace)):
        if number and format is not Format.json:
            show.out("")
        for line in formats[format](found).splitlines() if format is Format.text else []:
            show.tell(line)
        if format is not Format.text:
            show.out(formats[format](found))


def _graphs(what: str, redis: str | None, namespace: str | None) -> list[dict[str, Any]]:
    """From code when it can only be code, else from Redis, else from a module of that name in the working folder."""
    if any(sign in what for sign in ".:/"):
        return _load(what)
    try:
        return [ask(redis, namespace, lambda client: client.graph(what))]
    except (UnknownMachine, RedisAway):
        here = Path(what)
        with contextlib.suppress(OSError):  # no file can be called so
            if here.with_suffix(".py").is_file() or (here / "__init__.py").is_file():
                return _load(what)
        raise


def _load(target: str) -> list[dict[str, Any]]:
    from statemq.target import load_target

    return [machine.spec.graph() for machine in load_target(target)]
