"""The blocking client where gevent has replaced threads by greenlets.

gevent is none of the packages that these tests install. What stands for it here says, as its ``monkey`` does, that threads are replaced,
and gives the original start of one; a thread that is started in any other way is one of its greenlets, and would run in this very thread.
Tried with gevent itself (26.9) by hand: hundreds of greenlets and threads of its pool at once, time-outs, killed greenlets, a fork.
"""

from __future__ import annotations

import _thread
import asyncio
import select
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from statemq import Machine, Pending, RedisAway, UsageError, blocking, sync, transition


class Lamp(Machine, initial="off", partitions=1):
    @transition(source="off", target="on")
    def light(self) -> None: ...


class NotGevent(ModuleType):
    """Stands for ``gevent``: the hub of this thread has to be there before there is another thread, which makes one, too."""

    def get_hub(self) -> NotGevent:
        assert threading.current_thread() is threading.main_thread()
        return self

    @property
    def resolver(self) -> None: ...


class NotGeventsMonkey(ModuleType):
    """Stands for ``gevent.monkey`` after ``patch_all()``."""

    replaced = ("threading", "_thread", "socket", "select", "selectors")

    def is_module_patched(self, name: str) -> bool:
        return name in self.replaced

    def get_original(self, module: str, name: str) -> Any:
        assert (module, name) == ("_thread", "start_new_thread")
        return _thread.start_new_thread


class NotGeventsSocket(ModuleType):
    """Stands for ``gevent.socket``: a wait lets other greenlets run, whose turns are counted."""

    turns = 0

    def wait_read(self, fileno: int, timeout: float, timeout_exc: Exception) -> None:
        self.turns += 1
        if not select.select([fileno], [], [], timeout)[0]:
            raise timeout_exc


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotGeventsSocket]:
    def as_greenlet(thread: threading.Thread) -> None:
        raise AssertionError(f"{thread.name} would be a greenlet of this thread")

    standing = NotGeventsSocket("gevent.socket")
    monkeypatch.setitem(sys.modules, "gevent", NotGevent("gevent"))
    monkeypatch.setitem(sys.modules, "gevent.monkey", NotGeventsMonkey("gevent.monkey"))
    monkeypatch.setitem(sys.modules, "gevent.socket", standing)
    monkeypatch.setattr(threading.Thread, "start", as_greenlet)
    monkeypatch.setattr(blocking, "current", blocking.Process())
    yield standing
    loop = blocking.current._loop
    if loop is not None:
        loop.call_soon_threadsafe(loop.stop)


@pytest.mark.leaves_work
def test_the_loop_has_a_real_thread_and_who_asks_gives_way(url: str, namespace: str, waits: NotGeventsSocket) -> None:
    with sync.Client(url, namespace=namespace, machines=[Lamp]) as client:
        for _ in range(3):
            turns = waits.turns
            assert client.get(Lamp, "a").state == "off"
            assert waits.turns > turns
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
        with pytest.raises(Pending):
            client.call(Lamp.light("a"), timeout=0.05)
        (queued,) = client.queue(Lamp, "a")
        assert client.cancel(queued.id) in ("asked", "cancelled")


@pytest.mark.usefixtures("waits")
def test_half_of_it_is_refused_at_the_first_call(url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["gevent.monkey"], "replaced", ("threading", "_thread"))
    with pytest.raises(
        UsageError, match=r"^under gevent this client needs monkey\.patch_all\(\); here threads are replaced, and select is not$"
    ):
        sync.Client(url, namespace=namespace).machines()


def test_what_goes_wrong_is_told_there_too(namespace: str, waits: NotGeventsSocket) -> None:
    client = sync.Client("redis://127.0.0.1:1", namespace=namespace, timeout=0.2)
    with pytest.raises(RedisAway):
        client.get("lamp", "a")
    client.close()
    with pytest.raises(UsageError, match="was closed"):
        client.get("lamp", "a")
    assert waits.turns > 0
