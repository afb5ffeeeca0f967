"""Arguments and options that several commands share, with the words that explain them."""

from __future__ import annotations

from typing import Annotated

import typer

from statemq.cli import complete


def seconds(text: str) -> float:
    """A duration as people write it. Raises UsageError."""
    from statemq.codec import duration_ms

    return duration_ms(text) / 1000


Machine = Annotated[
    str,
    typer.Argument(autocompletion=complete.machines, metavar="MACHINE", help="Name of a machine, such as resource.", show_default=False),
]
Key = Annotated[
    str,
    typer.Argument(
        autocompletion=complete.keys, metavar="KEY", help="Which instance. One that begins with - goes after --.", show_default=False
    ),
]
MaybeKey = Annotated[
    str | None, typer.Argument(autocompletion=complete.keys, metavar="KEY", help="Only this instance.", show_default=False)
]
Transition = Annotated[
    str, typer.Argument(autocompletion=complete.transitions, metavar="TRANSITION", help="What to run, such as setUp.", show_default=False)
]
Id = Annotated[
    str, typer.Argument(autocompletion=complete.ids, metavar="ID", help="A command's id, as send prints it.", show_default=False)
]
Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARGUMENT", help="A JSON object, - for one on stdin, or name=value and name:=JSON.", show_default=False),
]
Targets = Annotated[
    list[str],
    typer.Argument(
        autocompletion=complete.targets, metavar="TARGET", help="package.module, package.module:Class or a .py file.", show_default=False
    ),
]

Redis = Annotated[
    str | None,
    typer.Option(
        "--redis", metavar="URL", help="Default: STATEMQ_REDIS, this folder's running dev, redis://localhost:6379.", show_default=False
    ),
]
NamedRedis = Annotated[
    str | None, typer.Option("--redis", metavar="URL", help="Default: STATEMQ_REDIS, redis://localhost:6379.", show_default=False)
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", help="Default: STATEMQ_NAMESPACE, statemq.", show_default=False)
]
MaxCrashes = Annotated[
    int | None,
    typer.Option("--max-crashes", min=1, metavar="N", help="A command that killed its worker so often, running alone, is buried. [3]"),
]
Json = Annotated[bool, typer.Option("--json", help="One compact JSON object a line.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, metavar="N", help="At most so many lines.")]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        autocompletion=complete.targets,
        metavar="TARGET",
        help="Where the class is. Default: STATEMQ_TARGET, the running dev's.",
        show_default=False,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", parser=seconds, metavar="TIME", help="Wait at most so long: 500ms, 30s, 5m.", show_default=False),
]
Once = Annotated[
    str | None,
    typer.Option("--idempotency-key", metavar="TEXT", help="Sent twice with the same text, it runs once.", show_default=False),
]
IfState = Annotated[
    str | None,
    typer.Option(
        "--if-state",
        autocompletion=complete.states,
        metavar="STATE",
        help="Reject it unless the instance is in this state.",
        show_default=False,
    ),
]
