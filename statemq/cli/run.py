"""The panel "Run": daemons."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statemq.cli import logs, options
from statemq.cli.ends import INTERRUPTED
from statemq.cli.find import Place, find_named
from statemq.codec import duration_ms
from statemq.config import LEASE_MS_MOST, shown
from statemq.errors import UsageError

if TYPE_CHECKING:
    import asyncio

    from statemq.config import WorkerSettings


OTHER_THREADS = 64
"""For what handlers give to ``asyncio.to_thread``; Python's own pool has six on two cores."""

log = logging.getLogger("statemq.cli")


class OnWipe(StrEnum):
    halt = "halt"
    reinit = "reinit"


LogFormat = Annotated[logs.Format, typer.Option("--log-format", help="One readable line, or one JSON object, for each event.")]
LogLevel = Annotated[logs.Level, typer.Option("--log-level", help="The least that is worth a line.")]
LogTransitions = Annotated[bool, typer.Option("--log-transitions", help="A line for each transition, not only for what goes wrong.")]


def worker(
    targets: options.Targets,
    processes: Annotated[int, typer.Option("--processes", min=1, metavar="N", help="Worker processes; one that dies starts again.")] = 1,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, metavar="N", help="Transitions that run at a time in a process. [128]")
    ] = None,
    lease_ms: Annotated[
        int | None,
        typer.Option(
            "--lease-ms", min=500, max=LEASE_MS_MOST, metavar="N", help="A silent host's partitions are taken over after this. [10000]"
        ),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option("--grace", parser=options.seconds, metavar="TIME", help="After SIGTERM, what runs may end within this time. [10s]"),
    ] = None,
    stuck_after: Annotated[
        float | None,
        typer.Option("--stuck-after", parser=options.seconds, metavar="TIME", help="A process whose handler blocks so long ends. [30s]"),
    ] = None,
    unknown_wait: Annotated[
        float | None,
        typer.Option(
            "--unknown-wait",
            parser=options.seconds,
            metavar="TIME",
            help="A command that this code does not take waits so long for newer code; 0: it fails at once. [10m]",
        ),
    ] = None,
    max_crashes: options.MaxCrashes = None,
    on_wipe: Annotated[OnWipe, typer.Option("--on-wipe", help="When Redis was wiped: say it and wait, or begin anew.")] = OnWipe.halt,
    log_format: LogFormat = logs.Format.text,
    log_level: LogLevel = logs.Level.info,
    log_transitions: LogTransitions = False,
    redis: options.NamedRedis = None,
    namespace: options.Namespace = None,
) -> None:
    """Run the machines of one or more targets.

    Several workers share the work, on one host or many; start and stop them at any time.
    SIGTERM or Ctrl-C ends it in good order, a second one at once.

    Example: statemq worker shop.machines --processes 4
    """
    place = find_named(redis, namespace)
    logs.set_up(log_format, log_level)
    machines = _machines(targets)
    if processes > 1:
        passed = {
            "--concurrency": concurrency,
            "--lease-ms": lease_ms,
            "--grace": grace,
            "--stuck-after": stuck_after,
            "--unknown-wait": unknown_wait,
            "--max-crashes": max_crashes,
            "--on-wipe": on_wipe.value,
            "--log-format": log_format.value,
            "--log-level": log_level.value,
        }
        words = [str(word) for option, value in passed.items() if value is not None for word in (option, value)]
        words += ["--log-transitions"] if log_transitions else []
        from statemq.config import WorkerSettings

        grace_s = WorkerSettings().grace_s if grace is None else grace
        raise typer.Exit(_supervise(processes, ["worker", *words, "--", *targets], place, grace_s))
    given = {
        "concurrency": concurrency,
        "lease_ms": lease_ms,
        "grace_s": grace,
        "stuck_after_s": stuck_after,
        "unknown_wait_s": unknown_wait,
        "max_crashes": max_crashes,
        "on_wipe": on_wipe.value,
    }
    raise typer.Exit(_run(lambda: _work(machines, place, _settings(given), log_transitions)))


def serve(
    targets: options.Targets,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="Where to listen.")] = 8080,
    processes: Annotated[int, typer.Option("--processes", min=1, metavar="N", help="Processes that share the port.")] = 1,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="Lines of a token and its roles (submit read operate); needed beyond loopback.",
            show_default=False,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", help="A name by which callers reach it; may be repeated.", show_default=False),
    ] = None,
    keys_by_token: Annotated[
        bool, typer.Option("--keys-by-token", help="Each token has idempotency keys of its own: none meets another's request.")
    ] = False,
    max_delay: Annotated[str, typer.Option("--max-delay", metavar="TIME", help="The longest delay of a command, as 400d.")] = "30d",
    log_format: LogFormat = logs.Format.text,
    log_level: LogLevel = logs.Level.info,
    redis: options.NamedRedis = None,
    namespace: options.Namespace = None,
) -> None:
    """Answer HTTP for the machines of one or more targets.

    POST /resource/a/setUp runs a transition, GET /resource/a shows the instance. A token may also stand in STATEMQ_TOKEN.

    Example: statemq serve shop.machines --port 8080
    """
    place = find_named(redis, namespace)
    logs.set_up(log_format, log_level)
    try:
        from statemq.http.server import serve as serve_http
    except ModuleNotFoundError as error:
        if error.name not in ("falcon", "granian", "uvloop"):
            raise
        raise UsageError(f"serve needs {error.name}; install statemq[web]") from None
    code = serve_http(
        targets,
        place.url,
        place.namespace,
        host=host,
        port=port,
        token_file=token_file,
        allowed_hosts=allowed_host or [],
        keys_by_token=keys_by_token,
        max_delay_s=duration_ms(max_delay) / 1000,
        workers=processes,
        say=log.info,
    )
    raise typer.Exit(code)


def _machines(targets: list[str]) -> list[type[Any]]:
    """The classes of all targets, each once. Raises UsageError when two machines have one name."""
    from statemq.target import load_target

    found = list(dict.fromkeys(cls for target in targets for cls in load_target(target)))
    names: dict[str, type[Any]] = {}
    for cls in found:
        other = names.setdefault(cls.spec.name, cls)
        if other is not cls:
            raise UsageError(f'{other.__module__}.{other.__name__} and {cls.__module__}.{cls.__name__} are both called "{cls.spec.name}"')
    return found


def _settings(given: dict[str, Any]) -> WorkerSettings:
    from statemq.config import WorkerSettings

    return WorkerSettings(**{name: value for name, value in given.items() if value is not None})


def _supervise(processes: int, words: list[str], place: Place, grace_s: float) -> int:
    """This command line, once for each process, with the Redis found here (not in its words: they are for all to see)."""
    from statemq.python import python
    from statemq.worker.daemon import ENDS_S
    from statemq.worker.supervise import Child, supervise

    env = {**os.environ, "STATEMQ_REDIS": place.url, "STATEMQ_NAMESPACE": place.namespace}
    return supervise(
        [Child(f"worker {number}", python("statemq", *words), env=env) for number in range(1, processes + 1)],
        say=log.warning,
        grace_s=grace_s + ENDS_S,
    )


def _run(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """With uvloop where it is installed. The loop is closed only if nothing in it goes on, since closing it would wait for that."""
    import asyncio

    from statemq.worker.leftover import all_ended

    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as make_loop
    runner = asyncio.Runner(loop_factory=make_loop)
    try:
        return runner.run(work())
    finally:
        if runner.run(all_ended()):
            runner.close()


async def _work(machines: list[type[Any]], place: Place, settings: WorkerSettings, log_transitions: bool) -> int:
    import asyncio

    from statemq.cli import prompt
    from statemq.log import listen
    from statemq.worker.crash import crash_from
    from statemq.worker.daemon import Worker
    from statemq.worker.files import raise_limit
    from statemq.worker.leftover import Threads
    from statemq.worker.signals import heeded
    from statemq.worker.supervise import say_serving

    listen(transitions=log_transitions)
    raise_limit()
    # a command leaves no cycles behind: what was imported need not be walked again, and the young not at every 700th object
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)

    worker: Worker

    def serving() -> None:
        log.info("worker %s runs %s at %s", worker.id, ", ".join(cls.spec.name for cls in machines), shown(place.url))
        say_serving()

    worker = Worker(machines, place.url, namespace=place.namespace, settings=settings, crash=crash_from(os.environ), serving=serving)
    prompt.use(worker.attended)
    received: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        received.append(number)
        if len(received) == 1:
            log.info("ending in good order; once more ends at once")
            worker.stop()
        else:
            worker.kill()

    loop = asyncio.get_running_loop()
    for number in heeded():
        loop.add_signal_handler(number, end, number)
    loop.set_default_executor(Threads(OTHER_THREADS))
    await worker.run()
    return INTERRUPTED if received[:1] == [signal.SIGINT] else 0
