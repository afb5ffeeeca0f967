"""``statemq dev TARGET``: a Redis, a worker and HTTP for a machine that is being written, with no set-up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from statemq.cli import complete, options
from statemq.config import DEFAULT_NAMESPACE, check_namespace

DATA = Path(".statemq")


def command(
    target: Annotated[
        str,
        typer.Argument(
            autocompletion=complete.targets,
            metavar="TARGET",
            help="package.module, package.module:Class or a .py file.",
            show_default=False,
        ),
    ],
    port: Annotated[int, typer.Option("--port", min=1, max=65535, metavar="N", help="Where HTTP listens, on this machine only.")] = 8080,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", parser=Path, help="Where the data is kept between runs.")] = DATA,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was kept.")] = False,
    crash: Annotated[
        str, typer.Option("--crash", metavar="P", help="kill -9 the worker in the middle of this share of transitions, as 0.4.")
    ] = "0",
    max_crashes: options.MaxCrashes = None,
    no_reload: Annotated[bool, typer.Option("--no-reload", help="Do not restart when a source file is saved.")] = False,
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis", metavar="URL", help="Use this Redis (default: STATEMQ_REDIS) instead of one of its own.", show_default=False
        ),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", metavar="NAME", help="Default: STATEMQ_NAMESPACE, statemq.", show_default=False)
    ] = None,
) -> None:
    """Run everything for TARGET: a Redis of its own, a worker and HTTP; restart on save; Ctrl-C ends it.

    --crash shows how transitions continue after their worker was killed. The data is kept until --fresh.

    Example: statemq dev order.py
    """
    from statemq.cli.dev_run import dev
    from statemq.cli.dev_session import Wanted
    from statemq.worker.crash import probability

    wanted = Wanted(
        target=target,
        port=port,
        namespace=check_namespace(namespace or os.environ.get("STATEMQ_NAMESPACE") or DEFAULT_NAMESPACE),
        url=redis or os.environ.get("STATEMQ_REDIS") or "",
        crash=probability(crash),
        max_crashes=max_crashes,
        reload=not no_reload,
    )
    raise typer.Exit(dev(wanted, data, fresh))
