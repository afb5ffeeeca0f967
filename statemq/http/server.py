"""``statemq serve``: the HTTP edge as a process of its own, or as several that share a port."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import uvloop

from statemq.command import Declared
from statemq.config import HttpSettings
from statemq.errors import UsageError
from statemq.http.access import ROLES, Access, Tokens, check_token
from statemq.http.address import Address, find_address, own_names
from statemq.http.app import create_service
from statemq.http.listen import GRACE_S, listen
from statemq.python import python
from statemq.target import load_target
from statemq.worker.fork import clean_children
from statemq.worker.signals import heeded
from statemq.worker.supervise import Child, say_serving, supervise

SERVING_ENV = "STATEMQ_SERVING"

Say = Callable[[str], None]


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What one serving process must know; travels to child processes as JSON in their environment."""

    targets: list[str]
    url: str
    namespace: str
    address: Address
    allowed_hosts: list[str]
    tokens: dict[str, list[str]] | None
    """Digests and roles, as `Tokens.digests` gives them; None: no token is asked for."""
    keys_by_token: bool = False
    max_delay_s: float = HttpSettings().max_delay_s

    def __repr__(self) -> str:
        return f"Serving({', '.join(self.targets)} at {self.address.url})"  # no secret


def serve(
    targets: Sequence[str | type[Declared]],
    url: str,
    namespace: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    token_file: Path | None = None,
    allowed_hosts: Sequence[str] = (),
    keys_by_token: bool = False,
    max_delay_s: float = HttpSettings().max_delay_s,
    workers: int = 1,
    say: Say = print,
) -> int:
    """Answers until SIGTERM, SIGINT or SIGHUP; returns the exit code. Main thread only.

    ``targets``: as on the command line, or machine classes. ``allowed_hosts``: names by which callers reach this server,
    besides loopback's and ``host``. ``keys_by_token``: each token has idempotency keys of its own.
    ``max_delay_s``: the longest delay of a command. ``workers``: processes. ``say`` is told where it answers.

    Raises UsageError for a target, host or token that cannot be, PortTaken.
    """
    tokens = read_tokens(token, token_file)
    machines = load(targets)
    address = find_address(host, port, protected=tokens is not None)
    hosts = [*allowed_hosts, *own_names(host, address)]
    access = Access(tokens, hosts, keys_by_token=keys_by_token)
    if workers == 1:
        return run_process(machines, url, namespace, address, access, say, max_delay_s)
    names = [target for target in targets if isinstance(target, str)]
    if len(names) < len(targets):
        raise UsageError("several serving processes need their targets by name, not as classes")
    digests = None if tokens is None else tokens.digests()
    serving = Serving(
        targets=names,
        url=url,
        namespace=namespace,
        address=address,
        allowed_hosts=hosts,
        tokens=digests,
        keys_by_token=keys_by_token,
        max_delay_s=max_delay_s,
    )
    env = {**os.environ, SERVING_ENV: msgspec.json.encode(serving).decode()}
    children = [Child(f"http {n + 1}", python("statemq.http"), env=env) for n in range(workers)]
    say(f"{workers} processes answer on {address.url}")
    return supervise(children, say=say, grace_s=GRACE_S + 2)


def serve_child(text: str) -> int:
    """One of several processes on a port; ``text`` is a Serving."""
    s = msgspec.json.decode(text, type=Serving)
    tokens = None if s.tokens is None else Tokens.of_digests(s.tokens)
    access = Access(tokens, s.allowed_hosts, keys_by_token=s.keys_by_token)
    return run_process(load(s.targets), s.url, s.namespace, s.address, access, lambda line: None, s.max_delay_s)


def read_tokens(token: str | None, token_file: Path | None) -> Tokens | None:
    """The tokens of a token file, or the one token that is given or stands in STATEMQ_TOKEN, for everything; None if there is none.

    They are read here and nowhere else: what counts as protection is what is asked for. Raises UsageError for a token that cannot be.
    """
    if token is None and token_file is not None:
        try:
            text = token_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
            raise UsageError(f"cannot read the token file {token_file}: {why}") from None
        tokens = Tokens.parse(text, f"the token file {token_file}")
        if tokens is None:
            raise UsageError(f"the token file {token_file} has no token in it; a line that begins with # is a comment")
        return tokens
    found = os.environ.get("STATEMQ_TOKEN", "") if token is None else token
    if not found:
        return None
    check_token(found.strip(), "STATEMQ_TOKEN: " if token is None else "")
    return Tokens({found.strip(): ROLES})


def load(targets: Sequence[str | type[Declared]]) -> list[type[Declared]]:
    machines: list[type[Declared]] = []
    for target in targets:
        machines += load_target(target) if isinstance(target, str) else [target]
    return machines


def run_process(
    machines: Sequence[type[Declared]], url: str, namespace: str, address: Address, access: Access, say: Say, max_delay_s: float
) -> int:
    """Answers until a signal comes; 130 after Ctrl-C, else 0."""
    received: list[signal.Signals] = []

    async def until_signal() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def note(number: signal.Signals) -> None:
            received.append(number)
            stop.set()

        def started() -> None:
            say_serving()
            say(f"answering on {address.url}")

        for number in heeded():
            loop.add_signal_handler(number, note, number)
        service = create_service(machines, url, namespace)
        service.settings = msgspec.structs.replace(service.settings, max_delay_s=max_delay_s)
        with clean_children():
            await listen(service, access, address, stop=stop, started=started)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_signal())
    return 130 if received[:1] == [signal.SIGINT] else 0
