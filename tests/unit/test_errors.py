"""Errors cross to other processes: all that statemq may raise survives pickle and copy with its fields, and is exported."""

from __future__ import annotations

import copy
import inspect
import pickle
import pkgutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import pytest

import statemq
from statemq import errors
from statemq.errors import StatemqError


class Funds(errors.Reject):
    """A user's own, with an ``__init__`` of its own."""

    def __init__(self, missing: int, *, currency: str) -> None:
        super().__init__(f"{missing} {currency} are missing", code="funds")
        self.missing, self.currency = missing, currency


class Broken(errors.Fail):
    def __init__(self) -> None:
        super().__init__("broken", "machine")


def _classes() -> list[type[BaseException]]:
    """All exception classes of the package but for those of its programs' own ends."""
    found: set[type[BaseException]] = set()
    for module in pkgutil.walk_packages(statemq.__path__, "statemq."):
        if not module.name.endswith("__main__"):
            own = vars(import_module(module.name)).values()
            found |= {one for one in own if inspect.isclass(one) and issubclass(one, BaseException) and one.__module__ == module.name}
    return sorted((one for one in found if issubclass(one, StatemqError | errors.Reject | errors.Fail)), key=lambda one: one.__qualname__)


def _example(kind: type[BaseException]) -> BaseException:
    """One with a value in each field."""
    values: dict[str, Any] = {"int": 3, "int | None": 3, "list[str]": ["one", "two"], "Iterable[str]": ["one", "two"], "str": "some text"}
    given: list[Any] = []
    named: dict[str, Any] = {}
    if kind.__init__ in (Exception.__init__, BaseException.__init__):
        return kind("some text")
    for parameter in [*inspect.signature(kind.__init__).parameters.values()][1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = values[str(parameter.annotation)]
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        else:
            given.append(value)
    return kind(*given, **named)


EXAMPLES = [*map(_example, _classes()), Funds(5, currency="EUR"), Broken()]
WAYS: list[Callable[[BaseException], BaseException]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda error, n=n: pickle.loads(pickle.dumps(error, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)),  # type: ignore[misc]
]


def test_all_are_looked_at() -> None:
    assert len(EXAMPLES) > 30


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_it_survives_with_its_fields(error: BaseException) -> None:
    error.add_note("a note")
    for way in WAYS:
        there = way(error)
        assert type(there) is type(error)
        assert str(there) == str(error) and repr(there) == repr(error) and there.args == error.args
        assert vars(there) == vars(error)


def test_in_a_group_too() -> None:
    group = ExceptionGroup("two", [errors.StepFailed("pay", "ValueError", "no"), errors.Pending("late", id="m.0.x")])
    there = pickle.loads(pickle.dumps(group))
    assert [vars(one) for one in there.exceptions] == [vars(one) for one in group.exceptions]


def _fails() -> None:
    raise errors.TooLarge("arguments", 7, 5)


def test_a_process_pool_hands_it_on() -> None:
    """An error that cannot be unpickled breaks the pool, and all who wait for it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        asked = pool.submit(_fails)
        with pytest.raises(errors.TooLarge) as caught:
            asked.result(60)
    assert (caught.value.what, caught.value.size, caught.value.limit) == ("arguments", 7, 5)


def test_whatever_may_be_caught_is_exported() -> None:
    own = {name for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, BaseException)}
    # PortTaken ends the program that serves; no call of a user's raises it.
    assert {name for name in own if not name.startswith("_")} - {"PortTaken"} <= set(statemq.__all__)
    assert all(getattr(statemq, name) is getattr(errors, name) for name in own & set(statemq.__all__))
